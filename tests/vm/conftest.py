"""Lets the tests here import the files next to them, which can also be run by hand."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from guest import ENDING


@pytest.fixture(scope="session")
def guests(request, tmp_path_factory):
    """(Module, its parameter `name`) → where that guest's results are, and a future of its exit status.

    It has those of all tests of this session: `in_guest(name, results)` of the test's module boots each.  They run
    side by side: emulation keeps one processor of ours busy per guest, whatever processors the guest has.
    """
    items = [item for item in request.session.items if "guest" in item.fixturenames]
    wanted = {(item.module.__name__, item.callspec.params["name"]): item.module.in_guest for item in items}
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        try:
            yield {key: _started(pool, key[1], in_guest, tmp_path_factory) for key, in_guest in wanted.items()}
        finally:
            ENDING.set()


def _started(pool, name, in_guest, tmp_path_factory):
    results = tmp_path_factory.mktemp(f"guest-{name}-")
    return results, pool.submit(in_guest, name, results)


@pytest.fixture
def guest(guests, request, name):
    """The entry of `guests` for this test."""
    return guests[request.module.__name__, name]
