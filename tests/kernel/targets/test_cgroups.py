"""The cgroup that a runner means by a path, found in a /proc that the tests fill."""

import os

import pytest

from chainbench_agent.errors import InputError
from chainbench_agent.evidence.model import Target
from chainbench_agent.host import pid_namespaces
from chainbench_agent.host.pid_namespaces import client_process
from chainbench_agent.kernel.targets import cgroups, members
from chainbench_agent.kernel.targets.kernel_target import resolve

OURS, THEIRS, OTHERS = "cgroup:[1]", "cgroup:[2]", "cgroup:[3]"
CALLER = 100
"""A runner at a unix socket: its pid is known."""


class Machine:
    """A hierarchy with /docker/a/svc, /docker/b/svc, /svc and /only; `add` makes a process in it."""

    def __init__(self, path):
        self.proc, self.mount = path / "proc", path / "cgroup"
        for group in ("", "docker", "docker/a", "docker/a/svc", "docker/b", "docker/b/svc", "svc", "only"):
            (self.mount / group).mkdir(parents=True)
            (self.mount / group / "cgroup.procs").touch()
        self.inside = {}
        self.add("self", "/agent")

    def add(self, pid, path, space=OURS, *, root="/", where=None, command="runner"):  # noqa: PLR0913
        """`where`: its mount point of the hierarchy, which shows what is below `root`; as it is seen from here."""
        directory = self.proc / str(pid)
        (directory / "ns").mkdir(parents=True)
        (directory / "ns/cgroup").symlink_to(space)
        (directory / "comm").write_text(f"{command}\n")
        (directory / "cgroup").write_text(f"1:cpu:/x\n0::{path}\n")
        mount = f"6 1 0:6 {root} {where or self.mount} rw - cgroup2 cgroup2 rw\n"
        (directory / "mountinfo").write_text("5 1 0:5 / /sys/x rw - cgroup cgroup rw,cpu\n" + mount)

    def seen_from(self, client, processes):
        """The client's namespace is entered, if the test has said what is seen there."""
        del client
        return [(pid, self.inside[pid]) for pid in processes if pid in self.inside]

    def asked(self, path, caller=CALLER):
        found = resolve(Target(kind="cgroup", cgroup=path), client_process(caller))
        return found.directory.relative_to(self.mount).as_posix(), found.path

    def refused(self, path, caller=CALLER):
        """The error with which a path is refused."""
        with pytest.raises(InputError) as caught:
            self.asked(path, caller)
        assert caught.value.field == "cgroup"
        return caught.value


@pytest.fixture
def machine(tmp_path, monkeypatch):
    machine = Machine(tmp_path)
    for module in (cgroups, pid_namespaces, members):
        monkeypatch.setattr(module, "PROC", machine.proc)
    monkeypatch.setattr(cgroups, "_seen_from", machine.seen_from)
    return machine


def test_a_runner_next_to_the_agent_uses_the_same_paths(machine):
    """Also where a container has a cgroup with the same path."""
    machine.add(CALLER, "/user")
    machine.add(200, "/docker/a", THEIRS)

    assert machine.asked("/svc") == ("svc", "")
    assert machine.asked("/") == (".", "")
    assert machine.asked(f"{machine.mount}/docker/a") == ("docker/a", "")


@pytest.mark.parametrize(
    ("path", "directory"),
    [("/", "docker/a"), ("/svc", "docker/a/svc"), ("svc/", "docker/a/svc"), ("/../b", "docker/b")],
)
def test_a_runner_in_a_container_means_a_path_of_its_own_namespace(machine, path, directory):
    """The evidence has the path in the agent's namespace."""
    machine.add(CALLER, "/docker/a/svc", THEIRS)
    machine.inside[CALLER] = ("svc",)

    assert machine.asked(path) == (directory, f"/{directory}")


def test_a_runner_that_was_moved_out_of_its_namespace_is_located_by_another_process_in_it(machine):
    machine.add(CALLER, "/svc", THEIRS)
    machine.add(200, "/docker/b/svc", OTHERS)
    machine.add(201, "/docker/a", THEIRS)
    machine.inside = {CALLER: ("..", "..", "svc"), 201: ()}

    assert machine.asked("/svc") == ("docker/a/svc", "/docker/a/svc")


