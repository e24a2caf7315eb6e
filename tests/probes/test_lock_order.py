"""The order in which threads take mutexes (probes/locks.h), and what is a violation (probes/lock_order.py)."""

import ctypes
import struct

import pytest
from user_space import AGENT

from chainbench_agent.catalog import Names
from chainbench_agent.probes.lock_order import (
    LISTED,
    Edge,
    Mutex,
    edges_of,
    listed,
    shown,
    split,
    violations,
)
from chainbench_agent.probes.locks import derive

A, B, C, D = 0x1000, 0x2000, 0x3000, 0x4000
KERNEL = 0xFFFF888000001000
EBUSY, EDEADLK, EOWNERDEAD = 16, 35, 130
DEPTH = 8
NO_NAMES = Names({}, {}, {}, {})


class Pthreads:
    """Threads that call a C library, which answers at once."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.calls = 0x400

    def call(self, hook, task, *arguments):
        self.kernel.set("shim_called_at", ctypes.c_uint64, self.calls)
        self.kernel.fire(f"{hook}_0", *arguments, current=task)

    def answers(self, task, answer=0):
        self.call("pthread_answers", task, answer)

    def lock(self, task, *mutexes, answer=0):
        for mutex in mutexes:
            self.call("pthread_wants", task, mutex)
            self.answers(task, answer)

    def trylock(self, task, mutex, answer=0):
        self.call("pthread_tries", task, mutex)
        self.answers(task, answer)

    def unlock(self, task, *mutexes):
        for mutex in mutexes:
            self.call("pthread_unlocks", task, mutex)

    def nest(self, task, *mutexes):
        """Lock them in this order, and unlock them in the other."""
        self.lock(task, *mutexes)
        self.unlock(task, *reversed(mutexes))

    @property
    def edges(self):
        return edges_of(self.kernel.counted()["locks"]["edges"])

    def order(self):
        """(held, wanted) by address."""
        return {(edge.held.address, edge.wanted.address) for edge in self.edges}

    def violations(self):
        """The mutexes of each violation, by address, as the evidence has them."""
        found = derive(self.kernel.counted()["locks"], NO_NAMES)
        cycles = [[edge["held"] for edge in cycle["edges"]] for cycle in found["lock_order_cycles"]]
        assert found["lock_order_violations"] == len(cycles)
        return [[int(address, 16) for address in cycle] for cycle in cycles]


@pytest.fixture
def pthreads(kernel):
    kernel.at(1000).tree(10).begin()
    return Pthreads(kernel)


@pytest.fixture
def one(kernel):
    return kernel.task(11, tgid=10)


@pytest.fixture
def two(kernel):
    return kernel.task(12, tgid=10)


def test_two_orders(pthreads, one, two):
    """Reported although they never met, with where each mutex was requested and where the other was taken."""
    pthreads.calls = 0x41
    pthreads.nest(one, A, B)
    pthreads.kernel.at(2000)
    pthreads.calls = 0x42
    pthreads.nest(two, B, A)

    assert pthreads.violations() == [[A, B]]
    first, second = pthreads.edges
    assert (first.first_ns, first.tid, first.held_at, first.wanted_at) == (1000, 11, 0x41, 0x41)
    assert (second.first_ns, second.tid, second.held_at, second.wanted_at) == (2000, 12, 0x42, 0x42)
    assert pthreads.kernel.lost() == {}


def test_one_order(pthreads, one, two):
    """Locks nested at any depth, by several threads and again, have one order and no violation."""
    for task in (one, two, one):
        pthreads.nest(task, A, B, C)
        pthreads.nest(task, A, C)
        pthreads.nest(task, C)

    assert pthreads.order() == {(A, B), (B, C), (A, C)}
    assert pthreads.violations() == []
    assert pthreads.kernel.counted()["locks"]["pthread_mutex_locks"] == 3 * 6


def test_one_after_the_other(pthreads, one, two):
    """Nothing was held meanwhile."""
    for task, mutexes in ((one, (A, B)), (two, (B, A))):
        for mutex in mutexes:
            pthreads.nest(task, mutex)

    assert pthreads.edges == []


def test_unlocked_in_another_order(pthreads, one):
    """All that were not unlocked are still held."""
    pthreads.lock(one, A, B, C)
    pthreads.unlock(one, A)
    pthreads.lock(one, D)

    assert pthreads.order() == {(A, B), (A, C), (B, C), (B, D), (C, D)}


def test_only_one_thread(pthreads, one, two):
    """It cannot be caught; as soon as another one does one of the two it may be."""
    pthreads.nest(one, A, B)
    pthreads.nest(one, B, A)
    assert pthreads.violations() == []

    pthreads.nest(two, B, A)
    assert pthreads.violations() == [[A, B]]


def test_a_circle_of_three(pthreads, kernel, one, two):
    """No two mutexes are taken in two orders."""
    three = kernel.task(13, tgid=10)
    for task, mutexes in ((one, (A, B)), (two, (B, C)), (three, (C, A))):
        kernel.at(kernel.now_ns + 1)
        pthreads.nest(task, *mutexes)

    assert pthreads.violations() == [[A, B, C]]


def test_a_deadlock_that_comes_about(pthreads, one, two):
    """Neither call returns."""
    pthreads.lock(one, A)
    pthreads.lock(two, B)
    pthreads.call("pthread_wants", one, B)
    pthreads.call("pthread_wants", two, A)

    assert pthreads.violations() == [[A, B]]


def test_a_recursive_mutex(pthreads, one, two):
    """To lock it again waits for nothing; it is held until it was unlocked as often."""
    for task in (one, two):
        pthreads.lock(task, A, B, A)
        pthreads.unlock(task, A, B)
        pthreads.lock(task, C)
        pthreads.unlock(task, C, A)
        pthreads.lock(task, D)
        pthreads.unlock(task, D)

    assert pthreads.order() == {(A, B), (A, C)}
    assert pthreads.violations() == []


def test_trying_waits_for_nothing(pthreads, one):
    """A mutex taken by trylock adds no order itself, but is held when the next one is requested."""
    pthreads.lock(one, A)
    pthreads.trylock(one, B)
    assert pthreads.order() == set()
    pthreads.lock(one, C)

    assert pthreads.order() == {(A, C), (B, C)}


def test_a_lock_that_was_refused(pthreads, one):
    """It is not held afterwards; one whose last owner died is."""
    pthreads.trylock(one, A, EBUSY)
    pthreads.lock(one, B, answer=EDEADLK)
    pthreads.lock(one, C, answer=EOWNERDEAD)
    pthreads.lock(one, D)

    assert pthreads.order() == {(C, D)}
    assert pthreads.kernel.counted()["locks"]["pthread_mutex_locks"] == 2


def test_a_library_that_calls_its_own_functions(pthreads, one):
    """A call within a call counts once, as in musl, where lock calls trylock and timedlock."""
    pthreads.call("pthread_wants", one, A)
    pthreads.call("pthread_wants", one, A)
    pthreads.trylock(one, A, EBUSY)
    pthreads.answers(one)
    pthreads.answers(one)
    pthreads.lock(one, B)
    pthreads.unlock(one, A)
    pthreads.lock(one, C)

    assert pthreads.order() == {(A, B), (B, C)}
    assert pthreads.kernel.counted()["locks"]["pthread_mutex_locks"] == 3
    assert pthreads.kernel.lost() == {}


def test_a_condition_is_waited_for(pthreads, one, two):
    """Its mutex is wanted again while the others are held: that is an order as well."""
    pthreads.lock(one, A, B)
    pthreads.call("pthread_cond_waits", one, 0x9000, A)

    assert pthreads.order() == {(A, B), (B, A)}
    assert pthreads.violations() == []
    pthreads.nest(two, A, B)
    assert pthreads.violations() == [[A, B]]


def test_a_condition_with_nothing_else_in_hand(pthreads, one):
    pthreads.lock(one, A)
    pthreads.call("pthread_cond_waits", one, 0x9000, A)
    pthreads.unlock(one, A)
    pthreads.lock(one, B)

    assert pthreads.order() == set()


@pytest.mark.parametrize("told_of", [True, False])
def test_an_address_that_another_mutex_has_now(pthreads, one, two, told_of):
    """It is another mutex only if destroying the old or initialising the new one was seen."""
    pthreads.nest(one, A, B)
    if told_of:
        pthreads.call("pthread_renews", one, A)
    pthreads.nest(two, B, A)

    assert pthreads.violations() == ([] if told_of else [[A, B]])


def test_processes_have_addresses_of_their_own(pthreads, kernel, one):
    """Mutexes at the same address are different ones in two processes, and before and after an exec."""
    child = kernel.fork(one, kernel.task(20))
    pthreads.nest(one, A, B)
    pthreads.nest(child, B, A)
    assert pthreads.violations() == []

    kernel.tell("shim_set_life", child, ctypes.c_uint64(0), ctypes.c_uint64(1))
    pthreads.nest(child, A, B)
    assert pthreads.violations() == []


def test_what_the_last_owner_of_the_number_held(pthreads, kernel, one):
    """Nor does a thread hold what its process held before it executed a program."""
    pthreads.lock(one, A)
    kernel.tell("shim_set_life", one, ctypes.c_uint64(7), ctypes.c_uint64(0))
    pthreads.lock(one, B)
    kernel.tell("shim_set_life", one, ctypes.c_uint64(7), ctypes.c_uint64(1))
    pthreads.lock(one, C)

    assert pthreads.order() == set()


def test_others_than_the_target(pthreads, kernel):
    """Mutexes of others than the target are ignored, and the agent's if the whole machine is measured."""
    pthreads.nest(kernel.task(30), A, B)
    assert pthreads.order() == set()
    kernel.end()
    kernel.begin()
    pthreads.nest(kernel.task(AGENT + 50, tgid=AGENT), A, B)
    assert pthreads.order() == set()
    pthreads.nest(kernel.task(30), A, B)
    assert pthreads.order() == {(A, B)}


