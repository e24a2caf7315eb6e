"""A PostgreSQL that several agents share, and that may be away."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from chainbench_agent.errors import InputError, StoreError
from chainbench_agent.model.stored_run import Query
from chainbench_agent.settings import load_settings
from chainbench_agent.store import open_store
from chainbench_agent.store.postgresql import Postgresql
from chainbench_agent.store.schema import migrate

LONG_S = 60
HIDDEN = "gh8Zq-not-for-logs"


def ids(runs):
    return [run.id for run in runs]


@pytest.mark.postgresql
def test_agents_share_it(cluster, opened, stored):
    """Each sees the runs of all, ends only its own, and deletes only its own for being too many."""
    url = cluster.url()
    first, second = opened(url, machine="a", keep_runs=2), opened(url, machine="b", keep_runs=2)
    for number in range(3):
        first.save(stored(2 * number, machine="a"))
        second.save(stored(2 * number + 1, machine="b"))
    second.save(stored(6, "running", machine="b"))
    first.close()

    again = opened(url, machine="a", keep_runs=2)

    assert not again.recovered
    assert again.prune() == 1
    assert ids(again.find(Query())) == [stored(number).summary.id for number in (6, 5, 4, 3, 2, 1)]
    assert ids(again.find(Query({"machine": "a"}))) == [stored(number).summary.id for number in (4, 2)]
    assert [evidence.run.machine for evidence in again.newest_of_each(5)] == ["a"]


@pytest.mark.postgresql
def test_a_fleet_starts_at_once(cluster, stored):
    """All find an empty database; one makes the tables, and the others find them made."""
    url = cluster.url()

    def start(number):
        store = open_store(load_settings(store=url, machine=f"m{number}"))
        store.save(stored(number, machine=f"m{number}"))
        return store

    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(start, range(8)))

    assert len(stores[0].find(Query())) == 8
    for store in stores:
        store.close()


@pytest.mark.postgresql
def test_who_starts_while_another_makes_the_tables_waits_for_them(cluster, opened, caplog):
    """Neither fails for what the other has half done."""
    url = cluster.url()
    other = Postgresql(url).open(0)
    with ThreadPoolExecutor(1) as pool:
        with other.connect().execution_options(write="migration") as first, first.begin():
            migrate(first)
            starting = pool.submit(opened, url)
            until_somebody_waits(other)
        assert starting.result().status().state == "up"

    assert "runs will not be stored" not in caplog.text
    other.dispose()


def until_somebody_waits(engine):
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    deadline = time.monotonic() + LONG_S
    with engine.connect() as connection:
        while not connection.execute(waiting).scalar_one():
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.01)


@pytest.mark.postgresql
def test_a_server_that_is_restarted(cluster, opened, stored):
    """Its connections are gone; the next call makes another."""
    store = opened(cluster.url())
    store.save(stored(1))
    cluster.stop()
    cluster.start()

    store.save(stored(2))

    assert ids(store.find(Query())) == [stored(2).summary.id, stored(1).summary.id]


def test_a_server_that_is_away(opened, stored, tmp_path, caplog):
    """Said at the start and by each call, without the password; the agent serves all the same."""
    store = opened(f"postgresql://agent:{HIDDEN}@/x?host={tmp_path}")

    with pytest.raises(StoreError, match="see that this server runs and lets this agent in") as caught:
        store.save(stored(1))
    assert "runs will not be stored" in caplog.text
    assert store.status().state == "down"
    assert HIDDEN not in f"{caught.value}{caplog.text}{store.status()}"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql+pg8000://agent:{HIDDEN}@host/x", "write postgresql://"),
        (f"postgresql://agent:{HIDDEN}@host:port/x", "is not a URL; write it as postgresql://USER@HOST/DATABASE"),
    ],
)
def test_a_url_that_will_not_do(url, says):
    with pytest.raises(InputError, match=says) as caught:
        open_store(load_settings(store=url))

    assert HIDDEN not in str(caught.value)


def test_without_its_driver(monkeypatch):
    """It is not installed unless it is asked for; the answer is the command, which needs no index to know the agent."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    command = rf"{sys.executable} -m pip install '\.\[postgresql\]'"
    with pytest.raises(InputError, match=f"psycopg is missing; in the agent's checkout: {command}"):
        open_store(load_settings(store="postgresql://agent@host/x"))


def test_settings_do_not_show_a_password():
    assert HIDDEN not in repr(load_settings(store=f"postgresql://agent:{HIDDEN}@host/x"))
