"""Kretprobes, and their definitions in tracefs."""

import errno
import os
import subprocess

import pytest

from chainbench_agent.bpf import kretprobes, perf_events

OURS = f"chainbench_{os.getpid()}"


@pytest.fixture
def tracefs(tmp_path, monkeypatch):
    """A directory that behaves as tracefs: definitions are added and removed, and others remain."""

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


def test_closing_a_probe_removes_its_definition(tracefs):
    """It has the agent's pid and the number of calls.  Other definitions remain."""
    fd = kretprobes.open_kretprobe("down", 7)
    (line,) = tracefs.file.read_text().splitlines()[1:]
    assert line.startswith(f"r{kretprobes.CALLS_AT_ONCE}:{OURS}/down_")
    assert line.endswith(" down")

    kretprobes.close(fd)
    assert tracefs.names == ["somebody/else"]


def test_two_probes_of_a_function_have_different_names(tracefs):
    fds = [kretprobes.open_kretprobe("down", program) for program in (7, 8)]
    assert len(set(tracefs.names)) == 3
    kretprobes.close(fds[0])
    assert len(tracefs.names) == 2
    kretprobes.close(fds[1])


def test_a_failed_attachment_removes_the_definition(tracefs, monkeypatch):

    def refuse(_number, _program):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(perf_events, "open_tracepoint", refuse)
    with pytest.raises(OSError, match="not permitted"):
        kretprobes.open_kretprobe("down", 7)
    assert tracefs.names == ["somebody/else"]


def test_any_descriptor_can_be_closed(tracefs):
    read, write = os.pipe()
    kretprobes.close(read)
    kretprobes.close(write)
    assert tracefs.names == ["somebody/else"]


def test_without_tracefs_the_kernel_chooses_the_number_of_calls(tmp_path, monkeypatch):
    monkeypatch.setattr(kretprobes, "TRACEFS", (tmp_path,))
    asked = []
    monkeypatch.setattr(perf_events, "open_kprobe", lambda *what, at_return: asked.append((*what, at_return)) or 99)
    assert kretprobes.open_kretprobe("down", 7) == 99
    assert asked == [("down", 7, True)]
    kretprobes.remove_leftovers()


def test_a_tracefs_that_is_not_writable_is_not_used(tracefs, monkeypatch):
    """As for an agent with only the capabilities for perf, and a directory for root."""
    monkeypatch.setattr(kretprobes.os, "access", lambda _path, _mode: False)
    monkeypatch.setattr(perf_events, "open_kprobe", lambda *_what, at_return: 99 + at_return)
    assert kretprobes.open_kretprobe("down", 7) == 100
    kretprobes.remove_leftovers()
    assert tracefs.names == ["somebody/else"]


def test_definitions_of_ended_agents_are_removed(tracefs):
    """Also those of an agent that had our pid, but not those of living agents, nor our present ones."""
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


def test_a_definition_in_use_remains_and_others_are_removed(tracefs):
    """An agent that we cannot see uses it."""
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    left = [f"chainbench_{dead.pid}/{name}" for name in ("a_1", "b_2")]
    with tracefs.file.open("a") as file:
        file.writelines(f"r64:{event} down\n" for event in left)
    tracefs.busy = {left[0]}
    kretprobes.remove_leftovers()

    assert tracefs.names == ["somebody/else", left[0]]


def test_the_file_is_not_truncated(tmp_path):
    """Truncating would remove the probes of all programs."""
    names = tmp_path / "kprobe_events"
    names.write_text("p:somebody/else vfs_read\n")
    kretprobes._write(names, "r64:a/b down")

    assert names.read_text() == "p:somebody/else vfs_read\nr64:a/b down\n"


def test_the_file_is_written_without_seeking(tmp_path):
    """Like tracefs, a pipe refuses to seek."""
    pipe = tmp_path / "kprobe_events"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    kretprobes._write(pipe, "r64:a/b down")

    assert os.read(reader, 100) == b"r64:a/b down\n"
    os.close(reader)