def test_more_than_can_be_remembered(pthreads, one):
    """Eight at once; the ninth is lost, and counted so, and to unlock it changes nothing."""
    mutexes = [A + 64 * number for number in range(DEPTH)]
    pthreads.lock(one, *mutexes, B)
    pthreads.unlock(one, B, mutexes[0])
    pthreads.lock(one, C)

    assert pthreads.kernel.lost() == {"locks_full": 1}
    assert {held for held, wanted in pthreads.order() if wanted == C} == {*mutexes[1:]}


@pytest.mark.parametrize("full", ["locks_holders", "locks_edges", "locks_lives"])
def test_no_room(pthreads, kernel, one, full):
    """A new entry that finds no room is counted as lost."""
    used = (ctypes.c_uint8 * kernel.get(f"{full}_entries")).in_dll(kernel.library, f"{full}_used")
    if full != "locks_holders":
        pthreads.lock(one, A)
    ctypes.memset(used, 1, len(used))
    pthreads.call("pthread_wants", one, B)

    assert kernel.lost() == {"keys_full": 1}


def test_nothing_is_left_of_who_holds_nothing(pthreads, kernel, one, two):
    """So the threads that hold something are all that need room."""
    pthreads.nest(one, A, B)
    pthreads.trylock(two, A, EBUSY)
    assert kernel.hash("locks_holders") == {}
    pthreads.lock(one, A)
    assert len(kernel.hash("locks_holders")) == 1


