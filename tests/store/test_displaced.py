"""The files of a store are removed or replaced under the agent: its status says so, and later runs are stored."""

import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest
from packages import require

from chainbench_agent.errors import StoreError
from chainbench_agent.model.stored_run import Query


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "runs.sqlite3"


@pytest.fixture
def open_file(opened, path):
    return lambda: opened("sqlite", state_dir=str(path.parent))


@pytest.fixture
def store(open_file, stored):
    store = open_file()
    for number in (1, 2):
        store.save(stored(number))
    store.prune()  # counts them
    return store


def ids(path):
    """The runs that another program reads there."""
    with closing(sqlite3.connect(path)) as other:
        return [row[0] for row in other.execute("SELECT id FROM runs ORDER BY id")]


def id_of(run):
    return run.summary.id


@pytest.mark.parametrize("how", ["the file", "all files", "the directory", "the directory is moved"])
def test_removed(store, path, stored, caplog, how):
    """The next run is in a new file by that name; what was lost with the old one is in the log and the status."""
    match how:
        case "the file":
            path.unlink()
        case "all files":
            for file in path.parent.iterdir():
                file.unlink()
        case "the directory":
            shutil.rmtree(path.parent)
        case "the directory is moved":
            path.parent.rename(path.parent.with_name("elsewhere"))
    assert store.status().state == "down"
    assert f"{path} was removed under the agent" in store.status().reason
    store.save(stored(3))

    assert ids(path) == [id_of(stored(3))]
    assert (store.status().state, store.status().reason) == ("up", "")
    notice = f"{path} was removed under the agent: 2 runs were in it; what is there now is used, or a new one begun"
    assert store.status().notice == notice
    assert notice in caplog.text


def test_replaced_by_a_backup(store, path, stored, open_file):
    """`mv` of a backup over it: its runs are there, and the new one; of the old log nothing gets into it."""
    backup = path.with_name("backup")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    store.save(stored(3))  # is in the log, and not in the backup
    backup.rename(path)
    store.save(stored(4))

    assert ids(path) == [id_of(stored(number)) for number in (1, 2, 4)]
    assert "was replaced under the agent" in store.status().notice
    store.close()
    assert [run.id for run in open_file().find(Query())] == [id_of(stored(number)) for number in (4, 2, 1)]


def test_replaced_with_its_own_log(store, path, tmp_path, stored):
    """The other database has its last changes in a log; that is not taken for the log of the replaced one."""
    other = tmp_path / "other.sqlite3"
    writer = sqlite3.connect(other)
    with closing(sqlite3.connect(path)) as source:
        source.backup(writer)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE runs SET impl = 'rust'")
    writer.commit()
    for suffix in ("-wal", "-shm", ""):
        shutil.copy(f"{other}{suffix}", f"{other}{suffix}.copy")
    for suffix in ("-wal", "-shm", ""):
        Path(f"{other}{suffix}.copy").rename(f"{path}{suffix}")
    writer.close()
    store.save(stored(3))

    assert [run.labels.impl for run in store.find(Query())] == ["python", "rust", "rust"]


@pytest.mark.parametrize("suffixes", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_the_log_is_removed(store, path, stored, open_file, suffixes):
    """Runs in a removed log would be lost when the process ends: they are written to the database first."""
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink()
    store.save(stored(3))

    assert store.status().notice.endswith("under the agent; no run was lost")
    assert ids(path) == [id_of(stored(number)) for number in (1, 2, 3)]
    store.close()
    assert len(open_file().find(Query())) == 3


def test_the_run_that_is_on_stays_on(store, path, stored):
    """Opening the store again is no restart: no agent died."""
    store.save(stored(3, "running"))
    Path(f"{path}-wal").unlink()

    assert store.get(id_of(stored(3, "running"))).summary.result == "running"


def test_a_second_agent_where_the_files_were_removed(store, path, stored, open_file, monkeypatch):
    """The first agent that opens the new file has it; the other one's error names its process."""
    monkeypatch.setattr("chainbench_agent.store.sql.OPEN_PATIENCE_S", 0.1)
    for file in path.parent.iterdir():
        file.unlink()
    second = open_file()
    second.save(stored(7))

    with pytest.raises(StoreError, match=rf"belongs to another agent; .* \(it is held by process {os.getpid()}\)"):
        store.save(stored(3))
    assert store.status().state == "down"
    second.close()
    store.save(stored(3))
    assert ids(path) == [id_of(stored(number)) for number in (3, 7)]


def test_only_the_lock_is_removed(store, path, stored, open_file, monkeypatch):
    """It is taken again with the next run, so that no second agent comes in between the two."""
    monkeypatch.setattr("chainbench_agent.store.sql.OPEN_PATIENCE_S", 0.1)
    Path(f"{path}.lock").unlink()
    store.save(stored(3))

    assert open_file().status().state == "down"
    assert ids(path) == [id_of(stored(number)) for number in (1, 2, 3)]


def test_nothing_happened(store, stored):
    """Neither a checkpoint nor the time is taken for a change."""
    for number in range(3, 53):
        store.save(stored(number))

    assert (store.status().state, store.status().notice) == ("up", "")


# --- A file system without shared memory maps -----------------------------------------------------


@pytest.fixture
def without_maps(tmp_path):
    """A directory of a FUSE file system that bypasses the page cache, so that it refuses MAP_SHARED."""
    require("bindfs")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("This user may not use /dev/fuse: run `make test` as root, or load the module fuse.")
    source, place = tmp_path / "source", tmp_path / "place"
    source.mkdir()
    place.mkdir()
    done = subprocess.run(["bindfs", "-o", "direct_io", source, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"bindfs cannot mount here ({done.stderr.strip()}): run `make test` as root.")
    while not place.is_mount():
        time.sleep(0.01)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.mount
def test_without_shared_maps(without_maps, opened, stored, caplog):
    """Runs are stored without a write-ahead log; several read while one writes; a restart finds them."""
    settings = {"state_dir": str(without_maps / "state")}
    store = opened("sqlite", **settings)
    for number in range(11):
        store.save(stored(number, "running"))
        store.save(stored(number))

    assert store.status().state == "up"
    assert "has no shared memory maps" in caplog.text
    assert not (without_maps / "state" / "runs.sqlite3-wal").exists()
    store.close()
    again = opened("sqlite", **settings)
    assert len(again.find(Query())) == 11
    assert again.recovered == ()


@pytest.mark.mount
def test_a_database_that_had_a_log_elsewhere(without_maps, opened, stored, tmp_path):
    """Moved here with what was in its log, it goes on without one."""
    before = opened("sqlite", state_dir=str(tmp_path / "before"))
    before.save(stored(1))
    (without_maps / "state").mkdir()
    for file in (tmp_path / "before").glob("runs.sqlite3*"):
        if not file.name.endswith(("-shm", ".lock")):
            shutil.copy(file, without_maps / "state" / file.name)
    store = opened("sqlite", state_dir=str(without_maps / "state"))
    store.save(stored(2))

    assert [run.id for run in store.find(Query())] == [id_of(stored(2)), id_of(stored(1))]
