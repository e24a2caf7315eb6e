"""Targets: what a request resolves to, and the processes in it."""

import os
import subprocess

import pytest

from chainbench_agent.errors import InputError
from chainbench_agent.evidence.model import Target
from chainbench_agent.kernel.targets import cgroups as cgroups_module
from chainbench_agent.kernel.targets import kernel_target, members
from chainbench_agent.kernel.targets.kernel_target import KernelTarget, TargetKind, resolve
from chainbench_agent.kernel.targets.members import has_ended


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """A hierarchy with /a, /a/b and /c; the answer is where it is mounted."""
    mount = tmp_path / "cgroup"
    for group, processes in (("", "1\n"), ("a", "10\n11\n"), ("a/b", "12\n"), ("c", "")):
        (mount / group).mkdir(exist_ok=True)
        (mount / group / "cgroup.procs").write_text(processes)
    proc = tmp_path / "cgroup-proc"
    (proc / "self").mkdir(parents=True)
    lines = ("4 1 0:4 / /proc rw - proc proc rw", "5 1 0:5 / /sys/x rw - cgroup cgroup rw,cpu")
    (proc / "self/mountinfo").write_text("\n".join((*lines, f"6 1 0:6 / {mount} rw - cgroup2 cgroup2 rw", "")))
    monkeypatch.setattr(cgroups_module, "PROC", proc)
    return mount


def test_the_whole_machine_is_a_target_without_a_list_of_processes():
    assert resolve(Target()) == KernelTarget(TargetKind.MACHINE)
    assert KernelTarget().processes() == set()


def test_a_pid_is_what_the_caller_means(monkeypatch, proc):
    asked = []
    monkeypatch.setattr(kernel_target, "local_pid", lambda pid, caller: asked.append((pid, caller)) or 70)
    proc.add(70, 1)
    proc.add(71, 70)
    (members.PROC / "70/status").write_text("Name:\tsh\nTgid:\t70\n")
    (members.PROC / "71/status").write_text("Name:\tsh\nTgid:\t70\n")

    found = resolve(Target(kind="pid", pid=7), 90)

    assert asked == [(7, 90)]
    assert (found.kind, found.root, found.processes()) == (TargetKind.TREE, 70, {70, 71})
    monkeypatch.setattr(kernel_target, "local_pid", lambda _pid, _caller: 71)
    with pytest.raises(InputError) as caught:
        resolve(Target(kind="pid", pid=7))
    assert caught.value.field == "pid"
    assert "its process, 70" in caught.value.remedy


# --- Cgroups --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "group", "level"), [("/a", "a", 1), ("a", "a", 1), ("/a/b/", "a/b", 2), ("/a/../c", "c", 1), ("/", "", 0)]
)
def test_a_cgroup_is_found_by_its_path(cgroups, path, group, level):
    """In the hierarchy, or in the file system.  Its id is its inode, its level its depth."""
    found = resolve(Target(kind="cgroup", cgroup=path))

    directory = cgroups / group
    number = directory.stat().st_ino
    assert found == KernelTarget(TargetKind.CGROUP, directory=directory, cgroup_id=number, cgroup_level=level)
    assert resolve(Target(kind="cgroup", cgroup=str(directory))) == found


@pytest.mark.parametrize("path", ["/x", "/a/x", "/..", "/../etc", "/a/../../proc", "/a/cgroup.procs", "/nothing"])
def test_a_path_without_a_cgroup_is_refused(cgroups, path):
    """Also a path that leaves the hierarchy; the error names both paths."""
    (cgroups / "nothing").mkdir()

    with pytest.raises(InputError) as caught:
        resolve(Target(kind="cgroup", cgroup=path))
    assert (caught.value.field, caught.value.remedy) == ("cgroup", cgroups_module.NO_CGROUP_REMEDY)
    assert path in str(caught.value)
    assert str(cgroups) in str(caught.value)


@pytest.mark.usefixtures("cgroups")
def test_a_machine_without_cgroup_v2_refuses_a_cgroup():
    (cgroups_module.PROC / "self/mountinfo").write_text("5 1 0:5 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n")

    with pytest.raises(InputError) as caught:
        resolve(Target(kind="cgroup", cgroup="/a"))
    assert caught.value.remedy == cgroups_module.NO_HIERARCHY_REMEDY


def test_a_cgroup_contains_the_processes_of_all_below_it(cgroups):
    """A removed cgroup contains nothing."""
    found = resolve(Target(kind="cgroup", cgroup="/a"))
    assert found.processes() == {10, 11, 12}
    (cgroups / "a/cgroup.threads").write_text("10\n11\n13\n")
    (cgroups / "a/b/cgroup.threads").write_text("12\n")
    assert found.threads() == {10, 11, 12, 13}
    for file in ("a/b/cgroup.threads", "a/cgroup.threads"):
        (cgroups / file).unlink()

    for file in ("a/b/cgroup.procs", "a/cgroup.procs"):
        (cgroups / file).unlink()
    (cgroups / "a/b").rmdir()
    (cgroups / "a").rmdir()
    assert found.processes() == found.threads() == set()


def test_a_cgroup_that_is_made_again_is_not_the_target(cgroups):
    """It is another cgroup with the same name, so the target has ended."""
    found = resolve(Target(kind="cgroup", cgroup="/a"))
    (cgroups / "a").rename(cgroups / "before")
    (cgroups / "a").mkdir()
    (cgroups / "a/cgroup.procs").write_text("20\n")
    (cgroups / "a/cgroup.threads").write_text("20\n")

    assert found.processes() == found.threads() == set()
    assert resolve(Target(kind="cgroup", cgroup="/a")).processes() == {20}


# --- This machine ---------------------------------------------------------------------------------


def test_processes_of_this_machine_are_in_their_trees():
    """A child of ours is in our tree; a zombie is refused."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        child.stdin.write(b"x")
        child.stdin.flush()
        tree = resolve(Target(kind="pid", pid=os.getpid()))
        assert {os.getpid(), child.pid} <= tree.processes()
        assert resolve(Target(kind="pid", pid=child.pid)).processes() == {child.pid}
        child.stdin.close()

    assert not KernelTarget(TargetKind.TREE, root=child.pid).processes()
    zombie = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(InputError, match="zombie"):
        resolve(Target(kind="pid", pid=zombie.pid))
    assert has_ended(zombie.pid)
    zombie.wait()
    assert has_ended(zombie.pid)
