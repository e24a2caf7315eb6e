"""The archive: when a run is stored, and what happens to a run when the store fails."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.errors import AgentError, InputError, RunActive, StoreError, UnknownRun
from chainbench_agent.evidence.model import Evidence, Labels
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.model.stored_run import Query
from chainbench_agent.runs.active_run_record import ActiveRunRecord
from chainbench_agent.runs.archive import MOST_WAITING, Archive
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.settings import load_settings
from chainbench_agent.store import open_store

LABELS = Labels(scenario="baseline", impl="python", variant="numpy", commit="abc123", dataset="sha256hash")
REQUEST = RunRequest(labels=LABELS)
WAIT_S = 60
NEVER_S = 3600


class Agent:
    """Runs, their collector and their store, as the agent puts them together."""

    def __init__(self, state_dir, checkpoint_s=NEVER_S, record=None, **settings):
        self.step = timedelta(0)  # by how much the clock is wrong
        settings = load_settings(store="sqlite", state_dir=str(state_dir), machine="m", **settings)
        self.store = open_store(settings)
        self.collector = FakeCollector()
        self.archive = Archive(self.store, lambda: {"kernel": "6.1.0"}, checkpoint_s, most_remembered=3)
        self.archive.take_over(record or ActiveRunRecord())
        self.runs = Runs(self.collector, "m", archive=self.archive, now=lambda: datetime.now(UTC) + self.step)

    def run(self, **labels):
        self.runs.start(RunRequest(labels=LABELS.model_copy(update=labels)))
        return self.runs.stop()

    def die(self):
        """Die as far as a test can: locks and connections are released, nothing is finished."""
        self.store.close()


@pytest.fixture
def agents(tmp_path):
    """`agents()` → an agent on the state directory of this test."""
    made = []

    def make(**options):
        made.append(Agent(tmp_path / "state", **options))
        return made[-1]

    yield make
    for agent in made:
        with suppress(AgentError):
            agent.runs.stop()
        agent.store.close()


@pytest.fixture
def agent(agents):
    return agents()


class Failing:
    """A store in front of another that refuses the results in `refuses`."""

    def __init__(self, store):
        self._store = store
        self.refuses = set()
        self.saved = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def save(self, run):
        if run.summary.result in self.refuses:
            raise StoreError("disk full")
        self._store.save(run)
        self.saved.append(run.summary.result)


@pytest.fixture
def failing(agent, monkeypatch):
    failing = Failing(agent.store)
    monkeypatch.setattr(agent.archive, "_store", failing)
    return failing


# --- When a run is stored -------------------------------------------------------------------------


def test_a_run_is_stored_when_stop_answers(agent):
    """With its labels, its evidence as it was answered, and the environment."""
    evidence = agent.run()

    stored = agent.store.get(evidence.run.id)
    assert (stored.summary.result, stored.summary.ended_by, stored.summary.source) == ("finished", "stop", "ebpf")
    assert stored.summary.labels == LABELS
    assert stored.evidence == evidence.as_json()
    assert stored.environment == {"kernel": "6.1.0"}
    assert agent.archive.why_not_stored(evidence.run.id) == ""


def test_a_run_is_stored_from_its_start(agent):
    """Before the collector starts, so that no run is unknown if the agent dies in it."""
    agent.collector.holds["start"] = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(agent.runs.start, REQUEST)
        agent.collector.entered["start"].wait(WAIT_S)
        (run,) = agent.store.find(Query())
        agent.collector.holds["start"].set()
        assert (run.id, run.result, run.ended_by) == (starting.result(WAIT_S).id, "running", "running")


def test_a_run_that_failed_to_start(agent):
    agent.collector.fails["start"] = OSError("no such tracepoint")
    with pytest.raises(AgentError):
        agent.runs.start(REQUEST)

    (run,) = agent.store.find(Query())
    assert (run.result, run.ended_by) == ("failed", "start_failed")
    assert run.failure == "the collector could not start: no such tracepoint"


def test_a_run_that_failed_to_stop(agent):
    """With what could be salvaged."""
    active = agent.runs.start(REQUEST)
    agent.collector.fails["stop"] = OSError("cannot detach")
    with pytest.raises(AgentError):
        agent.runs.stop()

    stored = agent.store.get(active.id)
    assert (stored.summary.result, stored.evidence["exec"]) == ("failed", {"exec_count": 53})
    assert "cannot detach" in stored.summary.failure


@pytest.fixture
def broken(agent):
    """A run of 54 programs at its checkpoint, whose collector then neither stops nor says any more."""
    agent.collector.sections = {"exec": {"exec_count": 54}}
    active = agent.runs.start(REQUEST)
    agent.archive.checkpoint(agent.runs.current())
    agent.collector.fails = {"stop": OSError("cannot detach"), "evidence": OSError("no such map")}
    return active


def test_a_run_that_failed_to_stop_keeps_its_last_checkpoint(agent, broken):
    """Its evidence, source and duration, and how the run ended; both sentences say there is no more."""
    before = agent.store.get(broken.id)
    with pytest.raises(AgentError, match="could not stop: cannot detach; it has no evidence any more"):
        agent.runs.stop()

    stored = agent.store.get(broken.id)
    assert (stored.summary.result, stored.summary.ended_by, stored.summary.source) == ("failed", "stop", "ebpf")
    assert stored.evidence == {**before.evidence, "run": {**before.evidence["run"], "ended_by": "stop"}}
    assert stored.evidence["exec"] == {"exec_count": 54}
    assert stored.summary.duration_ms == before.summary.duration_ms == stored.evidence["run"]["duration_ms"]
    assert stored.summary.failure.endswith("no evidence any more; what is here is from its last checkpoint")
    assert agent.runs.status().phase == "idle"


def test_a_checkpoint_is_of_only_one_run(agent, broken):
    """The next one that fails without evidence has none, whatever the one before had."""
    with pytest.raises(AgentError):
        agent.runs.stop()
    agent.collector.collecting = False
    active = agent.runs.start(REQUEST)
    with pytest.raises(AgentError):
        agent.runs.stop()

    stored = agent.store.get(active.id)
    assert (stored.summary.result, stored.summary.source, stored.evidence) == ("failed", "", None)
    assert "checkpoint" not in stored.summary.failure
    assert broken.id != active.id


def test_a_run_that_was_refused_never_was(agent):
    agent.collector.fails["start"] = InputError("pid", "there is no process 7")
    with pytest.raises(InputError):
        agent.runs.start(REQUEST)

    assert agent.store.find(Query()) == []


def test_a_run_that_a_shutdown_ended(agent):
    active = agent.runs.start(REQUEST)
    agent.runs.shutdown()

    run = agent.store.get(active.id).summary
    assert (run.result, run.ended_by) == ("interrupted", "shutdown")


def test_retention(agents):
    agent = agents(keep_runs=2)
    ids = [agent.run(commit=str(number)).run.id for number in range(4)]

    assert [run.id for run in agent.store.find(Query())] == ids[:1:-1]


def test_a_clock_that_is_set_back_costs_no_run_that_was_answered(agents):
    """With the clock a year back, each run stays until the next ends; at most the limit of runs is stored."""
    agent = agents(keep_runs=2)
    for number in range(3):
        agent.run(commit=str(number))
    agent.step = timedelta(days=-366)
    for number in range(3):
        evidence = agent.run(commit=f"back {number}")
        assert agent.store.get(evidence.run.id).evidence == evidence.as_json()
        assert [run.labels.commit for run in agent.store.find(Query())] == ["2", f"back {number}"]


def test_a_clock_that_is_set_forward_in_a_run_costs_it_not(agents):
    """It began long ago then; the next run's end deletes it."""
    agent = agents(keep_days=7)
    agent.step = timedelta(days=-8)
    active = agent.runs.start(REQUEST)
    agent.step = timedelta(0)
    evidence = agent.runs.stop()
    assert agent.store.get(active.id).evidence == evidence.as_json()

    later = agent.run(commit="later")
    assert [run.id for run in agent.store.find(Query())] == [later.run.id]


