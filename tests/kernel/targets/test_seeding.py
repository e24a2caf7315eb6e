"""The processes of a tree that the kernel side gets when a run begins."""

from chainbench_agent.kernel.targets.kernel_target import KernelTarget, TargetKind
from chainbench_agent.kernel.targets.seeding import seed_tree

TREE = KernelTarget(TargetKind.TREE, root=10, born_ticks=100)


def seeded(begin=TREE, on_add=lambda _pid: None):
    """(how many, the members in the end, all that ever were added)."""
    members, ever = set(), []

    def add(pid):
        members.add(pid)
        ever.append(pid)
        on_add(pid)

    return seed_tree(begin, add, members.discard), members, ever


def test_all_processes_of_the_tree_are_added(proc):
    """Each process of it is added once."""
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1)):
        proc.add(pid, parent)

    count, members, ever = seeded()

    assert (count, members, sorted(ever)) == (3, {10, 11, 12}, [10, 11, 12])


def test_processes_forked_during_the_search_are_found(proc):
    """A process forks before it is a member: each pass over /proc finds another generation."""
    proc.add(10, 1)

    def fork(pid):
        if pid < 15:
            proc.add(pid + 1, pid)

    count, members, ever = seeded(on_add=fork)

    assert (count, members, ever) == (6, {*range(10, 16)}, [*range(10, 16)])


def test_processes_that_end_during_the_search_are_removed(proc):
    """The kernel side did not see it leave: it was not a member, or not yet."""
    for pid in (11, 12, 13):
        proc.add(pid, 10)
    proc.add(10, 1)
    ended = {12, 13}

    def end(pid):
        if pid in ended:
            proc.remove(pid)

    count, members, ever = seeded(on_add=end)

    assert (count, members, sorted(ever)) == (2, {10, 11}, [10, 11, 12, 13])


def test_zombies_are_no_members(proc):
    """No hook sees them leave, so a run would wait for them; a dead leader with live threads is a member."""
    proc.add(10, 1)
    for pid in (11, 12):
        proc.add(pid, 10, state="Z")
        proc.thread(pid, pid, state="Z")
    proc.thread(12, 13)

    count, members, _ = seeded()

    assert (count, members) == (2, {10, 12})


def test_a_tree_that_has_ended_has_no_members(proc):
    """Nothing is added, and the search ends."""
    del proc

    assert seeded() == (0, set(), [])
