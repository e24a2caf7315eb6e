"""The state machine of a run, from many threads and with a collector that fails."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from chainbench_agent.catalog.selection import EVERYTHING, Selection
from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.errors import AgentError, InputError, NoRun, RunActive
from chainbench_agent.evidence.model import Labels, Target
from chainbench_agent.evidence.report import Report
from chainbench_agent.model.run_request import MAX_DURATION_S, RunRequest
from chainbench_agent.runs import running as active_runs
from chainbench_agent.runs.archive import Archive
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.runs.running import GONE_S

LABELS = Labels(scenario="baseline", impl="python", variant="numpy", commit="abc123", dataset="sha256hash")
REQUEST = RunRequest(labels=LABELS)
BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678900, UTC)
WAIT_S = 60


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.ns = 0

    def __call__(self):
        return self.ns

    def now(self):
        return BEGAN + timedelta(microseconds=self.ns / 1000)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def collector():
    return FakeCollector()


@pytest.fixture
def runs(collector, clock):
    runs = Runs(collector, "m", archive=Archive(most_remembered=3), clock=clock, now=clock.now)
    yield runs
    with suppress(AgentError):  # else the run would outlive its test
        runs.stop()


@pytest.fixture
def aside():
    """Runs a call in another thread."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def commit(number):
    return LABELS.model_copy(update={"commit": str(number)})


def report(**changes):
    values = {"impl": "python", "variant": "numpy", "commit": "abc123", "dataset": "sha256hash"}
    return Report(**values | {"baseline_ms": 2, "optimized_ms": 1, "gain_pct": 50} | changes)


# --- A run ----------------------------------------------------------------------------------------


def test_a_run(runs, collector, clock):
    """The evidence carries the run's labels, its beginning in UTC and its duration by the monotonic clock."""
    active = runs.start(REQUEST)
    clock.ns = 1_500_000
    assert collector.run_id == active.id
    evidence = runs.stop()

    assert collector.calls == ["status", "start", "stop", "evidence"]
    assert evidence.run.model_dump() == {
        **LABELS.model_dump(),
        "id": active.id,
        "machine": "m",
        "started_at": BEGAN,
        "duration_ms": 1.5,
        "ended_by": "stop",
        "probes": None,
        "sample_interval": 1,
    }
    assert runs.latest() is evidence


def test_a_clock_that_is_set_is_not_what_a_run_is_measured_by():
    """An agent takes the kernel's monotonic one, unless a test holds another."""
    before = time.monotonic_ns()
    runs = Runs(FakeCollector(), "m")
    active = runs.start(REQUEST)
    runs.stop()

    assert before <= active.started_ns <= time.monotonic_ns()


def test_a_run_of_some_modules(runs, collector):
    """The collector and the evidence get the selection; the next run has its own."""
    selection = Selection(("exec",), 10)
    request = RunRequest(labels=LABELS, selection=selection)
    assert runs.start(request).request == collector.request == request
    assert runs.status().active.request.selection == selection
    run = runs.stop().run
    assert (run.probes, run.sample_interval) == (("exec",), 10)

    runs.start(REQUEST)
    assert collector.request.selection == EVERYTHING


def test_a_run_begins_when_the_collector_has_started(runs, collector, clock, aside):
    """Attaching takes time that is not the benchmark's."""
    collector.holds["start"] = threading.Event()
    starting = aside(runs.start, REQUEST)
    collector.entered["start"].wait(WAIT_S)
    clock.ns = 5_000_000
    collector.holds["start"].set()
    active = starting.result(WAIT_S)
    clock.ns = 6_000_000

    assert active.started_at == BEGAN + timedelta(milliseconds=5)
    assert runs.stop().run.duration_ms == 1.0


def test_ids_sort_by_time(runs, clock):
    ids = []
    for _ in range(3):
        ids.append(runs.start(REQUEST).id)
        runs.stop()
        clock.ns += 1_000_000

    assert ids == sorted(ids)
    assert len(set(ids)) == 3
    assert ids[0].startswith("20260102T030405678Z-")


