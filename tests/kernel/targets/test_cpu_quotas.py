"""CPU quotas of cgroups, in file systems that the tests fill."""

import pytest

from chainbench_agent.kernel.targets import cpu_quotas

V1 = "34 25 0:30 {root} {at} rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHER_V1 = "33 25 0:29 / {at}/memory rw - cgroup cgroup rw,memory"
CPUSET = "32 25 0:28 / {at}/cpuset rw - cgroup cgroup rw,cpuset"
V2 = "35 25 0:31 {root} {at} rw shared:9 - cgroup2 cgroup2 rw,nsdelegate"


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A /proc that the test fills."""
    directory = tmp_path / "proc"
    (directory / "self").mkdir(parents=True)
    monkeypatch.setattr(cpu_quotas, "PROC", directory)
    monkeypatch.setattr(cpu_quotas, "MOUNTS", directory / "self/mountinfo")
    return directory


@pytest.fixture
def mounted(proc, tmp_path):
    """`mounted(line…)` has these mounts; `root`: the cgroup that is the root of the mount."""

    def mount(*lines, root="/"):
        text = "".join(f"{line.format(root=root, at=tmp_path / 'cg')}\n" for line in lines)
        (proc / "self/mountinfo").write_text(text)

    return mount


@pytest.fixture
def group(tmp_path):
    """`group("a/b", "nr_throttled 3")` makes a cgroup and returns its id."""

    def make(path, *lines):
        directory = tmp_path / "cg" / path
        directory.mkdir(parents=True, exist_ok=True)
        if lines:
            (directory / "cpu.stat").write_text("".join(f"{line}\n" for line in lines))
        return directory.stat().st_ino

    return make


@pytest.fixture
def process(proc):
    """`process(7, "0::/a")` is a process with this in its file `cgroup`."""

    def make(pid, *lines):
        (proc / str(pid)).mkdir()
        (proc / str(pid) / "cgroup").write_bytes(b"".join(line + b"\n" for line in lines))
        return pid

    return make


def test_throttled_groups_of_v2_are_found_at_any_depth(group, mounted):
    """Microseconds become nanoseconds; groups that were never throttled are left out."""
    mounted(V2)
    group(".", "usage_usec 99", "user_usec 90", "system_usec 9")
    deep = group("a/b/c", "usage_usec 9", "nr_periods 70", "nr_throttled 3", "throttled_usec 2500", "nr_bursts 0")
    group("a", "usage_usec 9", "nr_periods 70", "nr_throttled 0", "throttled_usec 0")
    group("a/b")

    assert cpu_quotas.throttled_groups() == {deep: (3, 2_500_000)}


def test_throttled_groups_of_v1_have_nanoseconds(group, mounted):
    mounted(V1)
    limited = group("docker/1", "nr_periods 70", "nr_throttled 5", "throttled_time 123456789")

    assert cpu_quotas.throttled_groups() == {limited: (5, 123_456_789)}


def test_a_group_that_is_removed_meanwhile_is_ignored(group, mounted, monkeypatch):
    mounted(V2)
    gone, stays = group("gone", "nr_throttled 1"), group("stays", "nr_throttled 2")
    walk = cpu_quotas._cpu_stats

    def removed_after_listing(root):
        for stat in list(walk(root)):
            if stat.parent.name == "gone":
                stat.unlink()
            yield stat

    monkeypatch.setattr(cpu_quotas, "_cpu_stats", removed_after_listing)

    found = cpu_quotas.throttled_groups()
    assert gone not in found
    assert found == {stays: (2, 0)}


@pytest.mark.parametrize("lines", [(), (OTHER_V1, CPUSET)], ids=["no cgroups", "none with the controller"])
def test_without_the_cpu_controller_nothing_is_throttled(mounted, process, lines):
    """And no quota applies."""
    mounted(*lines)

    assert cpu_quotas.throttled_groups() == {}
    assert cpu_quotas.groups_above([process(7, b"0::/a")]) == frozenset()


@pytest.mark.parametrize(("mounts", "mount"), [((V2,), V2), ((V2, OTHER_V1, CPUSET, V1), V1)], ids=["v2", "hybrid"])
def test_v1_comes_first_if_it_has_the_cpu_controller(mounted, tmp_path, mounts, mount):
    """Then v2 does not have it."""
    mounted(*(line.replace("{at}", "/elsewhere") if line != mount else line for line in mounts))

    assert cpu_quotas.cpu_mount() == ("/", tmp_path / "cg")


def test_groups_above_a_process(mounted, group, process):
    """Its own group and each above, up to the root, but not those next to them."""
    mounted(V2)
    group("pod/other")
    above = {group(path) for path in (".", "pod", "pod/container")}

    assert cpu_quotas.groups_above([process(7, b"0::/pod/container")]) == above


def test_groups_of_v1_are_in_the_hierarchy_of_the_cpu_controller(mounted, group, process):
    """Wherever the process is in others."""
    mounted(OTHER_V1, V1)
    group("wrong")
    above = {group(path) for path in (".", "a:b \N{SNOWMAN}")}
    lines = (b"3:memory:/wrong", b"2:cpuset:/wrong", "1:cpu,cpuacct:/a:b \N{SNOWMAN}".encode(), b"0::/wrong")

    assert cpu_quotas.groups_above([process(7, *lines)]) == above


def test_groups_above_the_mount_are_not_found(mounted, group, process):
    """In a container the mount begins at its own cgroup, and a process outside has no groups there."""
    mounted(V2, root="/docker/1")
    above = {group("."), group("inner")}
    inside = process(7, b"0::/docker/1/inner")
    outside = process(8, b"0::/docker/2")
    hidden = process(9, b"0::/../2")

    assert cpu_quotas.groups_above([inside]) == above
    assert cpu_quotas.groups_above([outside, hidden]) == frozenset()


def test_a_process_outside_of_the_cgroup_namespace(mounted, group, process, tmp_path):
    """A group next to the root of the namespace is not below the mount, though a directory may have its name."""
    mounted(V2)
    group(".")
    (tmp_path / "sibling").mkdir()

    assert cpu_quotas.groups_above([process(7, b"0::/../sibling")]) == frozenset()


def test_a_process_that_has_ended_has_no_groups(mounted, group, process):
    """The groups of the others are found, also if one was removed."""
    mounted(V2)
    root = group(".")

    assert cpu_quotas.groups_above([12345, process(7, b"0::/removed (deleted)")]) == {root}
