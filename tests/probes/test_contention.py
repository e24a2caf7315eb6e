"""Waits for locks, of the kernel (probes/machines/contention.h, lock_wait.h) and on futexes (calls.h, locks.c)."""

import ctypes
from itertools import count

import pytest
from user_space import AGENT, FUTEX, INTERRUPTIBLE

from chainbench_agent.evidence.open_intervals import FUTEX_LOCK, FUTEX_WAIT
from chainbench_agent.loading.unit_sizes import LOCK_WAITS, call_kinds
from chainbench_agent.probes import CALLS
from chainbench_agent.probes.lock_hooks import SLOW_PATHS

SPIN, RD, WR, RT, PERCPU, MUTEX = (1 << bit for bit in range(6))
SPINNING_MUTEX = MUTEX | SPIN
HARD, SOFT, DISABLED = 0x10000, 0x100, 0x201  # hard interrupt; soft interrupt; bottom halves and preemption disabled
LOCK, OTHER = 0xFFFF888000001000, 0xFFFF888000002000
WAKE, WAIT, WAIT_BITSET, LOCK_PI = 1, 0, 9, 6
PRIVATE = 128
EAGAIN, EINVAL, ETIMEDOUT, ERESTARTSYS = 11, 22, 110, 512
COUNTS = ("mutex_contentions", "rwsem_waits", "semaphore_waits", "spin_contentions")


class Locks:
    """The run's waits; `at` is the clock."""

    def __init__(self, kernel):
        self.kernel = kernel

    def begin(self, at, task, lock, flags, cpu=0):
        self.kernel.at(at).fire("contention_begin_0", lock, flags, cpu=cpu, current=task)

    def end(self, at, task, lock, cpu=0):
        self.kernel.at(at).fire("contention_end_0", lock, 0, cpu=cpu, current=task)

    def interrupt(self, task, bits):
        self.kernel.tell("shim_set_preempt_count", task, bits)

    def counted(self):
        """(mutexes, rwsems, semaphores, spin locks), and by distribution (ns in all)."""
        found = self.kernel.counted()["locks"]
        sums = {name: found[f"{name}_wait_ns"].sum for name in ("mutex", "rwsem", "spin")}
        return tuple(found[name] for name in COUNTS), {name: ns for name, ns in sums.items() if ns}


@pytest.fixture
def user(kernel):
    return kernel.task(10)


@pytest.fixture
def locks(kernel):
    kernel.at(1000).begin()
    return Locks(kernel)


@pytest.fixture
def trees(kernel, user):
    """Only `user`'s process counts."""
    kernel.at(1000).tree(user.pid).begin()
    return Locks(kernel)


@pytest.mark.parametrize(
    ("flags", "counted", "waited"),
    [
        (MUTEX, (1, 0, 0, 0), {"mutex": 70}),
        (SPINNING_MUTEX, (1, 0, 0, 0), {"mutex": 70}),
        (RD, (0, 1, 0, 0), {"rwsem": 70}),
        (WR, (0, 1, 0, 0), {"rwsem": 70}),
        (0, (0, 0, 1, 0), {}),
        (SPIN, (0, 0, 0, 1), {"spin": 70}),
        (SPIN | RD, (0, 0, 0, 1), {"spin": 70}),
        (PERCPU | WR, (0, 0, 0, 0), {}),
        (RT | RD, (0, 0, 0, 0), {}),
    ],
)
def test_the_flags_give_the_kind(locks, user, flags, counted, waited):
    """Two kinds are not reported: percpu-rwsems begin to wait before they know that they must, RT is another world."""
    locks.begin(1100, user, LOCK, flags)
    locks.end(1170, user, LOCK)

    assert locks.counted() == (counted, waited)


def test_a_mutex_that_is_spun_for_and_slept_for_is_one_wait(locks, user):
    """It begins again when the thread goes to sleep, and when it is first and spins again."""
    for at, flags in ((1100, SPINNING_MUTEX), (1150, MUTEX), (1200, SPINNING_MUTEX), (1230, MUTEX)):
        locks.begin(at, user, LOCK, flags)
    locks.end(1300, user, LOCK)
    locks.end(1400, user, LOCK)

    assert locks.counted() == ((1, 0, 0, 0), {"mutex": 200})


def test_spinning_inside_of_a_wait(locks, user):
    """The mutex's own spin lock, on another CPU after the sleep."""
    locks.begin(1100, user, LOCK, MUTEX)
    locks.begin(1110, user, OTHER, SPIN)
    locks.end(1113, user, OTHER)
    locks.begin(1200, user, OTHER, SPIN, cpu=1)
    locks.end(1207, user, OTHER, cpu=1)
    locks.end(1300, user, LOCK, cpu=1)

    assert locks.counted() == ((1, 0, 0, 2), {"mutex": 200, "spin": 10})