def test_of_100_simultaneous_starts_one_wins(runs, collector):
    """The refusals name that run."""
    together = threading.Barrier(100)

    def start(number):
        together.wait(WAIT_S)
        try:
            return runs.start(RunRequest(labels=commit(number)))
        except RunActive as error:
            return error

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(start, range(100)))

    winners = [answer for answer in answers if not isinstance(answer, RunActive)]
    assert len(winners) == 1
    assert collector.calls.count("start") == 1
    losers = [str(answer) for answer in answers if isinstance(answer, RunActive)]
    assert all(f"commit={winners[0].request.labels.commit} " in text for text in losers)


def test_of_100_simultaneous_stops_one_gets_the_evidence(runs, collector):
    runs.start(REQUEST)
    together = threading.Barrier(100)

    def stop(_):
        together.wait(WAIT_S)
        try:
            return runs.stop()
        except NoRun:
            return None

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(stop, range(100)))

    assert len([answer for answer in answers if answer]) == 1
    assert collector.calls.count("stop") == 1


def test_a_second_start_hears_which_run_is_on_and_for_how_long(runs, clock):
    active = runs.start(REQUEST)
    clock.ns = 12_340_000_000

    with pytest.raises(RunActive, match=rf"run {active.id} \(scenario=baseline .*\) is running, 12\.3 s old"):
        runs.start(REQUEST)


def test_nothing_to_stop(runs):
    with pytest.raises(NoRun, match="no run is active"):
        runs.stop()


@pytest.mark.parametrize(("call", "phase"), [("start", "starting"), ("stop", "stopping")])
def test_while_the_collector_works(runs, collector, aside, call, phase):
    """Other callers are answered at once, not when the collector has done."""
    if call == "stop":
        runs.start(REQUEST)
    collector.holds[call] = threading.Event()
    working = aside(getattr(runs, call), *([REQUEST] if call == "start" else []))
    collector.entered[call].wait(WAIT_S)

    assert runs.status().phase == phase
    assert runs.status().collector.backend == "ebpf"
    assert runs.current() is None
    with pytest.raises(RunActive, match=f"is {phase}"):
        runs.start(REQUEST)
    with pytest.raises(NoRun, match=f"is {phase}"):
        runs.stop()

    collector.holds[call].set()
    working.result(WAIT_S)


# --- A target -------------------------------------------------------------------------------------

PROCESS = Target(kind="pid", pid=7)


def test_a_run_of_a_target(runs, collector):
    """The collector hears whose it is, and by which connection it was asked for."""
    runs.start(RunRequest(labels=LABELS, target=PROCESS, caller=70))
    assert (collector.request.target, collector.request.caller) == (PROCESS, 70)
    runs.stop()

    runs.start(REQUEST)
    assert (collector.request.target, collector.request.caller) == (Target(), None)


def test_there_is_no_such_target(runs, collector):
    """It was asked wrongly: nothing failed, nothing is counted, and the next run can start."""
    runs.start(REQUEST)
    evidence = runs.stop()
    collector.fails["start"] = InputError("pid", "there is no process 7")

    with pytest.raises(InputError, match="pid: there is no process 7"):
        runs.start(RunRequest(labels=LABELS, target=PROCESS))

    assert (runs.status().phase, runs.status().active, runs.status().failure) == ("idle", None, "")
    assert (runs.remembered()[0].results, runs.latest()) == ({"finished": 1}, evidence)
    with pytest.raises(NoRun):
        runs.stop()
    del collector.fails["start"]
    runs.start(RunRequest(labels=LABELS, target=PROCESS))
    assert runs.status().phase == "running"


def test_a_shutdown_does_not_wait_for_a_target_that_is_refused(runs, collector, aside):
    collector.holds["start"] = threading.Event()
    collector.fails["start"] = InputError("pid", "there is no process 7")
    starting = aside(runs.start, RunRequest(labels=LABELS, target=PROCESS))
    collector.entered["start"].wait(WAIT_S)
    closing = aside(runs.shutdown)
    collector.holds["start"].set()

    closing.result(WAIT_S)
    assert isinstance(starting.exception(WAIT_S), InputError)


# --- A run that ends by itself --------------------------------------------------------------------


@pytest.fixture
def watched_often(monkeypatch):
    """Looked at every millisecond of real time; how much passes in the run, the clock of the test says."""
    monkeypatch.setattr(active_runs, "WATCH_S", 0.001)


