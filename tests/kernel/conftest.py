"""A /proc that tests fill."""

import shutil

import pytest

from chainbench_agent.kernel.targets import members, process_tree

RANDOMIZED = 0x400000
"""PF_RANDOMIZE: the kernel draws the addresses of a program at random."""


def stat_line(pid, command, state, parent, session, flags, start_ticks=0, stack=0, heap=0):  # noqa: PLR0913, PLR0917
    """A line of `stat`, with the fields that the agent reads."""
    fields = [state, parent, pid, session, 0, -1, flags, *[0] * 12, start_ticks, *[0] * 5, stack, *[0] * 18, heap]
    return f"{pid} ({command}) {' '.join(map(str, fields))}\n"


class Proc:
    """`add(pid, parent)` makes a process, `thread(pid, tid)` a thread of it."""

    def __init__(self, path):
        self.path = path
        (path / "self").mkdir()
        (path / "stat").write_text("cpu 1 2 3\n")

    def add(self, pid, parent, command="sh", **more):
        defaults = {"state": "S", "session": pid, "flags": RANDOMIZED, "start_ticks": 100, "stack": 0, "heap": 5}
        cgroup = more.pop("cgroup", b"0::/\n")
        directory = self.path / str(pid)
        (directory / "task").mkdir(parents=True)
        (directory / "stat").write_text(stat_line(pid, command, parent=parent, **defaults | more))
        (directory / "cgroup").write_bytes(cgroup)

    def remove(self, pid):
        shutil.rmtree(self.path / str(pid))

    def thread(self, pid, tid, command="worker", **files):
        """`files`: names and contents of the others in its directory."""
        task = self.path / str(pid) / "task" / str(tid)
        task.mkdir()
        state, flags = files.pop("state", "S"), files.pop("flags", RANDOMIZED)
        (task / "stat").write_text(stat_line(tid, command, state, 1, pid, flags, files.pop("start_ticks", 1)))
        for name, text in files.items():
            (task / name).write_text(text)


@pytest.fixture
def proc(tmp_path, monkeypatch):
    (tmp_path / "proc").mkdir()
    for module in (members, process_tree):
        monkeypatch.setattr(module, "PROC", tmp_path / "proc")
    return Proc(tmp_path / "proc")
