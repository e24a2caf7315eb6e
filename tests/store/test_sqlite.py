"""A SQLite file whose disk, directory or neighbours misbehave: it is said, and nothing is lost silently."""

import errno
import os
import resource
import sqlite3
import stat
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.dialects import sqlite

from chainbench_agent.errors import InputError, StoreError
from chainbench_agent.model.stored_run import LABELS, Query
from chainbench_agent.settings import load_settings
from chainbench_agent.store import open_store, queries, schema
from chainbench_agent.store import sqlite as sqlite_store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "runs.sqlite3"


@pytest.fixture
def open_file(opened, path):
    return lambda **settings: opened("sqlite", state_dir=str(path.parent), **settings)


# --- Where it is ----------------------------------------------------------------------------------


def test_the_directory_is_made(open_file, path):
    """Only for this user: commands and labels may be private."""
    store = open_file()

    assert path.exists()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (store.status().kind, store.status().location) == ("sqlite", str(path))


def test_how_large_it_is(open_file, path, stored):
    """The database with its log, as the file system has them; what was deleted is not there any more."""
    store = open_file()
    for number in range(101):
        store.save(stored(number))
    sizes = [path.stat().st_size, path.with_name(f"{path.name}-wal").stat().st_size]

    assert store.status().bytes == sum(sizes)
    assert min(sizes) > 0
    store.close()
    path.unlink()
    assert store.status().bytes is None


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///x?mode=ro", "sqlite:nonsense"])
def test_a_url_that_names_no_file(url):
    with pytest.raises(InputError, match="store: a SQLite store is written as sqlite:///FILE"):
        open_store(load_settings(store=url))


@pytest.mark.parametrize("store", ["mysql://agent:secret@host/x", "Sqlite", "nothing", "://"])
def test_what_is_no_store(store):
    """The answer does not repeat it: there may be a password in it."""
    with pytest.raises(InputError, match=r"^store: is neither sqlite, sqlite:///FILE, postgresql://…, nor none$"):
        open_store(load_settings(store=store))


# --- How it is written ----------------------------------------------------------------------------


@pytest.mark.needs("strace")
def test_what_has_ended_is_flushed_and_a_checkpoint_is_not(tmp_path):
    """A flush in the midst of a benchmark would be in its evidence."""
    assert flushes(tmp_path / "a", "store.save(stored('running'))") == 0
    assert flushes(tmp_path / "b", "store.save(stored('finished'))") >= 1


def flushes(directory, code):
    """How often `code` flushes; what else the process does, to open the store and to close it, does not count."""
    script = f"""
import ctypes, os, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
from conftest import evidence_of, run_of
from chainbench_agent.settings import load_settings
from chainbench_agent.store import open_store
from chainbench_agent.model.stored_run import StoredRun, Summary

def stored(result):
    run = run_of(1, "running")
    return StoredRun(Summary.of(run, result, "ebpf"), {{}}, evidence_of(run).as_json())

store = open_store(load_settings(store="sqlite", state_dir={str(directory)!r}))
os.write(2, b"BEGIN")
{code}
os.write(2, b"END")
"""
    command = ["strace", "-f", "-e", "trace=write,fsync,fdatasync,sync_file_range,msync", sys.executable, "-c", script]
    trace = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    part = trace[trace.index('"BEGIN"') : trace.index('"END"')]
    return part.count("sync(")


def save_all(store, runs):
    for run in runs:
        store.save(run)


# --- Faults ---------------------------------------------------------------------------------------


@pytest.mark.mount
def test_a_full_disk(disk, opened, stored):
    """A run that does not fit is refused with the reason; those that fitted are whole; with room, all goes on."""
    place = disk.place
    store = opened("sqlite", state_dir=str(place / "state"))
    store.save(stored(1))
    disk.fill()

    with pytest.raises(StoreError, match=r"runs\.sqlite3: database or disk is full; make room on that disk"):
        save_all(store, [stored(number) for number in range(2, 200)])
    kept = store.find(Query(limit=1000))
    assert store.status().state == "down"
    assert kept[-1] == stored(1).summary

    disk.empty()
    store.save(stored(200))

    assert store.status().state == "up"
    assert store.find(Query(limit=1000)) == [stored(200).summary, *kept]


@pytest.mark.mount
def test_a_disk_that_is_full_from_the_start(disk, opened, stored):
    place = disk.place
    disk.fill()
    store = opened("sqlite", state_dir=str(place / "state"))
    assert store.status().state == "down"
    disk.empty()

    store.save(stored(1))

    assert store.find(Query()) == [stored(1).summary]


@pytest.mark.mount
def test_a_directory_that_cannot_be_written(disk, opened, stored, caplog):
    """Said when the agent starts; each call says it again; once it can be written, it is."""
    place = disk.place
    disk.remount("ro")
    store = opened("sqlite", state_dir=str(place / "state"))

    assert "runs will not be stored: cannot write to" in caplog.text
    with pytest.raises(StoreError, match=r"Read-only file system; .* choose another with --state-dir"):
        store.save(stored(1))

    disk.remount("rw")
    store.save(stored(1))
    assert store.status().state == "up"


