"""Databases of any age become those of this version."""

import pytest
from sqlalchemy import create_engine, inspect, text

from chainbench_agent.errors import StoreError
from chainbench_agent.model.stored_run import LABELS, Query
from chainbench_agent.store import schema
from chainbench_agent.store.schema import FOUND_BY, RUNS, SCHEMA, STEPS, migrate


@pytest.fixture
def engine(url):
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    if engine.dialect.name == "sqlite":
        engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


def found_version(engine):
    with engine.begin() as connection:
        return connection.execute(SCHEMA.select()).scalar_one()


def test_the_steps_make_what_the_statements_use(engine):
    """Every column, null or not as declared; for each filter an index that goes on with the id and the others."""
    with engine.begin() as connection:
        migrate(connection)
    made = {column["name"]: column["nullable"] for column in inspect(engine).get_columns("runs")}
    indexes = [index["column_names"] for index in inspect(engine).get_indexes("runs")]

    assert made == {column.name: column.nullable for column in RUNS.c}
    for name in FOUND_BY:
        others = [other for other in FOUND_BY if other != name]
        assert [name, "id", *others] in indexes
    assert found_version(engine) == len(STEPS)


def test_nothing_is_done_twice(engine):
    for _ in range(2):
        with engine.begin() as connection:
            migrate(connection)

    assert found_version(engine) == len(STEPS)


def test_runs_survive_a_step(opened, url, stored, monkeypatch):
    """An agent of the next version finds what this one wrote."""
    store = opened(url)
    store.save(stored(1))
    store.close()
    step = ("ALTER TABLE runs ADD COLUMN note TEXT", "UPDATE runs SET note = 'old'")
    monkeypatch.setattr(schema, "STEPS", (*STEPS, step))

    newer = opened(url)

    assert newer.get(stored(1).summary.id) == stored(1)
    assert newer._do(lambda c: c.execute(text("SELECT note FROM runs")).scalar_one()) == "old"


def test_a_step_that_fails_leaves_everything_as_it_was(opened, url, stored, monkeypatch, caplog):
    """All or nothing, also of what it created; and the version before still works."""
    store = opened(url)
    store.save(stored(1))
    store.close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", (*STEPS, ("CREATE TABLE half (done TEXT)", "SELECT nonsense FROM nowhere")))
        failed = opened(url)
        assert failed.status().state == "down"
        assert "nowhere" in caplog.text
        failed.close()

    again = opened(url)

    assert again.find(Query()) == [stored(1).summary]
    assert not again._do(lambda c: inspect(c).has_table("half"))


def test_a_database_of_a_newer_agent_is_not_touched(opened, url, stored, monkeypatch):
    """It is refused with a sentence, and neither changed nor moved aside."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", (*STEPS, ("ALTER TABLE runs ADD COLUMN note TEXT",)))
        newer = opened(url)
        newer.save(stored(1))
        newer.close()

    older = opened(url)

    assert older.status().state == "down"
    assert "a newer agent has used it" in older.status().reason
    assert older.status().moved_aside == ""
    with pytest.raises(StoreError, match=f"schema {len(STEPS) + 1} and this agent knows {len(STEPS)}"):
        older.save(stored(2))


def test_every_filter_has_a_column():
    assert set(FOUND_BY) == {*LABELS, "result"} <= {column.name for column in RUNS.c}