def test_threads_wait_for_one_lock_at_once(locks, kernel):
    """Each for itself; the numbers of two of them share a slot."""
    tasks = [kernel.task(tid) for tid in (10, 11, 10 + LOCK_WAITS)]
    for after, task in enumerate(tasks):
        locks.begin(1100 + after, task, LOCK, WR)
    for after, task in enumerate(reversed(tasks)):
        locks.end(1200 + 10 * after, task, LOCK)

    assert locks.counted() == ((0, 3, 0, 0), {"rwsem": 98 + 109 + 120})


def test_a_fifth_thread_without_a_slot_is_lost(locks, kernel):
    """It is not measured, and that is said."""
    for number in range(5):
        locks.begin(1100, kernel.task(10 + number * LOCK_WAITS), LOCK, MUTEX)

    assert kernel.lost() == {"keys_full": 1}


def test_a_wait_that_gives_way_to_another_is_lost(locks, kernel, user):
    """A thread waits for one lock at a time; what shows otherwise was not seen to end."""
    locks.begin(1100, user, LOCK, MUTEX)
    locks.begin(1200, user, OTHER, RD)
    locks.end(1230, user, OTHER)
    locks.end(1300, user, LOCK)

    assert locks.counted() == ((0, 1, 0, 0), {"rwsem": 30})
    assert kernel.lost() == {"keys_full": 1}


def test_interrupts_nest_while_a_cpu_spins(locks, user):
    """For the whole machine all count, each with its own time."""
    locks.begin(1100, user, 1, SPIN)
    for level, bits in enumerate((SOFT, SOFT | HARD, SOFT | HARD | 0x100000), start=1):
        locks.interrupt(user, bits)
        locks.begin(1100 + level, user, 1 + level, SPIN)
    for level in (3, 2, 1, 0):
        locks.end(1200 - level, user, 1 + level)

    assert locks.counted() == ((0, 0, 0, 4), {"spin": 100 + 98 + 96 + 94})


def test_an_interrupts_wait_is_not_the_targets(trees, user):
    """A thread that disabled preemption, as every spin lock does, is no interrupt."""
    for bits, lock in ((SOFT, 1), (HARD, 2), (DISABLED, 3)):
        trees.interrupt(user, bits)
        trees.begin(1100, user, lock, SPIN)
        trees.end(1150, user, lock)

    assert trees.counted() == ((0, 0, 0, 1), {"spin": 50})


def test_others_do_not_count(trees, kernel):
    """Neither a stranger, nor the idle task, nor the agent."""
    for task in (kernel.task(77), kernel.idle, kernel.task(AGENT)):
        for flags in (MUTEX, WR, 0, SPIN):
            trees.begin(1100, task, LOCK, flags)
            trees.end(1150, task, LOCK)

    assert trees.counted() == ((0, 0, 0, 0), {})


def test_an_end_without_its_beginning(locks, kernel, user):
    """It waited since before the run, or the program was skipped: there is nothing to say."""
    locks.end(1100, user, LOCK)
    locks.begin(1200, user, LOCK, SPIN)
    locks.end(1250, kernel.task(11), LOCK)  # another thread, to which the lock came when the first's end was not seen
    kernel.end().at(5000).begin()
    locks.end(5100, user, LOCK)

    assert locks.counted() == ((0, 0, 0, 0), {})


@pytest.mark.parametrize("kind", SLOW_PATHS)
def test_slow_paths(locks, kernel, user, kind):
    """Kernels without the tracepoints: every function that waits for such a lock."""
    functions = SLOW_PATHS[kind][1]
    arguments = (ctypes.c_uint64 * 8)(LOCK)
    kernel.set("shim_current", ctypes.c_void_p, user.address)
    for function, at in zip(functions, count(1100, 100), strict=False):
        kernel.at(at)
        getattr(kernel.library, f"kfunc__{function}")(arguments)
        kernel.at(at + 30)
        getattr(kernel.library, f"kretfunc__{function}")(arguments)

    expected = tuple(len(functions) * (one == kind) for one in SLOW_PATHS)
    assert locks.counted()[0] == expected
    assert locks.counted()[1] == ({} if kind == "semaphore" else {kind: 30 * len(functions)})


