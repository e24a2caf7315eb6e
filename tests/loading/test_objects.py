"""Objects in files: whole, one's own, few; anything else is as good as none."""

import os
import struct

import pytest

from chainbench_agent.loading import objects
from chainbench_agent.loading.objects import CACHED_OBJECTS, MapShape, Object, place_of, with_maps

FOUND = Object({"cb_a_0": bytes(range(256)), "cb_b_0": b""}, (MapShape("first", 1, 8, 24, 77, 0x400),), "0.99")


@pytest.fixture
def place(tmp_path):
    return tmp_path / "objects" / "0123"


def test_there_and_back(place):
    """An object that is read is equal to the one cached, and no temporary file stays."""
    objects.store(place, FOUND)

    assert objects.read(place) == FOUND
    assert [path.name for path in place.parent.iterdir()] == ["0123"]


def test_nothing_is_cached(place):
    assert objects.read(place) is None


@pytest.mark.parametrize("change", [b"", b"{}", b"no digest\n{}", b"\n"])
def test_what_was_not_written_like_that(place, change):
    """Empty, cut, or without a right digest: the compiler works again."""
    objects.store(place, FOUND)
    place.write_bytes(change)

    assert objects.read(place) is None


def test_a_bit_that_flipped(place):
    """It could have been one of an instruction."""
    objects.store(place, FOUND)
    data = bytearray(place.read_bytes())
    data[-100] ^= 1
    place.write_bytes(data)

    assert objects.read(place) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can give files away: run `make test` as root.")
def test_somebody_elses(place):
    """Programs that another user put there are not loaded into the kernel."""
    objects.store(place, FOUND)
    os.chown(place, 65534, -1)

    assert objects.read(place) is None


def test_where_nothing_can_be_written(tmp_path):
    """Without a word: nothing is lost but time."""
    (tmp_path / "objects").write_text("a file")
    objects.store(tmp_path / "objects" / "0123", FOUND)

    assert (tmp_path / "objects").read_text() == "a file"


def test_few_stay(place):
    """The ones that were asked for last."""
    places = [place.with_name(f"{number}") for number in range(CACHED_OBJECTS + 3)]
    for age, path in enumerate(places):
        objects.store(path, FOUND)
        os.utime(path, (1e9 + age, 1e9 + age))
    objects.read(places[3])
    objects.store(place, FOUND)

    assert {path.name for path in place.parent.iterdir()} == {"3", "0123", *(p.name for p in places[5:])}


def test_a_place_for_each(tmp_path):
    """Another tree, text or number of CPUs is another object."""
    places = {place_of(tmp_path / tree, text, cpus) for tree in "ab" for text in ("x", "y") for cpus in (2, 4)}

    assert len(places - {None}) in (0, 8)  # 0: this machine has no BCC
    assert place_of(tmp_path / "a", "x", 2) == place_of(tmp_path / "a", "x", 2)


def test_maps_in_code():
    """Only where a map is meant: a constant of 64 bits and all else stay as they are."""
    load = struct.Struct("=BBhi")
    code = [(0x18, 0x11, 0, 5), (0, 0, 0, 0), (0x18, 0x01, 0, 5), (0, 0, 0, 5), (0x85, 0, 0, 5)]
    changed = [(0x18, 0x11, 0, 900), *code[1:]]

    assert with_maps(b"".join(load.pack(*one) for one in code), {5: 900}) == b"".join(
        load.pack(*one) for one in changed
    )
