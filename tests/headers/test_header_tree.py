"""The header tree is complete, written once, and appears only when it is whole."""

import os
import threading
from pathlib import Path

import pytest
from bcc_child import compile_in
from btf_blob import Blob

from chainbench_agent.headers import header_tree
from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.header_tree import cached_tree, kernel_config, structs_in_tree, write_header_tree


@pytest.fixture
def small():
    """A kernel with one struct and one enum."""
    blob = Blob()
    word = blob.int("int", 4)
    blob.struct("task_struct", 8, ("pid", word, 32))
    blob.enum("bpf_map_type", 4, BPF_MAP_TYPE_HASH=1)
    return blob.btf()


def test_a_tree_contains_all_that_bcc_includes(small, tmp_path):
    """Constants that this kernel lacks are macros, and only these."""
    config = {"CONFIG_HZ": "250", "CONFIG_SMP": "y", "CONFIG_EXT4_FS": "m"}

    structs = write_header_tree(tmp_path, small, config, ["task_struct", "no_such"], "5.10.0-46-amd64")

    include = tmp_path / "include"
    assert structs == structs_in_tree(tmp_path) == ("task_struct",)
    assert (include / "linux/autoconf.h").read_text() == (
        "#define CONFIG_BPF_SYSCALL 1\n#define CONFIG_HZ 250\n#define CONFIG_SMP 1\n#define CONFIG_EXT4_FS_MODULE 1\n"
    )
    assert f"LINUX_VERSION_CODE {5 << 16 | 10 << 8}\n" in (include / "linux/version.h").read_text()
    vmlinux = (include / "vmlinux.h").read_text()
    assert "#define BPF_FUNC_cgrp_storage_delete 211\n" in vmlinux
    assert "#define BPF_MAP_TYPE_ARRAY 2\n" in vmlinux
    assert "#define BPF_MAP_TYPE_HASH " not in vmlinux
    assert (include / "uapi/linux/ptrace.h").exists()


def test_a_tree_is_written_once(small, tmp_path, monkeypatch):
    """The second time the BTF is not even parsed.  Other roots make another tree."""
    first = cached_tree(tmp_path, small, ["task_struct"], "6.1.0")
    (first / "mark").touch()
    unparsed = Btf(small._data)

    assert cached_tree(tmp_path, unparsed, ["task_struct", "task_struct"], "6.1.0") == first
    assert "_index" not in vars(unparsed)
    assert (first / "mark").exists()
    assert cached_tree(tmp_path, small, ["pid_t"], "6.1.0") != first
    monkeypatch.setattr(header_tree, "FORMAT", header_tree.FORMAT + 1)
    assert cached_tree(tmp_path, small, ["task_struct"], "6.1.0") != first


def test_a_tree_is_whole_or_absent(small, tmp_path, monkeypatch):
    """A failure half-way leaves no files, and does not stop the next attempt."""
    with monkeypatch.context() as patch:
        patch.setattr(header_tree, "kernel_config", lambda _release: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cached_tree(tmp_path, small, None, "6.1.0")
    assert list(tmp_path.iterdir()) == []
    assert structs_in_tree(cached_tree(tmp_path, small, None, "6.1.0")) == ("task_struct",)


def test_concurrent_builders_make_one_tree(small, tmp_path):
    """Eight at once leave no other files."""
    found = []
    builders = [
        threading.Thread(target=lambda: found.append(cached_tree(tmp_path, small, None, "6.1.0"))) for _ in range(8)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()

    assert len(found) == 8
    assert list(tmp_path.iterdir()) == [found[0]]


def test_without_a_writable_cache_the_tree_is_temporary(small, tmp_path):
    (tmp_path / "file").touch()

    tree = cached_tree(tmp_path / "file" / "cache", small, None, "6.1.0")

    assert tmp_path not in tree.parents
    assert structs_in_tree(tree) == ("task_struct",)


def test_without_a_readable_cache_the_tree_is_temporary(small, tmp_path, monkeypatch):

    def refuse(_path):
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", refuse)
        patched.setattr(Path, "mkdir", refuse_in(tmp_path, Path.mkdir))
        tree = cached_tree(tmp_path / "cache", small, None, "6.1.0")

    assert tmp_path not in tree.parents
    assert structs_in_tree(tree) == ("task_struct",)


def refuse_in(directory, mkdir):
    def made(path, *arguments, **options):
        if directory in path.parents:
            raise PermissionError
        mkdir(path, *arguments, **options)

    return made


@pytest.mark.bpf
@pytest.mark.portable
def test_any_bcc_program_compiles_with_the_full_tree(tmp_path):
    """A program with the includes and maps of BCC's own tools compiles without a warning."""
    btf = Btf.load()
    write_header_tree(tmp_path, btf, kernel_config(), None, os.uname().release)
    program = (Path(__file__).parent / "any_program.c").read_text()
    # Linux 4cf1bc1f1045 ("bpf: Implement task local storage") (in v5.11)
    if btf.find_enumerator("BPF_MAP_TYPE_TASK_STORAGE"):
        program += "BPF_TASK_STORAGE(per_task, u64);\n"
    code, warnings = compile_in(tmp_path, program, "on_switch")
    assert code["on_switch"]
    assert warnings == ""