@pytest.mark.mount
def test_a_directory_that_becomes_read_only(disk, opened, stored):
    """The runs can still be read."""
    place = disk.place
    store = opened("sqlite", state_dir=str(place / "state"))
    store.save(stored(1))
    store.close()  # a file system in use is not made read-only
    disk.remount("ro")

    with pytest.raises(StoreError, match="Read-only file system"):
        store.save(stored(2))
    disk.remount("rw")
    assert store.find(Query()) == [stored(1).summary]


def test_a_locked_database(open_file, path, stored, monkeypatch):
    """Somebody's long transaction: the write waits for a while, and then says who may be the cause."""
    monkeypatch.setattr(sqlite_store, "BUSY_S", 0.1)
    store = open_file()
    store.save(stored(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StoreError, match="database is locked; "):
        store.save(stored(2))
    assert store.find(Query()) == [stored(1).summary]

    other.execute("ROLLBACK")
    other.close()
    store.save(stored(2))
    assert store.status().state == "up"


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_database(open_file, path, stored, caplog, content):
    """It is moved aside as it is, and a new one begun; the log and the status say so."""
    path.parent.mkdir()
    path.write_bytes(content)
    store = open_file()
    store.save(stored(1))

    moved = store.status().moved_aside
    assert store.status().state == "up"
    assert moved.startswith(f"{path}.corrupt-2")
    assert f"{moved} now, and a new one is begun" in caplog.text
    assert Path(moved).read_bytes() == content
    assert store.find(Query()) == [stored(1).summary]


def test_a_database_that_becomes_corrupt(open_file, path, stored, caplog):
    """In the midst of runs: what is being written goes into the new one."""
    store = open_file()
    for number in range(100):
        store.save(stored(number))
    store.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    store.save(stored(100))

    assert store.find(Query()) == [stored(100).summary]
    assert store.status().moved_aside in caplog.text
    assert [p.name for p in path.parent.iterdir() if "corrupt" in p.name and "wal" not in p.name]


def test_two_agents_do_not_share_a_file(opened, path, stored, monkeypatch):
    """The second would take the first one's run for one that was interrupted."""
    monkeypatch.setattr("chainbench_agent.store.sql.OPEN_PATIENCE_S", 0.1)
    first, second = (opened("sqlite", state_dir=str(path.parent)) for _ in range(2))
    first.save(stored(1, "running"))

    assert second.status().state == "down"
    with pytest.raises(StoreError, match="belongs to another agent; "):
        second.find(Query())
    assert first.get(stored(1).summary.id).summary.result == "running"

    first.close()
    assert second.find(Query())[0].result == "interrupted"


@contextmanager
def descriptors_left(number):
    """So many more may be opened by the process that tests."""
    used = {int(path.name) for path in list(Path("/proc/self/fd").iterdir()) if path.exists()}  # not what lists them
    free = [number for number in range(len(used) + number + 1) if number not in used]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[number], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


NO_DESCRIPTOR = "the agent has no descriptor left; if that lasts, raise its limit (LimitNOFILE=)"


@pytest.mark.parametrize("left", range(8))
def test_no_descriptor_left(open_file, stored, left):
    """Whichever of its files could not be opened: that is said, and not that the directory is at fault."""
    with descriptors_left(left):
        store = open_file()
        reason = store.status().reason

    assert bool(reason) == (left < 4), reason
    assert not reason or reason.endswith(NO_DESCRIPTOR)
    store.save(stored(1))
    assert store.status().state == "up"
    assert store.find(Query()) == [stored(1).summary]


@pytest.mark.parametrize("left", range(4))
def test_no_descriptor_for_one_more_connection(open_file, stored, left):
    """A reader has the one that is open."""
    store = open_file()
    store.save(stored(1))
    refused = pytest.raises(StoreError) if left < 2 else nullcontext()
    with store._engine.connect(), descriptors_left(left), refused as why:
        store.save(stored(2))

    assert why is None or str(why.value).endswith(NO_DESCRIPTOR)


def test_a_database_that_cannot_be_opened(open_file, path, monkeypatch):
    """With descriptors to spare; and where the whole machine has none."""
    path.mkdir(parents=True)
    store = open_file()
    assert "unable to open database file; make its directory writable" in store.status().reason

    def refuse(*_):
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        StoreError, match=r"unable to open database file; this machine has no descriptor left; .*fs.file-max"
    ):
        store.find(Query())


# --- Speed ----------------------------------------------------------------------------------------

QUERIES = {
    "all": Query(),
    "the next page": Query(before="20260102"),
    **{name: Query({name: "x"}) for name in LABELS},
    "a label, the next page": Query({"commit": "x"}, before="20260102"),
    "result": Query(result="failed"),
    "two labels": Query({"impl": "x", "commit": "y"}, result="finished"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_page_reads_what_it_shows(name):
    """Whatever the filter: rows come from an index in the order of the page; nothing is scanned or sorted."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        schema.migrate(connection)
        statement = queries.page(QUERIES[name]).compile(
            dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}
        )
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
    engine.dispose()

    assert len(plan) == 1
    assert " USING INDEX " in plan[0]
    if QUERIES[name] != Query():
        assert plan[0].startswith("SEARCH runs")