class Endings:
    """Waits for what the watch does."""

    def __init__(self, runs, collector):
        self._runs = runs
        self.looks = threading.Semaphore(0)
        self.gone = False
        collector.target_has_ended = self._look

    def _look(self):
        self.looks.release()
        return self.gone

    def looked_at(self, times=3):
        """The run was looked at so often since this was called."""
        while self.looks.acquire(blocking=False):
            pass
        assert all(self.looks.acquire(timeout=WAIT_S) for _ in range(times))

    def ended(self):
        """The evidence of the run, once it has ended by itself."""
        with self._runs._changed:
            assert self._runs._changed.wait_for(lambda: self._runs._phase == "idle", WAIT_S)
        return self._runs.latest()


@pytest.fixture
def endings(runs, collector, watched_often):
    del watched_often
    return Endings(runs, collector)


def test_a_run_ends_when_its_time_is_over(runs, collector, clock, endings):
    """Not before; its evidence is remembered, and it counts as finished."""
    active = runs.start(RunRequest(labels=LABELS, longest_s=60))
    clock.ns = 60 * 10**9 - 10**6
    endings.looked_at()
    assert runs.status().phase == "running"
    clock.ns = 60 * 10**9

    evidence = endings.ended()

    assert (evidence.run.id, evidence.run.ended_by) == (active.id, "max_duration")
    assert evidence.run.duration_ms == 60_000
    assert not collector.collecting
    assert runs.remembered()[0].results == {"finished": 1}


def test_a_run_has_an_end_though_nobody_asked_for_one(runs, clock, endings):
    runs.start(REQUEST)
    clock.ns = int(MAX_DURATION_S - 1) * 10**9
    endings.looked_at()
    assert runs.status().phase == "running"
    clock.ns = int(MAX_DURATION_S) * 10**9

    assert endings.ended().run.ended_by == "max_duration"


def test_a_run_ends_when_its_target_is_gone_for_good(runs, clock, endings):
    """It goes on while the target may start again."""
    active = runs.start(RunRequest(labels=LABELS, target=PROCESS))
    endings.gone = True
    endings.looked_at()
    clock.ns = int(GONE_S * 10**9) - 1
    endings.looked_at()
    assert runs.status().phase == "running"
    clock.ns = int(GONE_S * 10**9)

    evidence = endings.ended()

    assert (evidence.run.id, evidence.run.ended_by) == (active.id, "target_gone")
    assert runs.remembered()[0].results == {"finished": 1}


def test_a_target_that_is_there_again_in_time(runs, clock, endings):
    runs.start(RunRequest(labels=LABELS, target=PROCESS))
    for second in range(30):
        endings.gone = bool(second % 4)
        clock.ns = second * 10**9
        endings.looked_at()

    assert runs.stop().run.ended_by == "stop"


def test_nobody_waits_for_a_collector_at_work(runs, collector, endings, aside):
    """While evidence is read, the target is not asked about; whether it is gone is seen afterwards."""
    runs.start(RunRequest(labels=LABELS, target=PROCESS))
    collector.holds["evidence"] = threading.Event()
    looking = aside(runs.current)
    collector.entered["evidence"].wait(WAIT_S)
    endings.gone = True

    assert runs._collector.target_has_ended() is False
    collector.holds["evidence"].set()
    looking.result(WAIT_S)
    assert runs._collector.target_has_ended() is True


@pytest.mark.parametrize("reason", ["max_duration", "target_gone"])
def test_a_stop_that_comes_too_late(runs, clock, endings, reason):
    """It hears how the run ended and where the evidence is; after the next run that is forgotten."""
    active = runs.start(RunRequest(labels=LABELS, longest_s=60))
    endings.gone = reason == "target_gone"
    endings.looked_at()
    clock.ns = (60 if reason == "max_duration" else 6) * 10**9
    endings.ended()

    with pytest.raises(NoRun, match=rf"run {active.id} ended by itself \({reason}\); GET /report has its evidence"):
        runs.stop()

    endings.gone = False
    runs.start(REQUEST)
    runs.stop()
    with pytest.raises(NoRun, match=r"no run is active$"):
        runs.stop()


def test_only_its_own_run_is_ended(runs, clock, endings):
    """The watch of a run that was stopped does not end the next one."""
    runs.start(RunRequest(labels=LABELS, longest_s=60))
    runs.stop()
    runs.start(RunRequest(labels=commit(2), longest_s=600))
    clock.ns = 61 * 10**9
    endings.looked_at()

    assert runs.status().phase == "running"
    with pytest.raises(NoRun, match="no run is active"):
        runs.stop(only="another")
    assert runs.stop().run.ended_by == "stop"


