"""Queries return what the BTF contains; a file that is not BTF is refused with a remedy."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from btf_blob import Blob

from chainbench_agent.headers.btf import Btf, BtfError
from chainbench_agent.headers.btf_types import Kind

KERNEL = Path("/sys/kernel/btf/vmlinux")


@pytest.fixture
def blob():
    return Blob()


def test_records_of_every_kind_are_skipped_by_their_length(blob):
    """The type after them is found."""
    word = blob.int("int", 4)
    blob.ptr(word)
    blob.array(word, 3)
    blob.struct("s", 4, ("a", word, 0))
    blob.union("u", 4, ("a", word, 0), ("b", word, 0))
    blob.enum("e", 4, X=1, Y=2)
    for kind in (Kind.FWD, Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG):
        blob.add(kind, "t", word)
    blob.proto(word, word, word)
    blob.add(Kind.FUNC, "f", 13)
    blob.add(Kind.VAR, "v", word, tail=bytes(4))
    blob.add(Kind.DATASEC, ".data", 4, count=2, tail=bytes(24))
    blob.add(Kind.FLOAT, "double", 8)
    blob.add(Kind.DECL_TAG, "tag", word, tail=bytes(4))
    blob.enum64("e64", BIG=1 << 40, SMALL=1)
    blob.typedef("last", word)

    btf = blob.btf()

    assert {found.kind for found in btf} == set(Kind)
    assert btf.find("last", Kind.TYPEDEF).target == word


def test_enumerators_keep_their_sign_and_width(blob):
    """-1 is -1 in both sizes, and a value that needs 64 bits is not cut."""
    blob.enum("signed", 4, MINUS=-1, ONE=1)
    blob.enum("unsigned", 4, HIGH=0xFFFFFFFF)
    blob.enum64("wide", BIG=1 << 40)
    blob.enum64("wide_signed", LOW=-(1 << 40))

    btf = blob.btf()

    assert [found.values for found in btf] == [
        (("MINUS", -1), ("ONE", 1)),
        (("HIGH", 0xFFFFFFFF),),
        (("BIG", 1 << 40),),
        (("LOW", -(1 << 40)),),
    ]
    assert btf.find_enumerator("BIG").name == "wide"
    assert btf.find_enumerator("NONE") is None


@pytest.fixture
def nested(blob):
    """A struct with an anonymous union, an anonymous struct in that, and a struct with a bit-field."""
    word = blob.int("int", 4)
    pair = blob.struct("", 8, ("c", word, 0), ("d", word, 32))
    union = blob.union("", 8, ("b", word, 0), ("", pair, 0))
    inner = blob.struct("inner", 8, ("flag", word, 0, 1), ("f", word, 32))
    const = blob.add(Kind.CONST, third=inner)
    outer = blob.struct("outer", 20, ("a", word, 0), ("", union, 32), ("e", const, 96))
    blob.typedef("outer_t", outer)
    return blob.btf()


@pytest.mark.parametrize(
    ("path", "offset"),
    [
        ("a", 0),
        ("b", 4),
        ("c", 4),
        ("d", 8),
        ("e", 12),
        ("e.f", 16),
        ("e.flag", None),
        ("x", None),
        ("a.x", None),
    ],
)
def test_the_offset_of_a_member_counts_from_the_outer_struct(nested, path, offset):
    """Anonymous members are transparent.  A bit-field has no offset, nor has a member that does not exist."""
    assert nested.member_offset("outer", path) == offset
    assert nested.member_offset("outer_t", path) == offset
    assert nested.member_offset("nowhere", path) is None


def test_a_struct_that_the_kernel_lacks_has_no_size(nested):
    assert nested.size_of("outer") == 20
    assert nested.size_of("nowhere") is None


def test_arguments_are_spelled_in_c(blob):
    """The void * of a tracepoint itself is left out, and so is const; a pointer to a function remains one."""
    char, flag = blob.int("char", 1), blob.int("_Bool", 1)
    text = blob.ptr(blob.add(Kind.CONST, third=char))
    task = blob.ptr(blob.add(Kind.FWD, "task_struct"))
    callback = blob.ptr(blob.proto(0, task))
    table = blob.ptr(blob.array(text, 3))
    arguments = [blob.typedef("bool", flag), task, text, callback, table]
    blob.typedef("btf_trace_switch", blob.ptr(blob.proto(0, blob.ptr(0), *arguments)))
    blob.add(Kind.FUNC, "schedule", blob.proto(0, *arguments[1:3], 0))

    btf = blob.btf()

    assert btf.tracepoint_args("switch") == (
        "bool",
        "struct task_struct *",
        "char *",
        "void (*)(struct task_struct *)",
        "char *(*)[3]",
    )
    assert btf.function_args("schedule") == ("struct task_struct *", "char *")
    assert btf.tracepoint_args("none") is None
    assert btf.function_args("none") is None


def test_a_file_that_is_not_btf_is_refused(blob, tmp_path):
    """Each error names the file, the fault, and the file to use instead."""
    blob.int("int", 4)
    good = blob.data()
    swapped = good[1::-1] + good[2:]
    unknown = good[:24] + struct.pack("=III", 0, 31 << 24, 0) + good[36:]
    for data, reason in [
        (b"", "too short"),
        (b"\x7fELF" + bytes(40), "not BTF"),
        (good[:2] + b"\2" + good[3:], "version 2"),
        (swapped, "other byte order"),
        (good[:-1], "truncated"),
        (unknown, "no known kind"),
    ]:
        file = tmp_path / "vmlinux"
        file.write_bytes(data)
        with pytest.raises(BtfError, match=rf"vmlinux.*{reason}.*/sys/kernel/btf/vmlinux"):
            len(Btf.load(file))
    with pytest.raises(BtfError, match="CONFIG_DEBUG_INFO_BTF"):
        Btf.load(tmp_path / "absent")


def test_a_reference_to_a_missing_type_is_an_error(blob):
    """It is not an IndexError, and does not return another type."""
    blob.typedef("t", 77)
    with pytest.raises(BtfError, match="no type 77"):
        blob.btf().record("t")


@pytest.mark.bpf
def test_the_running_kernel_has_the_types_that_the_agent_needs():
    btf = Btf.load()
    assert len(btf) > 10_000
    assert btf.tracepoint_args("sched_wakeup") == ("struct task_struct *",)
    assert btf.member_offset("sock", "__sk_common.skc_state") > 0


@pytest.mark.skipif(not (KERNEL.exists() and shutil.which("bpftool")), reason="needs BTF, and bpftool beside it")
def test_bpftool_finds_the_same_sizes():
    """For every struct of this kernel."""
    dump = ["bpftool", "btf", "dump", "file", str(KERNEL)]
    text = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    theirs = re.findall(r"^\[(\d+)\] STRUCT '(\w+)' size=(\d+)", text, re.MULTILINE)
    ours = [(str(f.id), f.name, str(f.size)) for f in Btf.load() if f.kind == Kind.STRUCT and f.name]
    assert ours == theirs
