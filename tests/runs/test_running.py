"""A run ends by the clock, and when its target has ended for a while."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chainbench_agent.evidence.model import Labels
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.runs import running
from chainbench_agent.runs.running import GONE_S, WATCH_S, CurrentRun, Watch, new_id

S = 10**9
BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678900, UTC)
REQUEST = RunRequest(labels=Labels(scenario="kv", impl="python"))
RUN = CurrentRun("r1", REQUEST, BEGAN, 0)


def watched(has_ended=lambda: False, longest_s=3600):
    return Watch(replace(RUN, request=replace(REQUEST, longest_s=longest_s)), has_ended)


def test_it_goes_on():
    """The run goes on while it has time left and the target lives."""
    watch = watched()

    assert [watch.why_end(second * S) for second in (0, 1, 3599)] == [None] * 3


@pytest.mark.parametrize(("longest_s", "now_ns"), [(3600, 3600 * S), (3600, 9999 * S), (0.25, S // 4)])
def test_its_time_is_over(longest_s, now_ns):
    """The run ends at the exact moment, or at any later look."""
    watch = watched(longest_s=longest_s)

    assert watch.why_end(now_ns - 1 if now_ns <= longest_s * S else 0) is None
    assert watch.why_end(now_ns) == "max_duration"


def test_its_target_is_gone():
    """The run ends some time after the target, also if that was absent from the first moment."""
    watch = watched(lambda: True)
    moments = [0, S, int(GONE_S * S) - 1, int(GONE_S * S)]

    assert [watch.why_end(at) for at in moments] == [None, None, None, "target_gone"]


def test_a_target_that_is_there_again():
    """A runner may be between two processes: the time begins again."""
    there = iter([False, False, True] + [False] * 6)
    watch = watched(lambda: not next(there))

    assert [watch.why_end(second * S) for second in range(9)] == [None] * 8 + ["target_gone"]


def test_both_at_once():
    """The time it was given comes first."""
    watch = watched(lambda: True, longest_s=5)
    watch.why_end(0)

    assert watch.why_end(5 * S) == "max_duration"


def test_a_collector_that_does_not_know(caplog):
    """The target counts as alive; the run still ends in time."""

    def fail():
        raise OSError("map lookup")

    watch = watched(fail, longest_s=60)

    assert [watch.why_end(at * S) for at in (0, 30, 60)] == [None, None, "max_duration"]
    assert "run r1: it is not known whether its target has ended" in caplog.text


@pytest.mark.parametrize(
    ("longest_s", "now_s", "pause_s"), [(3600, 0, WATCH_S), (3600, 3599.75, 0.25), (0.5, 0, 0.5), (1, 7, 0)]
)
def test_it_is_looked_at_often_and_in_time(longest_s, now_s, pause_s):
    assert watched(longest_s=longest_s).pause_s(int(now_s * S)) == pytest.approx(pause_s)


def test_how_often_can_be_set(monkeypatch):
    """A test need not wait for it."""
    monkeypatch.setattr(running, "WATCH_S", 0.001)

    assert watched().pause_s(0) == 0.001


def test_a_run_is_named():
    assert RUN.words == "scenario=kv impl=python variant= commit= dataset="


def test_as_the_evidence_has_it():
    run = RUN.run("host", 1_500_000, "max_duration")

    assert (run.id, run.machine, run.started_at, run.duration_ms) == ("r1", "host", BEGAN, 1.5)
    assert (run.ended_by, run.scenario, run.impl) == ("max_duration", "kv", "python")


def test_two_ids_of_one_moment():
    assert new_id(BEGAN) != new_id(BEGAN)
    assert new_id(BEGAN).startswith("20260102T030405678Z-")