def test_an_ending_that_fails_is_known(runs, collector, clock, endings):
    """As a stop that fails: no run is active, and why is in the status."""
    collector.fails["stop"] = OSError("cannot detach")
    runs.start(RunRequest(labels=LABELS, longest_s=60))
    clock.ns = 60 * 10**9
    endings.ended()

    assert "cannot detach" in runs.status().failure
    assert runs.remembered()[0].results == {"failed": 1}


@pytest.mark.usefixtures("watched_often")
def test_no_watch_is_left(runs, collector, clock):
    """However a run ended; a start that fails or is refused never has one."""
    before = set(threading.enumerate())
    for ending in ("stop", "max_duration", "start fails", "refused"):
        clock.ns = 0
        collector.fails = {"start fails": {"start": OSError()}, "refused": {"start": InputError("pid", "")}}.get(
            ending, {}
        )
        with suppress(AgentError):
            runs.start(RunRequest(labels=LABELS, longest_s=60))
        clock.ns = 60 * 10**9 * (ending == "max_duration")
        with suppress(NoRun):
            runs.stop()

    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_S)
        assert not thread.is_alive()


# --- A collector that fails -----------------------------------------------------------------------


def test_a_start_that_fails_leaves_no_run(runs, collector):
    collector.fails["start"] = OSError("no such tracepoint")

    with pytest.raises(AgentError, match="the collector could not start: no such tracepoint"):
        runs.start(REQUEST)

    assert runs.status().phase == "idle"
    assert "no such tracepoint" in runs.status().failure
    assert runs.remembered()[0].results == {"failed": 1}
    del collector.fails["start"]
    runs.start(REQUEST)
    assert runs.status().failure == ""


def test_a_stop_that_fails_leaves_no_run_and_loses_nothing(runs, collector, caplog):
    """The log has what was collected, as JSON."""
    active = runs.start(REQUEST)
    collector.fails["stop"] = OSError("cannot detach")

    with pytest.raises(AgentError, match="the collector could not stop: cannot detach"):
        runs.stop()

    assert runs.status().phase == "idle"
    assert runs.latest() is None
    (message,) = [record.message for record in caplog.records if "could not stop" in record.message]
    evidence = json.loads(message[message.index("{") :])
    assert (evidence["run"]["id"], evidence["exec"]["exec_count"]) == (active.id, 53)


def test_a_collector_that_fails_at_everything(runs, collector, caplog):
    runs.start(REQUEST)
    collector.fails |= {"stop": OSError("cannot detach"), "evidence": OSError("cannot read")}

    with pytest.raises(AgentError, match="cannot detach"):
        runs.stop()

    assert "its evidence: none (cannot read)" in caplog.text
    assert runs.status().phase == "idle"


def test_a_failed_run_leaves_the_evidence_of_the_one_before(runs, collector):
    runs.start(REQUEST)
    evidence = runs.stop()
    collector.fails["start"] = OSError("no")
    with pytest.raises(AgentError):
        runs.start(REQUEST)

    (remembered,) = runs.remembered()
    assert remembered.evidence is evidence
    assert remembered.results == {"finished": 1, "failed": 1}


# --- What is known --------------------------------------------------------------------------------


def test_status_of_a_run(runs, clock):
    assert (runs.status().phase, runs.status().active, runs.status().elapsed_ms) == ("idle", None, 0.0)
    active = runs.start(REQUEST)
    clock.ns = 2_000_000

    status = runs.status()

    assert (status.phase, status.active, status.elapsed_ms) == ("running", active, 2.0)


def test_the_running_run_shows_its_evidence_so_far(runs, clock):
    assert runs.current() is None
    active = runs.start(REQUEST)
    clock.ns = 1_000_000

    run = runs.current().run

    assert (run.id, run.ended_by, run.duration_ms) == (active.id, "running", 1.0)
    runs.stop()
    assert runs.current() is None


def test_however_many_look_there_is_one_sample_a_second(runs, collector, clock):
    """A sample costs twenty times what it costs to send one: who asks again within the second gets the same."""
    runs.start(REQUEST)
    seen = []
    for at_ms in (0, 1, 999, 1000, 1999, 2000):
        clock.ns = at_ms * 1_000_000
        seen.append(runs.current().run.duration_ms)

    assert seen == [0.0, 0.0, 0.0, 1000.0, 1000.0, 2000.0]
    assert collector.calls.count("evidence") == 3


