"""A /proc of our own making."""

import pytest

from chainbench_agent.kernel.targets import members, process_tree

REST = "0 " * 44
"""Of a line of `stat`."""


class Proc:
    """`add(pid, parent)` makes a process, `thread(pid, tid)` a thread of it."""

    def __init__(self, path):
        self.path = path
        (path / "self").mkdir()
        (path / "stat").write_text("cpu 1 2 3\n")

    def add(self, pid, parent, command="sh"):
        (self.path / str(pid) / "task").mkdir(parents=True)
        (self.path / str(pid) / "stat").write_text(f"{pid} ({command}) S {parent} {pid} {pid} 0 -1 4194304 {REST}\n")

    def remove(self, pid):
        (self.path / str(pid) / "stat").unlink()
        (self.path / str(pid) / "task").rmdir()
        (self.path / str(pid)).rmdir()

    def thread(self, pid, tid, command="worker", **files):
        task = self.path / str(pid) / "task" / str(tid)
        task.mkdir()
        state, flags = files.pop("state", "S"), files.pop("flags", "4194304")
        start = files.pop("start_ticks", 1)
        others = " ".join(["0"] * 12)
        (task / "stat").write_text(f"{tid} ({command}) {state} 1 {pid} {pid} 0 -1 {flags} {others} {start} {REST}\n")
        for name, text in files.items():
            (task / name).write_text(text)


@pytest.fixture
def proc(tmp_path, monkeypatch):
    (tmp_path / "proc").mkdir()
    for module in (members, process_tree):
        monkeypatch.setattr(module, "PROC", tmp_path / "proc")
    return Proc(tmp_path / "proc")
