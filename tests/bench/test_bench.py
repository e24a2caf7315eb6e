"""`make bench` works: a short round of it, against this kernel."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.bpf, pytest.mark.portable]


@pytest.mark.parametrize(("case", "modules"), [("soft interrupt", "cpu"), ("TCP send and receive", "network")])
def test_a_case_measures(case, modules):
    """A time for each event; nothing is written, and whether a target is reached is not asserted."""
    before = {path: path.stat().st_mtime for path in (ROOT / "docs").rglob("*")}
    command = [sys.executable, "-m", "bench", "--quick", "--only", "net", "--case", case]

    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    assert done.returncode == 0, done.stderr
    (ns,) = re.findall(rf"^{case}: {modules}: ([\d.,]+) ns", done.stdout, re.MULTILINE)
    assert 0 < float(ns.replace(",", "")) < 1_000_000
    assert re.search(r"^1 rows, \d of them missed$", done.stdout, re.MULTILINE)
    assert before == {path: path.stat().st_mtime for path in (ROOT / "docs").rglob("*")}


def test_an_unknown_section():
    """Is named, with those that there are."""
    command = [sys.executable, "-m", "bench", "--only", "nett"]

    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    assert done.returncode == 1
    assert "there is no section nett; there is net, slowdown" in done.stderr