class Functions:
    """The functions that wait for `kind` of lock, by kprobe and kretprobe; the latter has no lock as an argument."""

    def __init__(self, kernel, kind):
        self.kernel = kernel
        self.names = [name.strip("_").removesuffix("_slowpath") for name in SLOW_PATHS[kind][1]]

    def enter(self, at, task, lock, name=None, cpu=0):
        self.kernel.at(at).fire(f"{name or self.names[0]}_enter_1", lock, cpu=cpu, current=task)

    def leave(self, at, task, name=None, cpu=0):
        self.kernel.at(at).fire(f"{name or self.names[0]}_leave_1", 0, cpu=cpu, current=task)


@pytest.mark.parametrize("kind", SLOW_PATHS)
def test_slow_paths_by_kprobe(locks, kernel, user, kind):
    """The wait that ends is the one that the thread, or the CPU, was in."""
    functions = Functions(kernel, kind)
    for name, at in zip(functions.names, count(1100, 100), strict=False):
        functions.enter(at, user, LOCK, name)
        functions.leave(at + 30, user, name)
        functions.leave(at + 60, user, name)  # of a call that began before the run

    expected = tuple(len(functions.names) * (one == kind) for one in SLOW_PATHS)
    assert locks.counted()[0] == expected
    assert locks.counted()[1] == ({} if kind == "semaphore" else {kind: 30 * len(functions.names)})
    assert kernel.lost() == {}


def test_a_return_that_was_not_seen(locks, kernel, user):
    """The next wait shows that it was missed, also for the same lock; both count as one, with the time known."""
    functions = Functions(kernel, "mutex")
    functions.enter(1100, user, LOCK)
    functions.enter(1200, user, LOCK)
    functions.leave(1230, user)

    assert locks.counted() == ((1, 0, 0, 0), {"mutex": 30})
    assert kernel.lost() == {"returns_missed": 1}


def test_interrupts_nest_where_returns_do_not_name_the_lock(locks, kernel, user):
    """The innermost returns first; and another CPU is another matter."""
    functions = Functions(kernel, "spin")
    functions.enter(1100, user, 1)
    functions.enter(1101, kernel.task(11), 2, cpu=1)
    locks.interrupt(user, HARD)
    functions.enter(1110, user, 3)
    functions.leave(1115, user)
    locks.interrupt(user, 0)
    functions.leave(1150, user)

    assert locks.counted() == ((0, 0, 0, 2), {"spin": 55})


@pytest.fixture
def called(kernel, user):
    """`called(name, operation, ret, ns)`: a system call from beginning to end; no `ret`: it goes on."""
    numbers = {name: number for number, name in enumerate(sorted({n for group in CALLS.values() for n in group}))}
    for kind, group in enumerate(CALLS.values(), start=1):
        for name in group:
            (ctypes.c_uint32 * 1024).in_dll(kernel.library, "cb_call_kinds_cells")[2 * numbers[name]] = kind

    def call(name, operation=0, ret=None, ns=50, *, sleeps=True):
        kernel.tell("shim_set_arguments", user, 0, *map(ctypes.c_uint64, (LOCK, operation, 0, 0)))
        kernel.tell("shim_set_switches", user, ctypes.c_uint64(kernel.now_ns))
        regs = kernel.library.shim_regs(ctypes.c_void_p(user.address))
        kernel.fire("sys_enter_0", regs, numbers[name], current=user)
        kernel.tell("shim_set_switches", user, ctypes.c_uint64(kernel.now_ns + sleeps))
        if ret is not None:
            kernel.at(kernel.now_ns + ns).fire("sys_exit_0", regs, ret & (1 << 64) - 1, current=user)

    kernel.library.shim_regs.restype = ctypes.c_uint64
    return call


@pytest.mark.usefixtures("locks")
def test_what_a_futex_wait_is(kernel, called):
    """Woken, timed out or interrupted; not one that came too late, nor one that was wrong.

    Two that a stop interrupted went on with the next call.
    """
    for operation in (WAIT, WAIT | PRIVATE, WAIT_BITSET | PRIVATE | 256, LOCK_PI, 11, 13):
        called("futex", operation, 0)
    for ret in (-ETIMEDOUT, -ERESTARTSYS, -516, -4, -EAGAIN, -EINVAL):
        called("futex", WAIT_BITSET, ret)
    called("futex_waitv", 0, 3)
    called("futex_wait", 0, 0)

    found = kernel.counted()["locks"]
    assert (found["futex_waits"], found["futex_waited_ns"], found["futex_wakes"]) == (10, 600, 0)
    assert (sum(found["futex_wait_ns"].slots), found["futex_wait_ns"].sum) == (10, 600)


