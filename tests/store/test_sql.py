"""The promises of a store, in SQLite and in PostgreSQL."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chainbench_agent.evidence.model import Evidence, Labels
from chainbench_agent.model.stored_run import LABELS, Query

WAIT_S = 60


def ids(runs):
    return [run.id for run in runs]


def test_a_run(store, stored):
    """Everything is read as it was written, times in UTC."""
    run = stored(1, failure="")
    store.save(run)

    assert store.get(run.summary.id) == run
    assert store.get(run.summary.id).summary.started_at.tzinfo is not None
    assert list(store.get(run.summary.id).evidence) == list(run.evidence)
    assert store.find(Query()) == [run.summary]
    assert store.status().state == "up"


def test_what_is_not_there(store):
    assert store.get("nothing") is None
    assert store.delete("nothing") is False
    assert store.find(Query()) == []
    assert store.newest_of_each(3) == []


def test_a_run_without_evidence(store, stored):
    """It never had any, which is not the same as an empty one; what failed may have said anything."""
    run = stored(1, "failed", evidence=False, failure="cannot open \udcff\0: \N{SNOWMAN}")
    store.save(run)

    found = store.get(run.summary.id)
    assert found.evidence is None
    assert found.summary.failure == "cannot open ?: \N{SNOWMAN}"


def test_names_of_every_kind(store, stored):
    """Names that a kernel or a runner may use: with quotes, other scripts, bytes that are not text."""
    run = stored(1, commit="'\"\\ \N{SNOWMAN}%s")
    run.evidence["exec"]["top_commands"] = [{"command": "\0\udcff\N{SNOWMAN}", "count": 2**63}]
    store.save(run)

    assert store.get(run.summary.id) == run
    assert ids(store.find(Query({"commit": "'\"\\ \N{SNOWMAN}%s"}))) == [run.summary.id]


def test_checkpoints_and_the_end(store, stored):
    """A running run is replaced as it goes on; once it has ended, no late checkpoint undoes that."""
    for run in (stored(1, "running", evidence=False), stored(1, "running"), ended := stored(1), stored(1, "running")):
        store.save(run)

    assert store.get(ended.summary.id) == ended
    assert len(store.find(Query())) == 1


@pytest.mark.parametrize("name", [*LABELS, "result"])
def test_runs_are_found_by(store, stored, name):
    """Every label, the machine and the result."""
    store.save(stored(1))
    other = stored(2, "failed") if name == "result" else stored(2, **{name: "other"})
    store.save(other)
    store.save(stored(3))

    query = Query(result="failed") if name == "result" else Query({name: "other"})
    assert ids(store.find(query)) == [other.summary.id]


def test_filters_narrow_each_other(store, stored):
    for number, labels in enumerate([{}, {"impl": "rust"}, {"commit": "c2"}, {"impl": "rust", "commit": "c2"}]):
        store.save(stored(number, **labels))

    (found,) = store.find(Query({"impl": "rust", "commit": "c2"}, result="finished"))
    assert (found.labels.impl, found.labels.commit) == ("rust", "c2")


def test_pages(store, stored):
    """Newest first; a page begins where the one before ended, whatever came in between."""
    for number in range(7):
        store.save(stored(number))
    first = store.find(Query(limit=3))
    store.save(stored(7))
    second = store.find(Query(limit=3, before=first[-1].id))

    assert ids(first + second) == [stored(number).summary.id for number in (6, 5, 4, 3, 2, 1)]


def test_a_deleted_run(store, stored):
    store.save(stored(1))
    store.save(stored(2))

    assert store.delete(stored(1).summary.id) is True
    assert store.delete(stored(1).summary.id) is False
    assert ids(store.find(Query())) == [stored(2).summary.id]


def test_how_many_there_are(opened, url, stored):
    """Runs that ended are counted, also after a restart; deleted and running ones are not."""
    store = opened(url)
    before = store.status().runs
    for number in range(7):
        store.save(stored(number))
    store.save(stored(7, "running"))
    store.prune()
    pruned = store.status().runs
    store.delete(stored(3).summary.id)
    deleted = store.status().runs
    store.close()

    assert (before, pruned, deleted) == (0, 7, 6)
    assert opened(url).status().runs == 6 + 1  # the one that was on is interrupted now


# --- Restarts -------------------------------------------------------------------------------------


def test_the_run_of_an_agent_that_died(opened, url, stored):
    """It is interrupted after the restart, with its evidence; runs that had ended stay as they were."""
    first = opened(url)
    died = [stored(1, "running"), stored(2, "running", evidence=False)]
    for run in (*died, stored(3), stored(4, "failed")):
        first.save(run)
    first.close()

    second = opened(url)

    assert ids(second.recovered) == [run.summary.id for run in died]
    with_evidence, without = (second.get(run.summary.id) for run in died)
    assert with_evidence.summary.result == without.summary.result == "interrupted"
    assert with_evidence.summary.ended_by == with_evidence.evidence["run"]["ended_by"] == "agent_died"
    assert "the agent died in this run" in with_evidence.summary.failure
    assert with_evidence.evidence["exec"] == {"exec_count": 53}
    assert Evidence.from_json(with_evidence.evidence).run.id == died[0].summary.id
    assert without.evidence is None
    assert [second.get(stored(n).summary.id).summary.result for n in (3, 4)] == ["finished", "failed"]


def test_the_second_start_recovers_nothing(opened, url, stored):
    for expected in (0, 1, 0):
        store = opened(url)
        assert len(store.recovered) == expected
        if not expected:
            store.save(stored(1, "running"))
        store.close()


def test_the_newest_of_each_label_set(store, stored):
    """Only runs of this machine that have evidence and did not fail; the newest is the last."""
    for number, commit in enumerate(["c1", "c2", "c3", "c2", "c1"]):
        store.save(stored(number, commit=commit))
    store.save(stored(5, commit="c3", evidence=False))
    store.save(stored(6, "running", commit="c4"))
    store.save(stored(7, commit="c5", machine="other"))
    store.save(stored(8, "failed", commit="c3"))

    newest = store.newest_of_each(3)

    assert [(evidence.run.commit, evidence.run.started_at.minute) for evidence in newest] == [
        ("c3", 6),
        ("c2", 7),
        ("c1", 8),
    ]
    assert [evidence.run.commit for evidence in store.newest_of_each(2)] == ["c2", "c1"]
    assert newest[0].sections == {"exec": {"exec_count": 53}}


def test_evidence_of_another_version_is_not_remembered(store, stored, caplog):
    """It stays in the store as it is; only /metrics cannot show it."""
    strange = stored(2, commit="c2")
    strange.evidence["run"]["telepathy"] = 1
    for run in (stored(1), strange):
        store.save(run)

    assert [evidence.run.commit for evidence in store.newest_of_each(3)] == ["c1"]
    assert f"run {strange.summary.id} is of another version" in caplog.text


# --- Retention ------------------------------------------------------------------------------------


def test_retention_by_count(opened, url, stored):
    """The newest stay; the run that is on is not one of them."""
    store = opened(url, keep_runs=3)
    for number in range(5):
        store.save(stored(number))
    store.save(stored(5, "running"))

    assert store.prune() == 2
    assert store.prune() == 0
    assert ids(store.find(Query())) == [stored(number).summary.id for number in (5, 4, 3, 2)]


def test_retention_by_age(opened, url, stored):
    store = opened(url, keep_days=2.5)
    now = datetime.now(UTC)
    for number, age in enumerate([timedelta(days=3), timedelta(days=2), timedelta(0)]):
        run = stored(number)
        store.save(replace(run, summary=replace(run.summary, started_at=now - age)))

    assert store.prune() == 1
    assert ids(store.find(Query())) == [stored(number).summary.id for number in (2, 1)]


def test_retention_spares_the_run_that_has_just_ended(opened, url, stored):
    """Though by its time it is the oldest, and too old: it takes the place of another, so there are no more than 3."""
    store = opened(url, keep_runs=3, keep_days=2.5)
    now = datetime.now(UTC)
    for number in range(5):
        run = stored(number)
        age = timedelta(days=366 if number == 0 else 0)
        store.save(replace(run, summary=replace(run.summary, started_at=now - age)))

    assert store.prune(spare=stored(0).summary.id) == 2
    assert ids(store.find(Query())) == [stored(number).summary.id for number in (4, 3, 0)]
    assert store.prune(spare=stored(4).summary.id) == 1
    assert ids(store.find(Query())) == [stored(number).summary.id for number in (4, 3)]


# --- Threads --------------------------------------------------------------------------------------


def test_many_threads(store, stored):
    """Writers and readers at once: nothing is refused, nothing is lost."""
    together = threading.Barrier(8)

    def work(thread):
        together.wait(WAIT_S)
        for number in range(thread * 23, thread * 23 + 23):
            store.save(stored(number))
            assert store.get(stored(number).summary.id)
            store.find(Query(limit=5))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert len(store.find(Query(limit=1000))) == 8 * 23


def test_labels_of_the_query_are_those_of_a_run():
    assert set(LABELS) == {*Labels.model_fields, "machine"}