def test_an_answer_that_was_not_seen(pthreads, kernel, one):
    """The next call shows that a return was missed."""
    pthreads.call("pthread_wants", one, A)
    pthreads.lock(one, B)

    assert kernel.lost() == {"returns_missed": 1}


def test_what_was_locked_before_the_run(pthreads, kernel, one):
    """To unlock it is no matter; its order is not known."""
    pthreads.unlock(one, A)
    pthreads.answers(one)

    assert pthreads.order() == set()
    assert kernel.lost() == {}


class Kernel(Pthreads):
    """The functions of the kernel that take a mutex: one always does, three say whether."""

    def lock(self, task, *mutexes):
        for mutex in mutexes:
            self.kernel.fire("kfunc__mutex_lock", mutex, current=task)

    def ask(self, task, function, mutex, answer):
        self.kernel.fire(f"kfunc__{function}", mutex, current=task)
        self.kernel.fire(f"kretfunc__{function}", mutex, answer & (1 << 64) - 1, current=task)

    def unlock(self, task, *mutexes):
        for mutex in mutexes:
            self.kernel.fire("kfunc__mutex_unlock", mutex, current=task)

    def violations(self):
        found = derive(self.kernel.counted()["locks"], NO_NAMES)
        return found["lock_order_violations"], found["kernel_lock_order_violations"]