# --- Checkpoints ----------------------------------------------------------------------------------


def test_a_running_run_is_written_as_it_goes_on(agents):
    """Again and again, by a thread of its own, which ends with the run."""
    agent = agents(checkpoint_s=0.01)
    before = set(threading.enumerate())
    active = agent.runs.start(REQUEST)
    for count in (54, 55):
        agent.collector.sections = {"exec": {"exec_count": count}}
        wait_for(lambda count=count: (agent.store.get(active.id).evidence or {}).get("exec") == {"exec_count": count})
    assert agent.store.get(active.id).summary.result == "running"
    evidence = agent.runs.stop()

    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_S)
    assert agent.store.get(active.id).evidence == evidence.as_json()


def wait_for(condition):
    pause = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("never happened")


def test_a_checkpoint_that_comes_late_changes_nothing(agent):
    """Its evidence was taken before the end, and is written after it."""
    agent.runs.start(REQUEST)
    late = agent.runs.current()
    evidence = agent.runs.stop()
    agent.archive.checkpoint(late)

    assert agent.store.get(evidence.run.id).evidence == evidence.as_json()


def test_a_slow_store_does_not_hold_up_the_collector(agent, failing, monkeypatch):
    """While a checkpoint hangs in the store, the run is stopped in the kernel; only the answer waits."""
    agent.runs.start(REQUEST)
    hangs, hanging = threading.Event(), threading.Event()
    monkeypatch.setattr(failing, "save", lambda _: (hanging.set(), hangs.wait(WAIT_S)))
    with ThreadPoolExecutor(2) as pool:
        checkpoint = pool.submit(agent.archive.checkpoint, agent.runs.current())
        hanging.wait(WAIT_S)
        stopping = pool.submit(agent.runs.stop)
        assert agent.collector.entered["stop"].wait(WAIT_S)
        assert agent.runs.status().phase == "stopping"
        hangs.set()
        checkpoint.result(WAIT_S)
        assert stopping.result(WAIT_S).run.ended_by == "stop"


