"""100,000 stored runs: a query costs as much as it shows, however many runs there are.

Work is counted, not time: the instructions of SQLite's own machine, and the plan of PostgreSQL.
Two filters that never meet are the exception: the index of one is looked through (bench/stored_runs.py times it).
"""

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, insert, text

from chainbench_agent.agent import build_agent
from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.evidence.model import Evidence, Labels, Run, Target
from chainbench_agent.model.stored_run import LABELS, Query, StoredRun, Summary
from chainbench_agent.settings import load_settings
from chainbench_agent.store import open_store, queries
from chainbench_agent.store.base import Retention
from chainbench_agent.store.schema import RUNS
from chainbench_agent.store.sql import MOST_LOOKED_AT
from chainbench_agent.web.app import create_app

FEW, MANY = 400, 100_000
COMMITS = 4
PAGES = {
    "/runs": 50,
    "/runs?limit=100": 100,
    "/runs?before={middle}": 50,
    "/runs?commit=3": 50,
    "/runs?scenario=optimized": 50,
    "/runs?machine=m&before={middle}": 50,
    "/runs?commit=none": 0,
    "/runs?result=failed": 0,
}
"""Page → how many runs are on it."""


def an_id(number, day="20260102"):
    return f"{day}T030405678Z-{number:08x}"


def fill(store, runs, day="20260102"):
    """With evidence of 4 label sets, in turns."""
    labels = dict.fromkeys(Labels.model_fields, "x")
    run = Run(**labels, id="", machine="m", started_at=datetime(2026, 1, 2, tzinfo=UTC), duration_ms=1, ended_by="stop")
    evidence = Evidence(available=True, source="ebpf", run=run, target=Target(), sections={"exec": {"exec_count": 53}})
    like = queries.columns(StoredRun(Summary.of(run, "finished", "ebpf"), {}, evidence.as_json()))
    rows = [like | labels_of(number) | {"id": an_id(number, day)} for number in range(runs)]
    for number, row in enumerate(rows):
        row["evidence"] = like["evidence"] | {"run": like["evidence"]["run"] | labels_of(number)}
    store._do(lambda connection: connection.execute(insert(RUNS), rows), "lazy")


def labels_of(number):
    return {"scenario": ("baseline", "optimized")[number % 2], "commit": str(number % COMMITS)}


class Steps:
    """Counts the instructions that SQLite executes for a store."""

    def __init__(self, store):
        self.taken = 0
        event.listen(store._engine, "begin", self._watch)

    def _watch(self, connection):
        connection.connection.driver_connection.set_progress_handler(self._step, 1)

    def _step(self):
        self.taken += 1

    def of(self, work):
        self.taken = 0
        return work(), self.taken


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Number of runs → a SQLite store of so many, its steps, and the agent that has it."""
    found, agents = {}, []
    for runs in (FEW, MANY):
        directory = tmp_path_factory.mktemp("state")
        settings = load_settings(store="sqlite", state_dir=str(directory), machine="m", keep_runs=10 * MANY)
        store = open_store(settings)
        fill(store, runs)
        store.close()
        agents.append(agent := build_agent(settings, lambda _: FakeCollector()))
        found[runs] = agent.store, Steps(agent.store), create_app(agent.runs, agent.metrics).test_client()
    yield found
    for agent in agents:
        agent.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_takes_as_many_steps_among_many_runs(filled, page):
    steps = {}
    for runs, (_, counter, client) in filled.items():
        path = page.format(middle=an_id(runs // 2))
        answer, steps[runs] = counter.of(lambda client=client, path=path: client.get(path))
        assert len(answer.json["runs"]) == PAGES[page]

    assert 0 < steps[MANY] <= 1.1 * steps[FEW]


def test_labels_that_never_meet_take_a_walk_of_one_index(filled):
    """The database takes a few steps for each entry that one of the labels has in the index."""
    steps = {}
    for runs, (_, counter, client) in filled.items():
        answer, steps[runs] = counter.of(lambda client=client: client.get("/runs?scenario=baseline&commit=1"))
        assert answer.json["runs"] == []

    assert 1.1 * steps[FEW] < steps[MANY] < 6 * MANY / COMMITS


def test_a_scrape_asks_the_database_nothing(filled):
    """The numbers of the store in /metrics are known from when a run last ended."""
    for store, counter, client in filled.values():
        answer, steps = counter.of(lambda client=client: client.get("/metrics"))

        assert steps == 0
        size = re.search(r"^chainbench_agent_store_bytes (\S+)$", answer.text, re.MULTILINE)[1]
        assert float(size) == store.status().bytes
        assert "chainbench_exec_count_total{" in answer.text


def test_a_start_looks_at_so_many_runs_and_no_further(filled):
    """For the label sets that /metrics remembers, where there are fewer than it has room for."""
    steps = {
        runs: counter.of(lambda store=store: store.newest_of_each(100))[1]
        for runs, (store, counter, _) in filled.items()
    }

    assert steps[MANY] <= 1.1 * steps[FEW] * MOST_LOOKED_AT / FEW


@pytest.mark.parametrize("too_many", [0, 1])
def test_retention_takes_as_many_steps_among_many_runs(filled, monkeypatch, too_many):
    """When a run has ended: whether an old one has to go, or not."""
    steps = {}
    for runs, (store, counter, _) in filled.items():
        monkeypatch.setattr(store, "_retention", Retention(runs))
        if too_many:
            fill(store, too_many, "20250102")
        deleted, steps[runs] = counter.of(lambda store=store, runs=runs: store.prune(spare=an_id(runs - 1)))
        assert deleted == too_many
        assert store.status().runs == runs

    assert 0 < steps[MANY] <= 1.1 * steps[FEW]


@pytest.mark.postgresql
def test_postgresql_reads_what_a_page_shows(cluster, opened):
    """By its own plan, with statistics of 100,000 runs: from an index in the order of the page; nothing is sorted."""
    store = opened(cluster.url(), keep_runs=10 * MANY)
    fill(store, MANY)
    store._do(lambda connection: connection.execute(text("ANALYZE runs")), "lazy")
    asked = [Query(), Query(before=an_id(MANY // 2)), *(Query({name: "3"}) for name in LABELS), Query(result="failed")]

    for query in asked:
        plan = store._do(lambda connection, query=query: explained(connection, query))
        assert "Index Scan" in plan, (query, plan)
        assert not re.search(r"Seq Scan|Bitmap|Sort", plan), (query, plan)


def explained(connection, query):
    statement = queries.page(query).compile(connection, compile_kwargs={"literal_binds": True})
    return "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}").scalars())