@pytest.fixture
def mutexes(pthreads):
    return Kernel(pthreads.kernel)


def test_mutexes_of_the_kernel(mutexes, kernel, one):
    """They are everybody's: two processes have two orders of the same."""
    other = kernel.fork(one, kernel.task(20))
    mutexes.nest(one, KERNEL, KERNEL + 64)
    mutexes.nest(other, KERNEL + 64, KERNEL)

    assert mutexes.violations() == (0, 1)
    assert kernel.counted()["locks"]["kernel_mutex_locks"] == 4
    cycle = derive(kernel.counted()["locks"], NO_NAMES)["kernel_lock_order_cycles"]
    assert [edge["tid"] for edge in cycle[0]["edges"]] == [11, 20]
    assert "pid" not in cycle[0]


@pytest.mark.parametrize(
    ("answered", "taken", "waits"),
    [
        (("mutex_lock_interruptible", 0), True, True),
        (("mutex_lock_interruptible", -4), False, True),
        (("mutex_lock_killable", 0), True, True),
        (("mutex_lock_killable", -4), False, True),
        (("mutex_trylock", 1), True, False),
        (("mutex_trylock", 0), False, False),
    ],
)
def test_whether_it_was_taken(mutexes, one, answered, taken, waits):
    """The function's result says whether it is held; only trylock does not wait."""
    mutexes.lock(one, KERNEL)
    function, answer = answered
    mutexes.ask(one, function, KERNEL + 64, answer)
    mutexes.lock(one, KERNEL + 128)

    expected = {(KERNEL, KERNEL + 128)} | ({(KERNEL, KERNEL + 64)} if waits else set())
    assert mutexes.order() == expected | ({(KERNEL + 64, KERNEL + 128)} if taken else set())


def test_a_kernel_mutex_is_initialised_again(mutexes, kernel, one, two):
    """A mutex initialised again, by any thread, is another one: its memory may have been reused."""
    mutexes.nest(one, KERNEL, KERNEL + 64)
    kernel.fire("kfunc____mutex_init", KERNEL, current=kernel.task(99))
    mutexes.nest(two, KERNEL + 64, KERNEL)

    assert mutexes.violations() == (0, 0)


def test_user_space_and_the_kernel_are_separate(mutexes, pthreads, one):
    """A mutex of one is no reason to wait for one of the other."""
    pthreads.lock(one, A)
    mutexes.lock(one, KERNEL)
    pthreads.lock(one, B)
    mutexes.lock(one, KERNEL + 64)

    assert pthreads.order() == {(A, B), (KERNEL, KERNEL + 64)}


# ---- the graph


