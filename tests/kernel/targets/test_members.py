"""The processes and threads in a cgroup, and whether a process has ended."""

import errno

from chainbench_agent.kernel.targets import members
from chainbench_agent.kernel.targets.members import born_ticks, has_ended, ids_in_cgroup, processes_of_cgroup


def group(directory, **files):
    """A cgroup with these files."""
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / f"cgroup.{name}").write_text(text)
    return directory


def test_the_ids_in_a_cgroup_are_those_of_all_below_as_well(tmp_path):
    top = group(tmp_path / "a", procs="10\n11\n", threads="10\n11\n13\n")
    group(top / "b", procs="12\n", threads="12\n")
    group(tmp_path / "other", procs="20\n", threads="20\n")

    assert ids_in_cgroup(top, "cgroup.procs") == {10, 11, 12}
    assert ids_in_cgroup(top, "cgroup.threads") == {10, 11, 12, 13}
    assert ids_in_cgroup(tmp_path / "removed", "cgroup.procs") == set()


def test_the_processes_of_a_threaded_cgroup_are_those_of_its_threads(tmp_path, proc, monkeypatch):
    """The kernel lists no processes there."""
    top = group(tmp_path / "svc", procs="", threads="11\n12\n31\n99\n")
    group(top / "below", procs="40\n", threads="")
    for thread, process in ((11, 10), (12, 10), (31, 30)):
        (proc.path / str(thread)).mkdir()
        (proc.path / str(thread) / "status").write_text(f"Name:\tx\nTgid:\t{process}\n")

    def refuse(path):
        if path == top / "cgroup.procs":
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return set(map(int, path.read_bytes().split()))

    monkeypatch.setattr(members, "_numbers", refuse)

    assert processes_of_cgroup(top) == {10, 30, 40}


def test_a_process_has_ended_when_none_of_its_threads_lives(proc):
    """12 is a leader that ended before its thread 13; 99 was never there."""
    proc.add(10, 1)
    for pid in (11, 12):
        proc.add(pid, 10, state="Z")
        proc.thread(pid, pid, state="Z")
    proc.thread(12, 13)

    assert [has_ended(pid) for pid in (10, 11, 12, 99)] == [False, True, False, True]


def test_a_process_that_is_gone_was_born_at_no_time(proc):
    proc.add(10, 1, start_ticks=77)

    assert (born_ticks(10), born_ticks(99)) == (77, 0)
