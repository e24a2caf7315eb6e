"""Events on their way to listeners, from a source that follows a script."""

import threading
import time
from datetime import datetime

import pytest

from chainbench_agent.errors import AgentError
from chainbench_agent.loading.event_records import EventRecord
from chainbench_agent.runs.event_listeners import MOST_LISTENERS, MOST_WAITING, Events

LONG_S = 30


class Script:
    """The events given to `emit` come with the next poll."""

    def __init__(self):
        self.on = False
        self.counts = {"held_back": 0, "without_room": 0}
        self._waiting = []
        self._lock = threading.Lock()

    def emit(self, *events):
        with self._lock:
            self._waiting += events

    def listen(self, *, on):
        self.on = on

    def poll(self, timeout_ms):
        del timeout_ms
        time.sleep(0.001)
        with self._lock:
            events, self._waiting = self._waiting, []
        return events

    def dropped(self):
        return dict(self.counts)


@pytest.fixture
def source():
    return Script()


@pytest.fixture
def events(source):
    return Events(source)


def exec_of(pid, run_id="run-1"):
    return EventRecord(time.monotonic_ns(), "exec.exec", pid, "true", {"pid_before": pid}, run_id)


def test_everybody_hears_everything(source, events):
    """When, in which run, what, who, and its details with their units."""
    listeners = [events.join() for _ in range(3)]
    source.emit(exec_of(53))
    heard = [listener.take(LONG_S) for listener in listeners]

    assert heard[0] == heard[1] == heard[2]
    ((at, *others),) = [event.values() for event in heard[0]]
    assert others == ["run-1", "exec.exec", 53, "true", 53]
    assert abs(datetime.fromisoformat(at).timestamp() - time.time()) < LONG_S


def test_an_event_bears_the_run_that_it_happened_in(source, events):
    """Whichever run is on when it is read; an unknown run is null."""
    listener = events.join()
    source.emit(exec_of(53, "run-1"), exec_of(59, "run-2"), exec_of(61, None))
    heard = []
    while len(heard) < 3:
        heard += listener.take(LONG_S)

    assert {event["pid"]: event["run_id"] for event in heard} == {53: "run-1", 59: "run-2", 61: None}


def test_nothing_is_emitted_without_listeners(source, events):
    assert not source.on
    first, second = events.join(), events.join()
    events.leave(first)
    assert source.on
    events.leave(second)

    assert not source.on


def test_a_slow_listener_gets_the_count_of_events_that_it_missed(source, events):
    """The fast listener next to it has missed none."""
    slow, fast = events.join(), events.join()
    heard = []
    for start in range(0, MOST_WAITING + 101, 101):
        source.emit(*(exec_of(pid) for pid in range(start, start + 101)))
        while len(heard) < start + 101:
            heard += fast.take(LONG_S)
    *taken, missed = slow.take(LONG_S)

    assert [event["pid"] for event in taken] == list(range(MOST_WAITING))
    assert missed == {"name": "dropped", "cause": "slow_listener", "count": len(heard) - MOST_WAITING}
    assert slow.take(0) == []


def test_a_listener_gets_the_count_of_events_that_the_kernel_dropped(source, events):
    """Each time how many more it is: its own counters begin with the load, and never fall."""
    source.counts = {"held_back": 5, "without_room": 2}
    listener = events.join()
    source.emit(exec_of(1))
    listener.take(LONG_S)
    source.counts = {"held_back": 12, "without_room": 2}
    first = listener.take(LONG_S)
    source.counts = {"held_back": 15, "without_room": 13}

    assert first == [{"name": "dropped", "cause": "held_back", "count": 7}]
    assert listener.take(LONG_S) == [
        {"name": "dropped", "cause": "held_back", "count": 3},
        {"name": "dropped", "cause": "without_room", "count": 11},
    ]


def test_more_listeners_than_there_may_be(events):
    listeners = [events.join() for _ in range(MOST_LISTENERS)]
    with pytest.raises(AgentError, match="4 clients"):
        events.join()
    events.leave(listeners[0])

    assert events.join()


@pytest.mark.parametrize("fails", ["listen", "start"])
def test_who_cannot_join_takes_no_place(source, events, monkeypatch, fails):
    """Be it the kernel that refuses or the machine that has no thread left: as many may try as like."""

    def refuse(*_, **__):
        raise OSError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(source if fails == "listen" else threading.Thread, fails, refuse)
        for _ in range(MOST_LISTENERS + 1):
            with pytest.raises(OSError, match="refused"):
                events.join()
    listener = events.join()
    source.emit(exec_of(1))

    assert listener.take(LONG_S)[0]["pid"] == 1


def test_a_source_that_first_cannot_say_what_it_dropped(source, events, caplog, monkeypatch):
    """It is asked again, and what it says then is where counting begins."""
    dropped, fails = source.dropped, [OSError("once")]
    monkeypatch.setattr(source, "dropped", lambda: (_ for _ in ()).throw(fails.pop()) if fails else dropped())
    source.counts = {"held_back": 5, "without_room": 0}
    listener = events.join()
    source.emit(exec_of(1))

    assert [event["name"] for event in listener.take(LONG_S)] == ["exec.exec"]
    assert "events cannot be read" in caplog.text


def test_a_source_that_fails_once_goes_on(source, events, caplog, monkeypatch):
    poll, fails = source.poll, [OSError("once")]
    monkeypatch.setattr(source, "poll", lambda ms: (_ for _ in ()).throw(fails.pop()) if fails else poll(ms))
    listener = events.join()
    source.emit(exec_of(1))

    assert listener.take(LONG_S)[0]["pid"] == 1
    assert "events cannot be read" in caplog.text


def test_the_thread_ends_with_the_last_listener(events):
    """It is started again with the next listener, and leaves no thread behind."""
    before = threading.active_count()
    for _ in range(3):
        events.leave(events.join())
    deadline = time.monotonic() + LONG_S
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)

    assert threading.active_count() == before
