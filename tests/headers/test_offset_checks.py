"""Members lie where BTF says in the code that BCC generates, and a tree that gets one wrong is noticed."""

import os
import re
import shutil

import pytest
from bcc_child import compile_in
from btf_blob import Blob

from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.header_tree import kernel_config, structs_of, write_header_tree
from chainbench_agent.headers.offset_checks import check_function, check_source, offset_checks, read_offset

ROOTS = (
    "task_struct signal_struct mm_struct nsproxy pid_namespace css_set cgroup kernfs_node task_group rq "
    "cfs_rq cfs_bandwidth request request_queue gendisk block_device bio elevator_queue file inode dentry "
    "super_block address_space folio page kmem_cache sock inet_sock tcp_sock request_sock sk_buff net "
    "net_device msghdr iov_iter mutex rw_semaphore linux_binprm irqaction mempolicy seq_file"
)


def wrong_offsets(tree, checks):
    """The checks that BCC's generated code does not meet."""
    functions = [check_function(number) for number in range(len(checks))]
    code, _ = compile_in(tree, check_source(checks), *functions)
    return [
        (*check, read_offset(code[function]))
        for check, function in zip(checks, functions, strict=True)
        if read_offset(code[function]) != check.offset
    ]


def ends(kernel, tree):
    """The last four members of every struct in the tree."""
    return [check for struct in structs_of(tree) for check in offset_checks(kernel, [struct])[-4:]]


def test_offset_checks():
    """Only members that are asked for; the C names the struct as C does."""
    blob = Blob()
    blob.struct("task_struct", 8, ("pid", blob.int("int", 4), 32))
    small = blob.btf()

    checks = offset_checks(small, ["task_struct", "no_such"], {"pid", "tgid"})

    assert checks == [("struct task_struct", "pid", 4)]
    assert offset_checks(small, ["task_struct"]) == checks
    assert "struct task_struct *p = (void *)ctx->args[0]; return (char *)&p->pid" in check_source(checks)


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

    assert len(checks) > 2 * len(structs_of(pruned)) > 400
    assert wrong_offsets(pruned, checks) == []


@pytest.mark.portable
@pytest.mark.bpf
def test_anonymous_padding_is_noticed(kernel, pruned, tmp_path):
    """What bpftool would write is right for the front end, wrong in the code: this is why gaps have names."""
    broken = shutil.copytree(pruned, tmp_path / "broken")
    header = broken / "include/vmlinux.h"
    named = re.compile(r"unsigned char cb_pad_\d+\[(\d+)\];(?=\n\t+\w)")
    header.write_text(named.sub(anonymous, header.read_text()))

    wrong = wrong_offsets(broken, ends(kernel, broken))

    assert wrong
    front_end = (f"_Static_assert(offsetof({struct}, {member}) == {at});" for struct, member, at, _ in wrong)
    compile_in(broken, f"#define _Static_assert(x) _Static_assert(x, #x)\n{' '.join(front_end)}")


def anonymous(gap):
    """As bpftool writes padding between members, where it is made of whole words."""
    words, rest = divmod(int(gap[1]), 8)
    return gap[0] if rest else "long : 64; " * words