# --- A restart ------------------------------------------------------------------------------------


def test_what_is_known_after_a_restart(agents):
    """The latest evidence, and that of each label set used last; counts of runs begin at zero."""
    first = agents()
    evidences = [first.run(commit=commit) for commit in ("a", "b", "c", "d", "b")]
    first.die()

    runs = agents().runs

    assert runs.latest() == evidences[-1]
    assert [remembered.evidence for remembered in runs.remembered()] == [evidences[2], evidences[3], evidences[4]]
    assert all(not remembered.results for remembered in runs.remembered())


def test_after_an_agent_died_in_a_run(agents):
    """The run is interrupted, with its last checkpoint; it is the latest, and it counts."""
    first = agents()
    first.run(commit="a")
    active = first.runs.start(REQUEST)
    first.archive.checkpoint(first.runs.current())
    first.die()

    second = agents()

    assert (second.runs.latest().run.id, second.runs.latest().run.ended_by) == (active.id, "agent_died")
    assert [remembered.results for remembered in second.runs.remembered()] == [{}, {"interrupted": 1}]
    with pytest.raises(AgentError, match=r"ended by itself \(agent_died\); GET /report has its evidence"):
        second.runs.stop()


def test_a_run_whose_process_was_killed_is_reported_with_what_is_left(agents):
    """The process that comes after it knows from the record, which it inherits, and says where the rest is."""
    record, first = ActiveRunRecord(), agents()
    first.archive.take_over(record)
    active = first.runs.start(REQUEST)
    first.die()

    second = agents(record=record)

    lost = f"run {active.id} ({active.words}) was lost: the process that collected it died"
    assert second.runs.status().failure == f"{lost}; GET /runs has what was stored of it"
    with pytest.raises(AgentError, match=r"no run is active: run .* was lost"):
        second.runs.stop()