def test_the_next_run_is_not_taken_for_the_last(runs):
    for _ in range(2):
        active = runs.start(REQUEST)
        assert runs.current().run.id == active.id
        runs.stop()


def test_however_many_look_a_stop_waits_for_one(runs, collector, clock, aside):
    """A second caller gets the previous answer at once."""
    runs.start(REQUEST)
    before = runs.current()
    clock.ns = 1_000_000_000
    collector.holds["evidence"] = threading.Event()
    collector.entered["evidence"].clear()
    looking = aside(runs.current)
    assert collector.entered["evidence"].wait(WAIT_S)

    assert [runs.current() for _ in range(10)] == [before] * 10
    stopping = aside(runs.stop)
    collector.holds["evidence"].set()
    assert looking.result(WAIT_S).run.ended_by == "running"
    assert stopping.result(WAIT_S).run.ended_by == "stop"
    assert runs.current() is None


def test_evidence_that_fails_midway_does_not_end_the_run(runs, collector):
    runs.start(REQUEST)
    collector.fails["evidence"] = OSError("busy")
    assert runs.current() is None
    del collector.fails["evidence"]

    assert runs.stop().run.ended_by == "stop"


def test_the_label_sets_remembered_are_bounded(runs):
    """The one that was not touched for longest goes first."""
    for number in (1, 2, 3, 1, 4):
        runs.start(RunRequest(labels=commit(number)))
        runs.stop()

    assert [remembered.labels.commit for remembered in runs.remembered()] == ["3", "1", "4"]
    assert runs.remembered()[1].results == {"finished": 2}


def test_reports_are_bounded_and_the_latest_counts(runs):
    for number in range(5):
        runs.report(report(commit=str(number), gain_pct=1))
    runs.report(report(commit="3", gain_pct=2))

    assert [(remembered.commit, remembered.gain_pct) for remembered in runs.reports()] == [("2", 1), ("4", 1), ("3", 2)]


# --- Shutdown -------------------------------------------------------------------------------------


def logged_evidence(caplog):
    texts = [record.message for record in caplog.records if "ended with the shutdown: {" in record.message]
    return [json.loads(text[text.index("{") :]) for text in texts]


def test_shutdown_finishes_the_run_and_logs_its_evidence(runs, collector, caplog):
    active = runs.start(REQUEST)
    runs.shutdown()

    (evidence,) = logged_evidence(caplog)
    assert (evidence["run"]["id"], evidence["run"]["ended_by"]) == (active.id, "shutdown")
    assert not collector.collecting
    assert runs.remembered()[0].results == {"interrupted": 1}
    with pytest.raises(AgentError, match="shutting down"):
        runs.start(REQUEST)


def test_shutdown_without_a_run(runs, caplog):
    runs.shutdown()

    assert logged_evidence(caplog) == []


def test_shutdown_waits_for_a_start_and_then_ends_the_run(runs, collector, aside, caplog):
    collector.holds["start"] = threading.Event()
    starting = aside(runs.start, REQUEST)
    collector.entered["start"].wait(WAIT_S)
    closing = aside(runs.shutdown)
    collector.holds["start"].set()
    closing.result(WAIT_S)

    assert [evidence["run"]["id"] for evidence in logged_evidence(caplog)] == [starting.result(WAIT_S).id]


def test_shutdown_waits_for_a_stop_under_way(runs, collector, aside, caplog):
    """Its client gets the evidence; nothing is left for the log."""
    runs.start(REQUEST)
    collector.holds["stop"] = threading.Event()
    stopping = aside(runs.stop)
    collector.entered["stop"].wait(WAIT_S)
    closing = aside(runs.shutdown)
    collector.holds["stop"].set()
    closing.result(WAIT_S)

    assert runs.status().phase == "idle"
    assert stopping.result(WAIT_S).run.ended_by == "stop"
    assert logged_evidence(caplog) == []


def test_shutdown_survives_a_collector_that_fails(runs, collector, caplog):
    runs.start(REQUEST)
    collector.fails["stop"] = OSError("cannot detach")
    runs.shutdown()

    assert runs.status().phase == "idle"
    assert "cannot detach" in caplog.text
