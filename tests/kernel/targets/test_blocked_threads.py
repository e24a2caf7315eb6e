"""The wait of a blocked thread, read from procfs: the same key and functions as from its stack."""

import ctypes
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from chainbench_agent.evidence.sample import OpenInterval, ProcThread, Sleeper, TaskState, Thread
from chainbench_agent.kernel.targets import blocked_threads
from chainbench_agent.kernel.targets.blocked_threads import functions, wait_key, with_functions, with_waits
from chainbench_agent.probes.wait_key import UNKNOWN_CALL, Wait

STACK = "[<0>] anon_pipe_read+0x366/0x410\n[<0>] vfs_read.part.0+0x32c/0x360\n[<0>] do_syscall_64+0x71/0x280\n"
FUTEX = 202


@pytest.fixture
def thread(tmp_path, monkeypatch):
    """`thread(state="D", syscall=…, …)` → the directory of thread 10 in a /proc with these files."""
    monkeypatch.setattr(blocked_threads, "PROC", str(tmp_path))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.1", "#1", "x86_64")))

    def of(state="S", flags=4194304, **files):
        directory = tmp_path / "10"
        directory.mkdir(exist_ok=True)
        (directory / "stat").write_text(f"10 (a) b) {state} 1 10 10 0 -1 {flags} 0 0\n")
        for name, text in files.items():
            (directory / name).write_text(text)
        return str(directory)

    return of


@pytest.mark.parametrize(
    ("files", "wait"),
    [
        ({"syscall": "202 0x7f 0x0\n"}, Wait(FUTEX)),
        ({"syscall": "202 0x7f 0x0\n", "state": "D"}, Wait(FUTEX, uninterruptible=True)),
        ({"syscall": "202 0x7f 0x0\n", "state": "T"}, Wait(FUTEX, stopped=True)),
        ({"syscall": "202 0x7f 0x0\n", "state": "t"}, Wait(FUTEX, stopped=True)),
        ({"syscall": "-1 0x7ffd 0x7f\n", "state": "D"}, Wait(None, uninterruptible=True)),
        ({"syscall": "9999 0x7f 0x0\n"}, Wait(UNKNOWN_CALL)),
        ({"syscall": "0 0x0 0x0\n", "flags": 0x00200000}, Wait(None)),
        ({"syscall": "0 0x5 0x0\n"}, Wait(0)),
        ({}, Wait(UNKNOWN_CALL)),
    ],
    ids=["call", "no signal", "stopped", "traced", "page fault", "large", "kernel thread", "no such file", "hidden"],
)
def test_the_key_has_the_call_and_the_state(thread, files, wait):
    """A kernel thread makes no call; a call that this user may not read is unknown."""
    assert Wait.of(wait_key(thread(**files))) == wait


def test_calls_of_32_bit_programs_are_marked(thread, tmp_path):
    (tmp_path / "program").write_bytes(b"\x7fELF\x01")
    directory = thread(syscall="162 0x1 0x2\n")
    Path(directory, "exe").symlink_to(tmp_path / "program")

    assert Wait.of(wait_key(directory)) == Wait(162, compat=True)


def test_the_functions_are_those_of_the_stack(thread):
    """All of the stack, without the compiler's suffixes; otherwise the one that every user may read."""
    assert functions(thread(wchan="futex_do_wait")) == ("futex_do_wait",)
    assert functions(thread(wchan="0")) == ()
    assert functions(thread(stack=STACK)) == ("anon_pipe_read", "vfs_read", "do_syscall_64")


def open_interval(state=TaskState.BLOCKED, wait=0):
    return OpenInterval(state, 5, wait, kernel_thread=False, thread=Thread(10, 10, "a", 1))


@pytest.mark.parametrize(
    ("task", "files", "known"),
    [
        (open_interval(), {"syscall": "0 0x5 0x0\n"}, True),
        (open_interval(), {"syscall": "1 0x5 0x0\n"}, False),
        (open_interval(), {"syscall": "running\n"}, False),
        (open_interval(), {}, False),
        (open_interval(TaskState.RUNNABLE), {"syscall": "0 0x5 0x0\n"}, False),
        (open_interval(wait=0xFFFFFFFF), {"syscall": "0 0x5 0x0\n"}, True),
    ],
    ids=["still there", "in another call", "running", "gone", "not blocked", "asleep since before the run"],
)
def test_functions_are_read_only_in_the_wait_at_the_end_of_the_run(thread, task, files, known):
    """Only while the thread is still in that system call."""
    thread(stack=STACK, schedstat="1 2 3\n", **files)

    (found,) = with_functions([task])
    assert found.frames == (("anon_pipe_read", "vfs_read", "do_syscall_64") if known else ())


def test_only_sleepers_have_a_wait(thread):
    """Threads that run have no wait."""
    thread(stack=STACK, syscall="202 0x5 0x0\n")
    one = Thread(10, 10, "a", 1)

    now = ProcThread(10, "a", 0, "S", 0, 0, 1)
    asleep, running = with_waits([Sleeper(one, FUTEX, "x", now), Sleeper(one, FUTEX, "", replace(now, state="R"))])

    assert (asleep.wait_key, asleep.stack[0]) == (FUTEX, "anon_pipe_read")
    assert (running.wait, running.stack) == (None, ())


def test_files_have_their_kinds():
    """For descriptors that are open in this process."""
    libc = ctypes.CDLL(None)
    (r, w), (a, b) = os.pipe(), socket.socketpair()
    master, slave = os.openpty()
    families = {"socket:inet": socket.AF_INET, "socket:inet6": socket.AF_INET6, "socket:netlink": socket.AF_NETLINK}
    with ExitStack() as opened:
        sockets = {
            kind: opened.enter_context(socket.socket(family, socket.SOCK_RAW if "netlink" in kind else -1)).fileno()
            for kind, family in families.items()
        }
        event, epoll, inotify = os.eventfd(0), libc.epoll_create1(0), libc.inotify_init()
        null, directory = os.open("/dev/null", os.O_RDONLY), os.open("/", os.O_RDONLY)
        expected = {
            "pipe": r, "socket:unix": a.fileno(), "eventfd": event, "epoll": epoll, "inotify": inotify, "tty": slave,
            "char": null, "directory": directory, "": 9999, **sockets,
        }  # fmt: skip
        kinds = {Wait.of(blocked_threads._file("/proc/self", fd) << 14).file: fd for fd in expected.values()}
    for fd in (r, w, master, slave, event, epoll, inotify, null, directory):
        os.close(fd)
    a.close()
    b.close()

    assert kinds == expected


def test_a_waiting_thread_of_this_kernel_has_its_call():
    """It reads a pipe.  The kernel shows root its stack, and every user its system call."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        while Path(f"/proc/{child.pid}/syscall").read_text().startswith("running"):
            pass
        wait = Wait.of(wait_key(f"/proc/{child.pid}"))
        child.stdin.write(b"\n")

    assert wait.file == "pipe"
