"""The code that BCC generates reads members at their offsets; a tree that is wrong is detected."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from bcc_child import compile_in
from btf_blob import Blob

from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.c_writer import CWriter
from chainbench_agent.headers.header_tree import kernel_config, structs_in_tree, write_header_tree
from chainbench_agent.headers.offset_checks import check_function, check_source, offset_checks, read_offset

ROOTS = (
    "task_struct signal_struct mm_struct nsproxy pid_namespace css_set cgroup kernfs_node task_group rq "
    "cfs_rq cfs_bandwidth request request_queue gendisk block_device bio elevator_queue file inode dentry "
    "super_block address_space folio page kmem_cache sock inet_sock tcp_sock request_sock sk_buff net "
    "net_device msghdr iov_iter mutex rw_semaphore linux_binprm irqaction mempolicy seq_file"
)


def wrong_offsets(tree, checks, more=""):
    """The checks that fail in the code that BCC generates; `more` are declarations besides those of the tree."""
    functions = [check_function(number) for number in range(len(checks))]
    code, _ = compile_in(tree, more + check_source(checks), *functions)
    return [
        (*check, read_offset(code[function]))
        for check, function in zip(checks, functions, strict=True)
        if read_offset(code[function]) != check.offset
    ]


def ends(kernel, tree):
    """The last four members of every struct in the tree."""
    return [check for struct in structs_in_tree(tree) for check in offset_checks(kernel, [struct])[-4:]]


def test_only_the_members_that_are_asked_for_are_checked():
    """The struct is named with its keyword."""
    blob = Blob()
    blob.struct("task_struct", 8, ("pid", blob.int("int", 4), 32))
    small = blob.btf()

    checks = offset_checks(small, ["task_struct", "no_such"], {"pid", "tgid"})

    assert checks == [("struct task_struct", "pid", 4)]
    assert offset_checks(small, ["task_struct"]) == checks
    assert "struct task_struct *p = (void *)ctx->args[0]; return (char *)&p->pid" in check_source(checks)


def test_members_of_anonymous_members_are_checked():
    """At their offset in the outer struct, by their path in C.  Bit-fields and arrays of structs have none."""
    blob = Blob()
    word = blob.int("int", 4)
    lock = blob.typedef("lock_t", blob.struct("", 8, ("owned", word, 0), ("slock", word, 32)))
    union = blob.union("", 8, ("b", word, 0), ("c", word, 32))
    row = blob.array(blob.struct("", 4, ("v", word, 0)), 2)
    blob.struct("sock", 28, ("", union, 0), ("lk", lock, 64), ("flag", word, 128, 3), ("rows", row, 160))

    assert [check[1:] for check in offset_checks(blob.btf(), ["sock"])] == [
        ("b", 0), ("c", 4), ("lk", 8), ("lk.owned", 8), ("lk.slock", 12), ("rows", 20),
    ]  # fmt: skip
    assert [check[1:] for check in offset_checks(blob.btf(), ["sock"], {"owned"})] == [("lk.owned", 8)]


def unnamed_with_a_tag():
    """Unnamed members of kernels built with -fms-extensions: a struct in a typedef of a lock, a union in a struct."""
    blob = Blob()
    char, word, long = blob.int("char", 1), blob.int("int", 4), blob.int("long int", 8)
    owned = blob.struct("cb_test_owned", 8, ("owned", word, 0), ("slock", char, 32))
    lock = blob.typedef("cb_test_lock", blob.struct("", 16, ("", owned, 0), ("waiters", long, 64)))
    index = blob.union("cb_test_index", 8, ("head_tail", long, 0), ("head", word, 0))
    blob.struct("cb_test_sock", 48, ("refs", char, 0), ("lk", lock, 64), ("", index, 192), ("max", char, 256))
    return blob.btf()


def test_members_of_unnamed_members_with_a_tag_are_always_checked():
    """Whether or not the program uses them: their size moves all that follow."""
    assert offset_checks(unnamed_with_a_tag(), ["cb_test_sock"], ()) == [
        ("struct cb_test_sock", "lk.owned", 8),
        ("struct cb_test_sock", "lk.slock", 12),
        ("struct cb_test_sock", "head_tail", 24),
        ("struct cb_test_sock", "head", 24),
    ]


@pytest.mark.portable
@pytest.mark.bpf
def test_generated_code_reads_unnamed_members_with_a_tag_at_their_offsets(pruned):
    """BCC's clang compiles without -fms-extensions."""
    made = unnamed_with_a_tag()
    writer = CWriter(made)
    writer.define(made.record("cb_test_sock").id)
    checks = offset_checks(made, ["cb_test_sock"])

    assert [check.member for check in checks][-1] == "max"
    assert wrong_offsets(pruned, checks, writer.text) == []


