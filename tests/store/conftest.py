"""A store in each of the two databases."""

import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cluster import running
from packages import require

from chainbench_agent.evidence.model import Evidence, Run, Target
from chainbench_agent.model.stored_run import StoredRun, Summary
from chainbench_agent.settings import load_settings
from chainbench_agent.store import open_store

BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678900, UTC)
LABELS = {"scenario": "baseline", "impl": "python", "variant": "numpy", "commit": "c1", "dataset": "d"}


def moment(number):
    return BEGAN + timedelta(minutes=number)


def run_of(number, ended_by="stop", machine="m", **labels):
    """The run that began `number` minutes after BEGAN."""
    return Run(
        **LABELS | labels,
        id=f"{moment(number):%Y%m%dT%H%M%S}678Z-{number:08x}",
        machine=machine,
        started_at=moment(number),
        duration_ms=1.5,
        ended_by=ended_by,
    )


def evidence_of(run, **sections):
    sections = sections or {"exec": {"exec_count": 53}}
    return Evidence(available=True, source="ebpf", run=run, target=Target(), sections=sections)


@pytest.fixture
def stored():
    """`stored(3, "running", commit="c2")` → the run that began in minute 3, as it is stored."""

    def make(number, result="finished", *, evidence=True, failure="", **run):
        run = run_of(number, "running" if result == "running" else "stop", **run)
        found = evidence_of(run) if evidence else None
        summary = Summary.of(run, result, "ebpf" if evidence else "", failure)
        return StoredRun(summary, {"kernel": "6.1.0", "cpus": 2}, found.as_json() if found else None)

    return make


@pytest.fixture(scope="session")
def initdb():
    return require("initdb")


@pytest.fixture(scope="session")
def cluster(initdb):
    """A PostgreSQL of our own (tests/cluster.py)."""
    with running(initdb) as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request, tmp_path):
    """The URL of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/runs.sqlite3"
    return request.getfixturevalue("cluster").url()


@pytest.fixture
def opened():
    """`opened(url, keep_runs=3)` → that store, as the agent opens it."""
    stores = []

    def make(store, **settings):
        stores.append(open_store(load_settings(store=store, machine=settings.pop("machine", "m"), **settings)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(opened, url):
    return opened(url)


class Disk:
    """A file system of 1 MiB."""

    def __init__(self, place):
        self.place = place
        self._filler = place / "filler"

    def remount(self, how):
        subprocess.run(["mount", "-o", f"remount,{how}", self.place], check=True)

    def fill(self):
        """Leave no room."""
        with self._filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def empty(self):
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path):
    """Ask for it before what uses it."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    yield Disk(place)
    subprocess.run(["umount", place], check=True)