@pytest.mark.usefixtures("locks")
@pytest.mark.parametrize(
    ("operation", "ret", "waits"),
    [
        (WAIT, 0, 1),  # a wake-up ended it before it slept
        (WAIT_BITSET, 0, 1),
        (11, 0, 1),
        (WAIT, -ETIMEDOUT, 0),  # the time was up before
        (WAIT, -ERESTARTSYS, 0),
        (WAIT, -EAGAIN, 0),
        (LOCK_PI, 0, 0),  # it was free
        (13, 0, 0),
        (LOCK_PI, -ETIMEDOUT, 0),
        (8, 0, 0),
    ],
)
def test_a_futex_call_that_did_not_sleep(kernel, called, operation, ret, waits):
    """It counts as a wait only if another thread's wake-up ended it."""
    called("futex", operation, ret, sleeps=False)

    assert kernel.counted()["locks"]["futex_waits"] == waits


@pytest.mark.usefixtures("locks")
@pytest.mark.parametrize("operation", [LOCK_PI, 13])
def test_a_lock_that_was_waited_for(kernel, called, operation):
    """A wait ends with the lock, a timeout or a signal; a refusal (EDEADLK) is no wait."""
    for ret in (0, -ETIMEDOUT, -4, -513, -35):
        called("futex", operation, ret)

    assert kernel.counted()["locks"]["futex_waits"] == 4


@pytest.mark.usefixtures("locks")
def test_a_futex_wait_from_before_the_run(kernel, user):
    """It counts from the beginning of the run, and as a wait, although its falling asleep was not seen."""
    kernel.at(5000).begin()
    kernel.tell("shim_set_syscall", user, ctypes.c_uint64(FUTEX))
    kernel.tell("shim_set_arguments", user, 0, *map(ctypes.c_uint64, (LOCK, WAIT, 0)))
    kernel.at(5300).leave(user, 0)

    found = kernel.counted()["locks"]
    assert (found["futex_waits"], found["futex_waited_ns"]) == (1, 300)


@pytest.mark.usefixtures("locks")
@pytest.mark.parametrize(("asleep", "waits"), [(True, 1), (False, 0)])
def test_a_lock_is_cut_where_the_run_ends(kernel, called, user, asleep, waits):
    """It is a wait only if its thread sleeps: it may just be taking a free one."""
    kernel.switch(kernel.idle, user)
    called("futex", LOCK_PI)
    if asleep:
        kernel.switch(user, kernel.idle, INTERRUPTIBLE)
    kernel.at(kernel.now_ns + 300).end()

    found = kernel.counted(closed=True)["locks"]
    assert (found["futex_waits"], found["futex_waited_ns"]) == (waits, 300 * waits)


@pytest.mark.usefixtures("locks")
def test_what_a_futex_wake_is(kernel, called):
    """Calls that move waiters count, too; calls that failed and other operations do not."""
    for operation in (WAKE, WAKE | PRIVATE, 3, 4, 5, 7, 10, 12):
        called("futex", operation, 1)
    called("futex_wake", 0, 0)
    called("futex_requeue", 0, 0)
    for operation, ret in ((4, -EAGAIN), (2, 0), (8, 0), (14, 0), (127, 0)):
        called("futex", operation, ret)

    found = kernel.counted()["locks"]
    assert (found["futex_wakes"], found["futex_waits"]) == (10, 0)


@pytest.mark.usefixtures("locks")
def test_a_futex_wait_is_cut_where_the_run_ends(kernel, called):
    """It counts, and so does its time until then; a wake under way does not."""
    called("futex", WAIT, 0, ns=20)
    kernel.at(2000)
    called("futex", WAIT)
    kernel.at(2300).end()

    found = kernel.counted(closed=True)["locks"]
    assert (found["futex_waits"], found["futex_waited_ns"]) == (2, 320)
    assert (found["futex_wait_ns"].min, found["futex_wait_ns"].max, found["futex_wait_ns"].sum) == (20, 300, 320)


@pytest.mark.usefixtures("locks")
def test_a_futex_wake_is_not_cut(kernel, called):
    """A thread that wakes others does not wait."""
    called("futex", WAKE)
    kernel.at(2300).end()

    assert kernel.counted(closed=True)["locks"]["futex_waits"] == 0


def test_the_number_of_the_kind():
    assert (call_kinds()[FUTEX_WAIT], call_kinds()[FUTEX_LOCK]) == ("FUTEX_WAIT", "FUTEX_LOCK")
