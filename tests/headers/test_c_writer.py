"""The C declarations have the layout that the BTF gives."""

import pytest
from btf_blob import Blob

from chainbench_agent.headers.btf_types import ENUMS, RECORDS, Kind
from chainbench_agent.headers.c_writer import CWriter


@pytest.fixture
def blob():
    return Blob()


def c_of(btf, *roots):
    """The declarations of these types, or of all."""
    writer = CWriter(btf)
    for type_id in btf.ids(*RECORDS, *ENUMS, Kind.TYPEDEF):
        found = btf.type(type_id)
        if found.name in roots if roots else found.name or found.kind in ENUMS:
            writer.define(type_id)
    return writer.text.replace("\t", "  ")


def test_gaps_are_named(blob):
    """Padding that C would not add is a named member, at the start, between members and at the end."""
    char, long = blob.int("char", 1), blob.int("long int", 8)
    blob.struct("s", 32, ("a", char, 0), ("b", long, 64), ("c", char, 192))

    assert c_of(blob.btf()) == (
        "struct s;\nstruct s {\n  char a;\n  long int b;\n  unsigned char cb_pad_1[8];\n  char c;\n};\n"
    )


def test_padding_at_the_end_is_named(blob):
    """A struct that is aligned to a cache line has its size."""
    char = blob.int("char", 1)
    blob.struct("s", 64, ("a", char, 0), ("rest", blob.array(char, 0), 8))

    assert "  char rest[0];\n  unsigned char cb_pad_1[63];\n}" in c_of(blob.btf())


def test_a_struct_is_packed_only_if_necessary(blob):
    """For a member at an odd offset, or a size that alignment would round up."""
    char, word = blob.int("char", 1), blob.int("int", 4)
    inner = blob.struct("inner", 5, ("a", char, 0), ("b", word, 8))
    blob.struct("outer", 12, ("c", char, 0), ("in", inner, 24), ("d", word, 64))

    text = c_of(blob.btf())

    assert "struct inner {\n  char a;\n  int b;\n} __attribute__((packed));" in text
    assert "struct outer {\n  char c;\n  unsigned char cb_pad_1[2];\n  struct inner in;\n  int d;\n};" in text


def test_unused_bits_are_named(blob):
    """As a bit-field up to the next byte, then as bytes; never as anonymous bit-fields."""
    word = blob.int("unsigned int", 4)
    blob.struct("s", 8, ("a", word, 0, 3), ("b", word, 24, 8), ("c", word, 32, 31))

    assert c_of(blob.btf()).endswith(
        "struct s {\n  unsigned int a : 3;\n  unsigned char cb_pad_1 : 5;\n  unsigned char cb_pad_2[2];\n"
        "  unsigned int b : 8;\n  unsigned int c : 31;\n};\n"
    )


def test_long_runs_of_bit_fields_are_divided(blob):
    """LLVM must not see an integer wider than 64 bits: x86-64 and BPF align it differently."""
    long = blob.int("unsigned long", 8)
    blob.struct("s", 24, ("a", long, 0, 64), ("b", long, 64, 32), ("c", long, 96, 32), ("d", long, 128, 64))

    assert c_of(blob.btf()).count("unsigned char : 0;") == 2


def test_overlapping_members_become_bytes(blob):
    """C cannot express them; at least the size is right."""
    word = blob.int("int", 4)
    blob.struct("s", 8, ("a", word, 32), ("b", word, 0))

    assert "struct s {\n  unsigned char cb_pad_1[8];\n};" in c_of(blob.btf())


def test_an_enum_has_its_size(blob):
    """Old versions of bpftool lost the size of a packed enum, so that every member after it moved."""
    hint = blob.enum("hint", 1, A=0, B=255)
    wide = blob.enum64("wide", C=1 << 40)
    blob.struct("s", 16, ("h", hint, 0), ("w", wide, 64))

    text = c_of(blob.btf())

    assert "enum hint {\n  A = 0,\n  B = 255,\n} __attribute__((mode(QI)));" in text
    assert "C = 1099511627776ULL,\n} __attribute__((mode(DI)));" in text


