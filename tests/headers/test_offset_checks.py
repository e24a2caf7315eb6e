"""Members lie where BTF says in the code that BCC generates, and a tree that gets one wrong is noticed."""

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
    """The checks that BCC's generated code does not meet; `more` are declarations beside those of the tree."""
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


def test_offset_checks():
    """Only members that are asked for; the C names the struct as C does."""
    blob = Blob()
    blob.struct("task_struct", 8, ("pid", blob.int("int", 4), 32))
    small = blob.btf()

    checks = offset_checks(small, ["task_struct", "no_such"], {"pid", "tgid"})

    assert checks == [("struct task_struct", "pid", 4)]
    assert offset_checks(small, ["task_struct"]) == checks
    assert "struct task_struct *p = (void *)ctx->args[0]; return (char *)&p->pid" in check_source(checks)


def test_members_of_anonymous_members_are_checked():
    """At their place in the whole, by the path that C has for them; bit-fields and arrays have none."""
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
    """As kernels built with -fms-extensions have them: a struct in a typedef of a lock, a union in a struct."""
    blob = Blob()
    char, word, long = blob.int("char", 1), blob.int("int", 4), blob.int("long int", 8)
    owned = blob.struct("cb_test_owned", 8, ("owned", word, 0), ("slock", char, 32))
    lock = blob.typedef("cb_test_lock", blob.struct("", 16, ("", owned, 0), ("waiters", long, 64)))
    index = blob.union("cb_test_index", 8, ("head_tail", long, 0), ("head", word, 0))
    blob.struct("cb_test_sock", 48, ("refs", char, 0), ("lk", lock, 64), ("", index, 192), ("max", char, 256))
    return blob.btf()


def test_what_unnamed_members_with_a_tag_bring_is_always_checked():
    """Whatever the program uses: their size moves all that follows."""
    assert offset_checks(unnamed_with_a_tag(), ["cb_test_sock"], ()) == [
        ("struct cb_test_sock", "lk.owned", 8),
        ("struct cb_test_sock", "lk.slock", 12),
        ("struct cb_test_sock", "head_tail", 24),
        ("struct cb_test_sock", "head", 24),
    ]


@pytest.mark.portable
@pytest.mark.bpf
def test_unnamed_members_with_a_tag_lie_right_in_the_code(pruned):
    """BCC's clang, without -fms-extensions, reads them and what follows them where BTF says."""
    made = unnamed_with_a_tag()
    writer = CWriter(made)
    writer.define(made.record("cb_test_sock").id)
    checks = offset_checks(made, ["cb_test_sock"])

    assert [check.member for check in checks][-1] == "max"
    assert wrong_offsets(pruned, checks, writer.text) == []


def test_read_offset():
    """`r0 = 4` is 4; code that computes something is not a constant."""
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
    """The end of every struct in the pruned tree, in the code that would run: an error shifts all that follows it."""
    checks = ends(kernel, pruned)

    assert len(checks) > 2 * len(structs_in_tree(pruned)) > 400
    assert wrong_offsets(pruned, checks) == []


@pytest.mark.bpf
def test_members_written_out_lie_right_in_the_whole_tree(kernel, tmp_path):
    """All members of each struct of this kernel that has an unnamed member with a tag, and of two that any has."""
    structs = write_header_tree(tmp_path, kernel, kernel_config(), None, os.uname().release)
    concerned = [struct for struct in structs if offset_checks(kernel, [struct], ())]
    checks = offset_checks(kernel, [*concerned, "sock", "inode"])

    assert len(checks) > 100
    assert wrong_offsets(tmp_path, checks) == []


NAMED_PADDING = re.compile(r"unsigned char cb_pad_\d+\[(\d+)\];(?=\n\t+\w)")


@pytest.fixture
def rewritten(pruned, tmp_path):
    """`rewritten(change)` → the pruned tree with each padding between members as `change(match)` writes it."""

    def tree(change):
        broken = shutil.copytree(pruned, tmp_path / "broken")
        header = broken / "include/vmlinux.h"
        header.write_text(NAMED_PADDING.sub(change, header.read_text()))
        return broken

    return tree


@pytest.mark.portable
@pytest.mark.bpf
def test_missing_padding_is_noticed(kernel, rewritten):
    """Whatever compiler: a member that is not where BTF says is named, with both offsets."""
    tree = rewritten(lambda _gap: "")
    checks = ends(kernel, tree)
    found = wrong_offsets(tree, checks)

    assert found
    assert all(kernel.member_offset(struct.split()[-1], member) == at != got for struct, member, at, got in found)


@pytest.mark.portable
@pytest.mark.bpf
def test_anonymous_padding(kernel, rewritten):
    """What bpftool would write is right for the front end; in the code that LLVM 14 makes of it, it is wrong.

    This is why gaps have names.  LLVM 19 reads the right member.
    """
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
    """As bpftool writes padding between members, where it is made of whole words."""
    words, rest = divmod(int(gap[1]), 8)
    return gap[0] if rest else "long : 64; " * words
