"""Kretprobes with a number of calls, and the names that tracefs has for them."""

import errno
import os
import subprocess

import pytest

from chainbench_agent.bpf import kretprobes, perf_events

OURS = f"chainbench_{os.getpid()}"


@pytest.fixture
def tracefs(tmp_path, monkeypatch):
    """A directory that takes what is written there as tracefs does: names come and go, others stay."""

    class Tracefs:
        def __init__(self):
            self.root = tmp_path
            self.file = tmp_path / "kprobe_events"
            self.file.write_text("p:somebody/else vfs_read\n")
            self.busy = set()

        @property
        def names(self):
            return [line.split()[0].partition(":")[2] for line in self.file.read_text().splitlines()]

        def write(self, file, line):
            assert file == self.file
            if line.startswith("-:"):
                if line[2:] in self.busy:
                    raise OSError(errno.EBUSY, "busy")
                left = [kept for kept in self.file.read_text().splitlines(keepends=True) if line[2:] not in kept]
                self.file.write_text("".join(left))
                return
            with self.file.open("a") as events:
                events.write(f"{line}\n")
            event = tmp_path / "events" / line.split()[0].partition(":")[2]
            event.mkdir(parents=True)
            (event / "id").write_text("1009\n")

    tracefs = Tracefs()
    monkeypatch.setattr(kretprobes, "TRACEFS", (tmp_path / "none", tmp_path))
    monkeypatch.setattr(kretprobes, "_write", tracefs.write)
    monkeypatch.setattr(perf_events, "open_tracepoint", lambda _number, _program: os.open(os.devnull, os.O_RDONLY))
    return tracefs


def test_a_probe_and_its_end(tracefs):
    """Named for this process, with room for many calls; gone when it is closed.  Others' stay."""
    fd = kretprobes.open_kretprobe("down", 7)
    (line,) = tracefs.file.read_text().splitlines()[1:]
    assert line.startswith(f"r{kretprobes.CALLS_AT_ONCE}:{OURS}/down_")
    assert line.endswith(" down")

    kretprobes.close(fd)
    assert tracefs.names == ["somebody/else"]


def test_two_of_one_function(tracefs):
    """Each has a name of its own."""
    fds = [kretprobes.open_kretprobe("down", program) for program in (7, 8)]
    assert len(set(tracefs.names)) == 3
    kretprobes.close(fds[0])
    assert len(tracefs.names) == 2
    kretprobes.close(fds[1])


def test_an_event_that_cannot_be_attached_to(tracefs, monkeypatch):
    """No name is left."""

    def refuse(_number, _program):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(perf_events, "open_tracepoint", refuse)
    with pytest.raises(OSError, match="not permitted"):
        kretprobes.open_kretprobe("down", 7)
    assert tracefs.names == ["somebody/else"]


def test_what_is_no_such_probe(tracefs):
    """Any descriptor may be closed so."""
    read, write = os.pipe()
    kretprobes.close(read)
    kretprobes.close(write)
    assert tracefs.names == ["somebody/else"]


def test_without_tracefs(tmp_path, monkeypatch):
    """The kernel says how many calls it follows."""
    monkeypatch.setattr(kretprobes, "TRACEFS", (tmp_path,))
    asked = []
    monkeypatch.setattr(perf_events, "open_kprobe", lambda *what, at_return: asked.append((*what, at_return)) or 99)
    assert kretprobes.open_kretprobe("down", 7) == 99
    assert asked == [("down", 7, True)]
    kretprobes.remove_leftovers()


def test_a_tracefs_that_is_not_ours(tracefs, monkeypatch):
    """An agent with the capabilities for perf alone, and a directory for root: as if there were none."""
    monkeypatch.setattr(kretprobes.os, "access", lambda _path, _mode: False)
    monkeypatch.setattr(perf_events, "open_kprobe", lambda *_what, at_return: 99 + at_return)
    assert kretprobes.open_kretprobe("down", 7) == 100
    kretprobes.remove_leftovers()
    assert tracefs.names == ["somebody/else"]


def test_leftovers(tracefs):
    """Of an agent that was killed, also of one that had our number; not a living one's, nor what we have now."""
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    left = (f"chainbench_{dead.pid}/down_1", f"{OURS}/up_2", f"chainbench_{os.getppid()}/up_3", "chainbench_bench/x")
    fd = kretprobes.open_kretprobe("down", 7)
    with tracefs.file.open("a") as file:
        file.writelines(f"r64:{event} down\n" for event in left)
    kretprobes.remove_leftovers()
    (ours,) = {name for name in tracefs.names if name.startswith(OURS)}

    assert tracefs.names == ["somebody/else", ours, *left[2:]]
    assert ours.startswith(f"{OURS}/down_")
    kretprobes.close(fd)


def test_a_leftover_that_is_in_use(tracefs):
    """By an agent that we cannot see: it stays, and the others go."""
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    left = [f"chainbench_{dead.pid}/{name}" for name in ("a_1", "b_2")]
    with tracefs.file.open("a") as file:
        file.writelines(f"r64:{event} down\n" for event in left)
    tracefs.busy = {left[0]}
    kretprobes.remove_leftovers()

    assert tracefs.names == ["somebody/else", left[0]]


def test_the_file_is_not_truncated(tmp_path):
    """That would remove the probes of everybody."""
    names = tmp_path / "kprobe_events"
    names.write_text("p:somebody/else vfs_read\n")
    kretprobes._write(names, "r64:a/b down")

    assert names.read_text() == "p:somebody/else vfs_read\nr64:a/b down\n"


def test_a_file_that_cannot_be_sought_in(tmp_path):
    """As tracefs's: a pipe refuses to seek as well."""
    pipe = tmp_path / "kprobe_events"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    kretprobes._write(pipe, "r64:a/b down")

    assert os.read(reader, 100) == b"r64:a/b down\n"
    os.close(reader)
