"""A store in each of the two databases."""

import os
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chainbench_agent.evidence.model import Evidence, Run, Target
from chainbench_agent.settings import load_settings
from chainbench_agent.store import open_store
from chainbench_agent.store.base import StoredRun, Summary

NOBODY = 65534
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


def find_initdb():
    places = [Path(path) for path in os.environ["PATH"].split(":")] + list(Path("/usr/lib/postgresql").glob("*/bin"))
    return next(((place / "initdb").resolve() for place in places if (place / "initdb").exists()), None)


@pytest.fixture(scope="session")
def cluster():
    """A PostgreSQL of our own on a unix socket: → a function that makes an empty database and answers its URL."""
    initdb = find_initdb()
    if initdb is None:
        pytest.skip("PostgreSQL's initdb is missing: as root, `apt-get install postgresql`.")
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    home = Path(tempfile.mkdtemp(prefix="chainbench-pg-", dir="/tmp"))  # short: a socket's path has 107 characters
    if as_nobody:
        os.chown(home, NOBODY, NOBODY)

    def run(program, *arguments):
        subprocess.run([*as_nobody, initdb.with_name(program), *arguments], check=True, cwd=home, capture_output=True)

    try:
        run("initdb", "--pgdata", "data", "--auth", "trust", "--username", "agent", "--no-sync", "--encoding", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off"
        run("pg_ctl", "--pgdata", "data", "--wait", "--log", "log", "--options", options, "start")
        try:
            yield Cluster(home, run)
        finally:
            run("pg_ctl", "--pgdata", "data", "--wait", "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(home)


class Cluster:
    def __init__(self, home, run):
        self._home = home
        self._run = run
        self._made = 0

    def url(self):
        self._made += 1
        self._run("createdb", "--host", str(self._home), "--username", "agent", f"d{self._made}")
        return f"postgresql://agent@/d{self._made}?host={self._home}"

    def restart(self):
        """In the midst of whatever goes on: every connection breaks."""
        self._run("pg_ctl", "--pgdata", "data", "--wait", "--log", "log", "--mode", "immediate", "restart")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request, tmp_path):
    """Where an empty store is."""
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
