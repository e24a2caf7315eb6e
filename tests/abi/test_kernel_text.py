"""Names as bytes, and as text that shows which bytes they were."""

import json

import pytest

from chainbench_agent.abi.kernel_text import bytes_of, text_of, text_of_path


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"redis-server", "redis-server"),
        ("бенчмар".encode() + b"\xd0", r"бенчмар\xd0"),
        (b"caf\xe9", r"caf\xe9"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"\xed\xb3\xa9", r"\xed\xb3\xa9"),  # a surrogate, which is no character
        (b"a\nb\tc\x1b[1m", "a\nb\tc\x1b[1m"),
        (rb"C:\temp", r"C:\temp"),
        (rb"\xzz", r"\xzz"),
        (rb"dev-disk\x2dby", r"dev-disk\x5cx2dby"),
        (b"\\\xd0", r"\\xd0"),
        (rb"\\x5c", r"\\x5cx5c"),
        (b"", ""),
    ],
)
def test_bytes_become_text_and_the_same_bytes_again(raw, text):
    """Characters remain, other bytes are escaped; also through JSON."""
    assert text_of(raw) == text
    assert bytes_of(json.loads(json.dumps(text).encode())) == raw


def test_names_that_differ_have_different_texts():
    """All names of up to four of the bytes that could be confused."""
    names = [b""]
    for _ in range(4):
        names += [name + bytes((byte,)) for name in names for byte in b"\\x5c\xd0\xb1"]
    names = set(names)

    assert len({text_of(name) for name in names}) == len(names)


def test_a_path_from_python_becomes_text():
    assert text_of_path(b"/tmp/caf\xe9".decode(errors="surrogateescape")) == r"/tmp/caf\xe9"