def edge(held, wanted, tid=1, other_tid=0, *, at=0, tgid=10):  # noqa: PLR0913 - as an edge has
    mutexes = (Mutex(tgid, 0, address, 0) for address in (held, wanted))
    return Edge(at, *mutexes, held, wanted, tid, other_tid, -1)


def cycles(*edges):
    return [[one.held.address for one in cycle] for cycle in violations(edges)]


def test_the_shortest_way_back():
    """A circle of three with a shortcut is two violations, of three mutexes and of two."""
    assert cycles(edge(1, 2), edge(2, 3, 2), edge(3, 1, 3)) == [[1, 2, 3]]
    assert sorted(cycles(edge(1, 2), edge(2, 3, 2), edge(3, 1, 3), edge(2, 1, 4))) == [[1, 2], [1, 2, 3]]


def test_edges_into_and_out_of_a_circle_are_not_in_it():
    assert cycles(edge(9, 1), edge(1, 2), edge(2, 1, 2), edge(2, 8), edge(8, 7)) == [[1, 2]]


def test_circles_that_share_a_mutex():
    assert cycles(edge(1, 2), edge(2, 1, 2), edge(2, 3), edge(3, 2, 2)) == [[1, 2], [2, 3]]


def test_the_first_comes_first():
    """Cycles are sorted by time, and the edges of each begin with the first."""
    early, late = (edge(3, 4, at=50), edge(4, 3, 2, at=20)), (edge(1, 2, at=90), edge(2, 1, 2, at=80))
    assert cycles(*late, *early) == [[4, 3], [2, 1]]


def test_a_thousand_mutexes():
    """Each with the next, in a ring that is closed or is not; a deep graph is no deep recursion."""
    ring = [edge(n, n + 1, n) for n in range(1, 1000)]
    assert cycles(*ring) == []
    assert cycles(*ring, edge(1000, 1, 7)) == [list(range(1, 1001))]


def test_threads_of_a_cycle():
    """Two at least, whichever edge they made."""
    assert cycles(edge(1, 2, 5), edge(2, 1, 5)) == []
    assert cycles(edge(1, 2, 5, 6), edge(2, 1, 5)) == [[1, 2]]


def test_a_violation_in_the_evidence():
    """With names where there are any; twenty in full, those of user space separate from the kernel's."""
    made = edge(1, 2, 5, 6)._replace(held_at=11, wanted_at=12, stack=3), edge(2, 1, 7)
    stacks = {made[0].held_from: ("f+0x1 [a]",), made[0].wanted_from: ("g+0x2 [a]", "main+0x3 [a]")}
    names = Names(stacks={"locks_stacks": stacks})
    (found,) = shown(violations(made), names)

    first = {"held": "0x1", "wanted": "0x2", "tid": 5, "other_tid": 6}
    assert found["pid"] == 10
    assert found["edges"] == [
        first | {"held_at": "f+0x1 [a]", "stack": ["g+0x2 [a]", "main+0x3 [a]"]},
        {"held": "0x2", "wanted": "0x1", "tid": 7, "stack": []},
    ]
    many = [
        e
        for n in range(0, 100, 2)
        for tgid in (10, 0)
        for e in (edge(n, n + 1, tgid=tgid), edge(n + 1, n, 2, tgid=tgid))
    ]
    assert [len(part) for part in split(violations(many))] == [50, 50]
    assert len(shown(violations(many), names)) == LISTED
    assert len(listed(many)) == 2 * 2 * LISTED


def test_an_edge_as_it_is_written():
    """Only the stack's id is signed: a negative one means that there is no stack."""
    key = struct.pack("=QQIIII", A, B, 3, 4, 10, 1)
    value = struct.pack("=QQQIIi4x", 1000, 0x41, 0x42, 11, 12, -17)

    assert edges_of({key: value}) == [Edge(1000, Mutex(10, 1, A, 3), Mutex(10, 1, B, 4), 0x41, 0x42, 11, 12, -17)]