def test_only_a_constant_is_an_offset():
    """`r0 = 4` is 4; code that computes something is refused."""
    assert read_offset(bytes.fromhex("b700000004000000 9500000000000000")) == 4
    with pytest.raises(ValueError, match="79110000"):
        read_offset(bytes.fromhex("7911000000000000"))


@pytest.fixture(scope="module")
def kernel():
    return Btf.load()


@pytest.fixture(scope="module")
def pruned(kernel, tmp_path_factory):
    tree = tmp_path_factory.mktemp("pruned")
    write_header_tree(tree, kernel, kernel_config(), ROOTS.split(), os.uname().release)
    return tree


@pytest.mark.bpf
def test_generated_code_agrees_with_btf(kernel, pruned):
    """At the end of every struct in the pruned tree: an error moves all that follows it."""
    checks = ends(kernel, pruned)

    assert len(checks) > 2 * len(structs_in_tree(pruned)) > 400
    assert wrong_offsets(pruned, checks) == []


@pytest.mark.bpf
def test_generated_code_agrees_with_btf_in_the_whole_tree(kernel, tmp_path):
    """For all members of each struct with an unnamed member with a tag, and of two structs that every kernel has."""
    structs = write_header_tree(tmp_path, kernel, kernel_config(), None, os.uname().release)
    concerned = [struct for struct in structs if offset_checks(kernel, [struct], ())]
    checks = offset_checks(kernel, [*concerned, "sock", "inode"])

    assert len(checks) > 100
    assert wrong_offsets(tmp_path, checks) == []


NAMED_PADDING = re.compile(r"unsigned char cb_pad_\d+\[(\d+)\];(?=\n\t+\w)")


@pytest.fixture
def rewritten(pruned, tmp_path):
    """`rewritten(change)` → the pruned tree, with the padding between members replaced by `change(match)`."""

    def tree(change):
        broken = shutil.copytree(pruned, tmp_path / "broken")
        header = broken / "include/vmlinux.h"
        header.write_text(NAMED_PADDING.sub(change, header.read_text()))
        return broken

    return tree


@pytest.mark.portable
@pytest.mark.bpf
def test_missing_padding_is_detected(kernel, rewritten):
    """By any compiler: the error names the member and both offsets."""
    tree = rewritten(lambda _gap: "")
    checks = ends(kernel, tree)
    found = wrong_offsets(tree, checks)

    assert found
    assert all(kernel.member_offset(struct.split()[-1], member) == at != got for struct, member, at, got in found)


@pytest.mark.portable
@pytest.mark.bpf
def test_anonymous_padding_is_wrong_in_the_code_of_llvm_14(kernel, rewritten):
    """It is right for the front end, and bpftool writes it.  So padding has names.  LLVM 19 reads the right member."""
    tree = rewritten(anonymous)
    checks = ends(kernel, tree)

    assert wrong_offsets(tree, checks) or llvm_of_bcc() >= 19
    front_end = (f"_Static_assert(offsetof({struct}, {member}) == {at});" for struct, member, at, *_ in checks)
    compile_in(tree, f"#define _Static_assert(x) _Static_assert(x, #x)\n{' '.join(front_end)}")


def llvm_of_bcc():
    """The major version of the LLVM that Debian's BCC is linked with."""
    library = next(Path("/usr/lib").glob("*/libbcc.so.0"))
    linked = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"libLLVM[-.so]*\.?(\d+)", linked)[1])


def anonymous(gap):
    """Padding between members as bpftool writes it, if it is a multiple of words."""
    words, rest = divmod(int(gap[1]), 8)
    return gap[0] if rest else "long : 64; " * words