def test_a_path_below_the_runners_mount_point_is_unambiguous(machine):
    """Whatever cgroup namespace the runner is in."""
    machine.add(CALLER, "/docker/a", THEIRS, root="/docker/a", where="/mnt/cgroup")

    assert machine.asked("/mnt/cgroup/svc") == ("docker/a/svc", "/docker/a/svc")
    assert machine.asked("/mnt/cgroup") == ("docker/a", "/docker/a")


def test_a_path_in_a_namespace_that_may_not_be_entered_is_refused_if_it_is_ambiguous(machine):
    machine.add(CALLER, "/docker/a", THEIRS)

    assert machine.asked("/only") == ("only", "")
    for path, count in (("/", 3), ("/svc", 2)):
        error = machine.refused(path)
        assert error.remedy == cgroups.AMBIGUOUS_CGROUP_REMEDY
        assert f"{count} cgroups" in error.sentence


@pytest.mark.parametrize("caller", [None, 101], ids=["unknown", "a relay"])
def test_a_path_of_an_unknown_runner_is_refused_if_a_container_could_mean_another_cgroup(machine, caller):
    machine.add(101, "/", command="docker-proxy")
    assert machine.asked("/svc", caller) == ("svc", "")
    assert machine.asked("/", caller) == (".", "")
    machine.add(200, "/docker/b", THEIRS)

    assert machine.asked("/only", caller) == ("only", "")
    for path in ("/", "/svc", f"{machine.mount}/svc"):
        assert machine.refused(path, caller).remedy == cgroups.AMBIGUOUS_CGROUP_REMEDY


@pytest.mark.parametrize("path", ["/nothing", "/../..", "/../../../x"])
def test_a_path_above_the_runners_namespace_is_refused_if_there_is_no_such_cgroup(machine, path):
    machine.add(CALLER, "/docker/a", THEIRS)
    machine.inside[CALLER] = ()
    if path == "/../..":
        assert machine.asked(path) == (".", "/")
        return
    assert machine.refused(path).remedy == cgroups.NO_CGROUP_REMEDY


def test_a_cgroup_is_found_by_its_escaped_and_by_its_real_name(machine):
    """The agent escapes bytes that are not UTF-8; systemd's names contain such escapes themselves."""
    odd = machine.mount / os.fsdecode(b"caf\xe9")
    for group in (odd, machine.mount / r"dev\x2ddisk"):
        group.mkdir()
        (group / "cgroup.procs").touch()
    machine.add(CALLER, "/")

    assert machine.asked(r"/caf\xe9")[0] == os.fsdecode(b"caf\xe9")
    assert machine.asked(r"/dev\x2ddisk")[0] == r"dev\x2ddisk"


def test_levels_count_from_the_root_of_the_agents_namespace(machine):
    """Also where its mount shows more than that, or less."""
    machine.add(CALLER, "/")
    assert resolve(Target(kind="cgroup", cgroup="/docker/a"), CALLER).cgroup_level == 2
    own = machine.proc / "self/mountinfo"
    own.write_text(f"6 1 0:6 /docker {machine.mount}/docker rw - cgroup2 cgroup2 rw\n")
    found = resolve(Target(kind="cgroup", cgroup=f"{machine.mount}/docker/a"), None)
    assert (found.directory, found.cgroup_level) == (machine.mount / "docker/a", 2)
    own.write_text(f"6 1 0:6 /../.. {machine.mount} rw - cgroup2 cgroup2 rw\n")
    assert resolve(Target(kind="cgroup", cgroup=f"{machine.mount}/docker/a"), None).cgroup_level == 0

    (machine.proc / "self/cgroup").write_text("0::/a/b\n")
    assert cgroups.own_level() == 2
    (machine.proc / "self/cgroup").write_text("0::/../c\n")
    assert cgroups.own_level() == 0