def test_anonymous_members_are_written_in_place(blob):
    """An anonymous union remains anonymous; the padding of all levels has different names."""
    char, long = blob.int("char", 1), blob.int("long int", 8)
    inner = blob.struct("", 16, ("a", char, 0), ("b", char, 64))
    union = blob.union("", 24, ("x", long, 0), ("", inner, 0))
    blob.struct("s", 40, ("", union, 0), ("list", blob.array(blob.struct("", 2, ("v", char, 0)), 8), 192))

    assert c_of(blob.btf()).endswith(
        """struct s {
  union {
    long int x;
    struct {
      char a;
      unsigned char cb_pad_1[7];
      char b;
      unsigned char cb_pad_2[7];
    };
    unsigned char cb_pad_3[24];
  };
  struct {
    char v;
    unsigned char cb_pad_4[1];
  } list[8];
};
"""
    )


def test_unnamed_members_with_a_tag_are_written_out(blob):
    """BPF programs are compiled without -fms-extensions, so `struct tag;` in a struct would not declare a member."""
    char, word = blob.int("char", 1), blob.int("int", 4)
    owner = blob.struct("owner", 8, ("owned", word, 0), ("slock", char, 32))
    either = blob.union("either", 8, ("", owner, 0), ("both", word, 0))
    alias = blob.typedef("either_t", either)
    blob.struct("s", 16, ("", blob.typedef("alias", alias), 0), ("z", word, 64), ("y", char, 96))

    assert c_of(blob.btf(), "s").endswith(
        """struct s {
  union {
    struct {
      int owned;
      char slock;
    };
    int both;
  };
  int z;
  char y;
};
"""
    )


def test_unnamed_members_with_a_tag_keep_their_layout(blob):
    """A packed struct remains packed, and padding has different names in the whole."""
    char, word, long = blob.int("char", 1), blob.int("int", 4), blob.int("long int", 8)
    odd = blob.struct("odd", 5, ("a", char, 0), ("b", word, 8))
    wide = blob.struct("wide", 16, ("c", char, 0))
    blob.struct("s", 32, ("", odd, 0), ("", wide, 64), ("d", long, 192))

    assert c_of(blob.btf(), "s").endswith(
        """struct s {
  struct {
    char a;
    int b;
  } __attribute__((packed));
  unsigned char cb_pad_1[3];
  struct {
    char c;
    unsigned char cb_pad_2[15];
  };
  long int d;
};
"""
    )


def test_arrays_pointers_and_functions_are_combined(blob):
    """Arrays of pointers to functions, pointers to arrays, functions that return pointers."""
    word = blob.int("int", 4)
    function = blob.ptr(blob.proto(blob.ptr(word), word, 0))
    members = [("table", blob.array(function, 3), 0), ("grid", blob.ptr(blob.array(word, 4)), 192)]
    blob.struct("s", 32, *members)

    text = c_of(blob.btf())

    assert "  int *(*table[3])(int, ...);\n  int (*grid)[4];\n" in text


def test_types_are_declared_before_their_use(blob):
    """Contained types come first, types that are pointed to are only declared, a typedef precedes its users."""
    node = 6
    pointer = blob.ptr(node)
    blob.struct("owner", 16, ("first", pointer, 0), ("self", 3, 64))
    blob.ptr(4)
    blob.typedef("owner_t", 2)
    blob.ptr(4)
    blob.struct("node", 24, ("owner", 5, 0), ("by_value", 2, 64))

    btf = blob.btf()

    assert c_of(btf, "owner").split("\n")[:4] == [
        "struct node;", "struct owner;", "typedef struct owner owner_t;", "struct owner {"
    ]  # fmt: skip
    assert "struct node {" not in c_of(btf, "owner")
    assert c_of(btf, "node").index("struct owner {") < c_of(btf, "node").index("struct node {")


def test_types_with_the_same_name_get_different_names(blob):
    """The first one has the name itself; enumerators also give way to typedefs."""
    word = blob.int("int", 4)
    blob.struct("s", 4, ("a", word, 0))
    other = blob.struct("s", 8, ("b", blob.array(word, 2), 0))
    blob.enum("e", 4, ONE=1, mode=2)
    blob.enum("", 4, ONE=3)
    blob.typedef("mode", other)

    text = c_of(blob.btf())

    assert "struct s {\n  int a;\n};" in text
    assert "struct s___2 {\n  int b[2];\n};" in text
    assert "typedef struct s___2 mode;" in text
    assert "  ONE = 1,\n  mode___2 = 2,\n" in text
    assert "  ONE___2 = 3,\n" in text


def test_a_type_that_clang_has_is_not_defined(blob):
    blob.typedef("__builtin_va_list", blob.int("int", 4))
    assert "va_list" not in c_of(blob.btf())