def test_evidence_survives_a_round_trip_through_json(agent):
    evidence = agent.run()

    assert Evidence.from_json(json.loads(json.dumps(evidence.as_json()))) == evidence


# --- A store that fails ---------------------------------------------------------------------------


def test_a_store_that_fails_at_the_end(agent, failing, caplog):
    """The run has its evidence all the same, and so has the log; it is stored as soon as that is possible."""
    failing.refuses = {"finished"}
    evidence = agent.run()

    assert agent.archive.why_not_stored(evidence.run.id) == "disk full"
    assert agent.runs.latest() is evidence
    (line,) = [
        record.message for record in caplog.records if "is not stored: disk full; its evidence: " in record.message
    ]
    assert json.loads(line[line.index("{") :]) == evidence.as_json()

    failing.refuses = set()
    later = agent.run(commit="b")

    assert agent.archive.why_not_stored(later.run.id) == ""
    assert agent.store.get(evidence.run.id).evidence == evidence.as_json()
    assert f"run {evidence.run.id} is stored now" in caplog.text


def test_what_waits_for_the_store_is_bounded(agent, failing):
    """The newest wait; the log has the others."""
    failing.refuses = {"running", "finished"}
    evidences = [agent.run(commit=str(number)) for number in range(MOST_WAITING + 2)]
    failing.refuses = set()
    last = agent.run(commit="last")

    stored = {run.id for run in agent.store.find(Query())}  # a set: what began in one millisecond has no order
    assert stored == {last.run.id, *(evidence.run.id for evidence in evidences[2:])}


def test_a_store_that_fails_throughout_says_so_once_for_a_run(agent, failing, caplog):
    """The log has one message for the run, not one for each checkpoint."""
    failing.refuses = {"running"}
    agent.runs.start(REQUEST)
    for _ in range(3):
        agent.archive.checkpoint(agent.runs.current())

    assert caplog.text.count("cannot be written to the store: disk full") == 1


def test_a_bug_in_the_store_costs_no_run(agent, failing, monkeypatch):
    monkeypatch.setattr(failing, "save", lambda _: 1 / 0)
    evidence = agent.run()

    assert evidence.sections == {"exec": {"exec_count": 53}}
    assert "division by zero" in agent.archive.why_not_stored(evidence.run.id)


# --- Deleting -------------------------------------------------------------------------------------


def test_a_deleted_run_is_forgotten_everywhere(agent):
    """It is neither in the store, nor in /metrics, nor the latest run; the numbers of results stay."""
    first, second = agent.run(commit="a"), agent.run(commit="b")
    agent.runs.delete(second.run.id)

    assert [run.id for run in agent.store.find(Query())] == [first.run.id]
    assert agent.runs.latest() is first
    assert [(remembered.evidence, remembered.results) for remembered in agent.runs.remembered()] == [
        (first, {"finished": 1}),
        (None, {"finished": 1}),
    ]
    with pytest.raises(UnknownRun, match=second.run.id):
        agent.runs.delete(second.run.id)


def test_the_run_that_is_on_is_not_deleted(agent):
    active = agent.runs.start(REQUEST)
    with pytest.raises(RunActive, match=active.id):
        agent.runs.delete(active.id)


def test_a_run_that_waits_for_the_store_can_be_deleted(agent, failing):
    failing.refuses = {"running", "finished"}
    evidence = agent.run()
    failing.refuses = set()
    agent.runs.delete(evidence.run.id)
    agent.run(commit="b")

    assert agent.store.get(evidence.run.id) is None
