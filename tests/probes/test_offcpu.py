"""The waits of blocked threads, and the walks of their stacks (probes/offcpu.h, offcpu.c)."""

import ctypes
import struct
from random import Random

import pytest
from user_space import FUTEX, INTERRUPTIBLE, NO_SYSCALL, READ, UNINTERRUPTIBLE, UserSpace, blocked, fused

from chainbench_agent.catalog import CallStack, Names, Sampled
from chainbench_agent.probes import blocked_time, wait_reasons
from chainbench_agent.probes.wait_key import UNKNOWN_CALL, Wait

STOPPED, TRACED, FROZEN = 0x4, 0x8, 0x8000
X32 = 0x40000000
THRESHOLD = 1_000_000
"""OFFCPU_THRESHOLD_NS"""
PERIOD_WALKS = 400


def the_wait(kernel):
    """The only wait of the run so far, and its time."""
    ((key, ns),) = blocked(kernel.counted()["offcpu"]).items()
    return Wait.of(key), ns


def block(kernel, task, ns, state=INTERRUPTIBLE):
    """`task` leaves its CPU, is woken after `ns`, and enters it again."""
    kernel.switch(task, kernel.idle, state)
    kernel.at(kernel.now_ns + ns).wake(task)
    kernel.switch(kernel.idle, task)


@pytest.mark.parametrize(
    ("syscall", "state", "wait"),
    [
        (FUTEX, INTERRUPTIBLE, Wait(FUTEX)),
        (FUTEX, UNINTERRUPTIBLE, Wait(FUTEX, uninterruptible=True)),
        (FUTEX, STOPPED, Wait(FUTEX, stopped=True)),
        (FUTEX, TRACED, Wait(FUTEX, stopped=True)),
        (FUTEX, FROZEN, Wait(FUTEX, stopped=True)),
        (NO_SYSCALL, UNINTERRUPTIBLE, Wait(None, uninterruptible=True)),
        (X32 | 1, INTERRUPTIBLE, Wait(1)),
        (X32 | 547, INTERRUPTIBLE, Wait(547)),
        (4711, INTERRUPTIBLE, Wait(UNKNOWN_CALL)),
    ],
    ids=["signal may end it", "no signal", "stopped", "traced", "frozen", "page fault", "x32", "x32 only", "unknown"],
)
def test_what_it_waits_in(kernel, syscall, state, wait):
    """The system call from the saved registers, and the state in which the thread left its CPU."""
    task = kernel.task(10, syscall=syscall)
    kernel.at(1000).begin().switch(kernel.idle, task)

    block(kernel, task, 5, state)

    assert the_wait(kernel) == (wait, 5)


@pytest.mark.parametrize("before", [False, True], ids=["within the run", "asleep since before it"])
@pytest.mark.parametrize("bits", [0, 1])
def test_waiting_for_io(kernel, bits, before):
    """The kernel marks a thread that waits for I/O; the other bits of that byte have no influence."""
    task = kernel.task(10, syscall=FUTEX)
    kernel.tell("shim_set_iowait", task, bits | 0x80)
    kernel.at(1000)
    if before:
        kernel.begin().at(1005).wake(task)
    else:
        kernel.begin().switch(kernel.idle, task)
        block(kernel, task, 5)

    assert the_wait(kernel) == (Wait(FUTEX, iowait=bool(bits)), 5)


ANONYMOUS, MQUEUE, PIDFS, EXT4 = 0x09041934, 0x19800202, 0x50494446, 0xEF53
FILES = {
    "pipe": ("pipe", {}),
    "directory": ("directory", {}),
    "block": ("block", {}),
    "regular": ("file", {"magic": EXT4}),
    "mqueue": ("file", {"magic": MQUEUE}),
    "cgroup_v1": ("file", {"magic": 0x27E0EB}),
    "tty": ("character", {"device": 136 << 20 | 3}),
    "char": ("character", {"device": 1 << 20 | 3}),
    "pidfd": ("file", {"magic": PIDFS}),
    "eventfd": ("anonymous", {"magic": ANONYMOUS, "name": b"[eventfd]"}),
    "timerfd": ("file", {"magic": ANONYMOUS, "name": b"[timerfd]"}),  # since v6.16 it looks like a regular file
    "signalfd": ("anonymous", {"magic": ANONYMOUS, "name": b"[signalfd]"}),
    "inotify": ("anonymous", {"magic": ANONYMOUS, "name": b"inotify"}),
    "fanotify": ("anonymous", {"magic": ANONYMOUS, "name": b"[fanotify]"}),
    "epoll": ("anonymous", {"magic": ANONYMOUS, "name": b"[eventpoll]"}),
    "io_uring": ("anonymous", {"magic": ANONYMOUS, "name": b"[io_uring]"}),
    "userfaultfd": ("anonymous", {"magic": ANONYMOUS, "name": b"[userfaultfd]"}),
    "anon": ("anonymous", {"magic": ANONYMOUS, "name": b"[kvm-vcpu:0]"}),
    "socket:unix": ("socket", {"family": 1}),
    "socket:inet6": ("socket", {"family": 10}),
    "socket:38": ("socket", {"family": 38}),
}


def open_file(kernel, task, fd, kind):
    mode, what = FILES[kind]
    file = kernel.open(task, fd, mode=mode)
    sk = kernel.library.shim_sock(what["family"], 1, 0) if "family" in what else None
    rest = ctypes.c_uint64(what.get("magic", 0)), what.get("name", b""), what.get("device", 0), ctypes.c_void_p(sk)
    kernel.library.shim_set_file(ctypes.c_void_p(file), *rest)


@pytest.fixture
def terminals(kernel):
    """The major number 136 is a terminal's."""
    (ctypes.c_uint32 * 512).in_dll(kernel.library, "offcpu_tty_majors_cells")[136] = 1


@pytest.mark.usefixtures("terminals")
@pytest.mark.parametrize("before", [False, True], ids=["within the run", "asleep since before it"])
@pytest.mark.parametrize("kind", FILES)
def test_the_kind_of_the_file(kernel, kind, before):
    """The file is that of the descriptor in the call's first argument."""
    task = kernel.task(10, syscall=READ)
    kernel.tell("shim_set_arguments", task, 0, *map(ctypes.c_uint64, (5, 0, 0)))
    open_file(kernel, task, 4, "block")
    open_file(kernel, task, 5, kind)
    kernel.at(1000)
    if before:
        kernel.begin().at(1007).wake(task)
    else:
        kernel.begin().switch(kernel.idle, task)
        block(kernel, task, 7)

    assert the_wait(kernel) == (Wait(READ, file=kind), 7)


@pytest.mark.parametrize(("syscall", "fd"), [(FUTEX, 5), (READ, 6), (READ, 1 << 31), (NO_SYSCALL, 5)])
def test_no_file(kernel, syscall, fd):
    """The call takes no descriptor, or has one that is not open."""
    task = kernel.task(10, syscall=syscall)
    kernel.tell("shim_set_arguments", task, 0, *map(ctypes.c_uint64, (fd, 0, 0)))
    open_file(kernel, task, 5, "pipe")
    kernel.at(1000).begin().switch(kernel.idle, task)

    block(kernel, task, 7)

    assert the_wait(kernel)[0].file == ""


def test_a_call_of_a_32_bit_program(compile_unit):
    """It has the numbers of i386, and its first argument in another register: read is 3 there."""
    text = "#define CONFIG_X86_64 1\n#define CONFIG_IA32_EMULATION 1\n" + fused().text
    kernel = UserSpace(ctypes.CDLL(str(compile_unit(text, "compat_waits"))))
    task = kernel.task(10, syscall=3)
    kernel.tell("shim_set_compat", task, 2)
    kernel.tell("shim_set_arguments", task, 1, *map(ctypes.c_uint64, (5, 0, 0)))
    open_file(kernel, task, 5, "pipe")
    kernel.at(1000).begin().switch(kernel.idle, task)

    block(kernel, task, 7)

    wait, _ = the_wait(kernel)
    assert wait == Wait(3, compat=True, file="pipe")
    assert wait.syscall(Names({"calls": {3: "close"}, "calls_32bit": {3: "read"}}, {}, {}, {})) == "read"


def frames(kernel, task, *addresses):
    kernel.tell("shim_set_frames", task, len(addresses), (ctypes.c_uint64 * 16)(*addresses))


def sampled(kernel, names=None):
    """Innermost address → what was sampled there, in the only wait."""
    stacks = {
        CallStack(int.from_bytes(key, "little")): (str(int.from_bytes(raw[:8], "little")),)
        for key, raw in kernel.hash("offcpu_stacks").items()
    }
    (found,) = blocked_time.stacks(
        kernel.counted()["offcpu"], names or Names(stacks={"offcpu_stacks": stacks})
    ).values()
    return {int(stack[0]): value for stack, value in found.items()}


def test_a_long_wait_is_always_walked(kernel, thread):
    """When it is over, so by its whole length; also one that began before the run."""
    early = kernel.task(11, syscall=FUTEX)
    frames(kernel, early, 0xA)
    frames(kernel, thread, 0xB, 0xC)
    kernel.at(1000 + THRESHOLD).wake(early)
    for ns in (THRESHOLD, 5 * THRESHOLD):
        block(kernel, thread, ns)

    assert sampled(kernel) == {0xA: Sampled(exact_ns=THRESHOLD), 0xB: Sampled(exact_ns=6 * THRESHOLD)}
    assert kernel.lost() == {}


def test_a_short_wait_is_walked_with_a_probability(kernel, thread):
    """Its length by the threshold; then it stands for the threshold."""
    frames(kernel, thread, 0xB)
    quarter = 1 << 30  # of the random numbers
    for random in (0, quarter - 2, quarter - 1, quarter, quarter + 1, 3 * quarter):
        kernel.set("shim_random", ctypes.c_uint32, random)
        block(kernel, thread, THRESHOLD // 4)

    three = 3 * THRESHOLD // 4
    assert sampled(kernel) == {0xB: Sampled(0, three, 3 * THRESHOLD, 3, 3 * 750 * 1000)}


def stacks(kernel):
    """The walked stacks, each (addresses, the function that the innermost called)."""
    return [
        (tuple(filter(None, cells[:-1])), cells[-1])
        for cells in (struct.unpack("=17Q", raw) for raw in kernel.hash("offcpu_stacks").values())
    ]


@pytest.mark.parametrize(
    ("code", "distance"),
    [
        (b"\x90\x90\x90\xe8" + (0x1234).to_bytes(4, "little"), 0x1234),
        (b"\x90\x90\x90\xe8" + (-0x40).to_bytes(4, "little", signed=True), -0x40),
        (b"\x90" * 5 + b"\xff\xd0" + b"\x90", None),  # call *%rax
    ],
    ids=["forward", "backward", "by a register"],
)
def test_the_function_that_the_innermost_called(kernel, thread, code, distance):
    """Stack walks leave out lock functions: the call instruction before the return address gives the one called."""
    memory = ctypes.create_string_buffer(code, 16)
    returns = ctypes.addressof(memory) + 8
    frames(kernel, thread, returns)

    block(kernel, thread, THRESHOLD)

    assert stacks(kernel) == [((returns,), 0 if distance is None else returns + distance)]


def test_who_ended_a_wait_for_io_uring(kernel, thread):
    """Behind the thread's own frames are those of the waker; only there."""
    (ctypes.c_uint64 * 16).in_dll(kernel.library, "shim_waker_frames")[:2] = (0xE, 0xF)
    frames(kernel, thread, 0xB, 0xC)
    block(kernel, thread, THRESHOLD)
    assert stacks(kernel) == [((0xB, 0xC), 0)]

    ring = kernel.task(12, syscall=READ)
    kernel.tell("shim_set_arguments", ring, 0, *map(ctypes.c_uint64, (6, 0, 0)))
    open_file(kernel, ring, 6, "io_uring")
    frames(kernel, ring, 0xA)
    kernel.switch(thread, ring)
    block(kernel, ring, THRESHOLD)
    assert ((0xA, 0xE, 0xF), 0) in stacks(kernel)


@pytest.mark.parametrize(
    ("file", "sleep", "stopped"),
    [
        ("cgroup_v1", (THRESHOLD, INTERRUPTIBLE), True),
        ("cgroup_v1", (THRESHOLD - 1, INTERRUPTIBLE), False),
        ("cgroup_v1", (THRESHOLD, UNINTERRUPTIBLE), False),
        ("regular", (THRESHOLD, INTERRUPTIBLE), False),
    ],
    ids=["thawed", "too short", "waits for a lock", "woken by a writer of another file"],
)
def test_thawed_by_cgroup_v1(kernel, thread, file, sleep, stopped):
    """A sleep that ends with a write into a file of cgroup v1 was a frozen one."""
    ns, state = sleep
    thawer = kernel.task(13, syscall=READ)
    kernel.tell("shim_set_arguments", thawer, 0, *map(ctypes.c_uint64, (6, 0, 0)))
    open_file(kernel, thawer, 6, file)
    kernel.switch(thread, thawer, state)

    kernel.at(kernel.now_ns + ns).wake(thread, current=thawer)

    assert the_wait(kernel)[0].stopped == stopped


def test_a_stack_that_cannot_be_walked(kernel, thread):
    """It has no functions, and the wait is there all the same."""
    block(kernel, thread, THRESHOLD)

    ((wait, stack),) = [blocked_time._STACK.unpack(key) for key in kernel.counted()["offcpu"]["sampled_ns"]]
    assert (wait, stack) == (FUTEX, 0)


def test_each_thread_has_its_own(kernel, thread):
    """The stacks of each thread are counted as well as those of the whole target."""
    other = kernel.task(11, syscall=FUTEX)
    kernel.end().tree(10, 11).begin()
    frames(kernel, thread, 0xB)
    frames(kernel, other, 0xC)
    kernel.switch(kernel.idle, thread)
    kernel.switch(kernel.idle, other, cpu=1)
    block(kernel, thread, THRESHOLD)
    kernel.switch(other, kernel.idle, INTERRUPTIBLE, cpu=1)
    kernel.at(kernel.now_ns + 2 * THRESHOLD).wake(other)

    found = blocked_time.stacks_of_threads(kernel.counted()["offcpu"], Names({}, {}, {}, {}))
    times = {tid: stacks[FUTEX][()].exact_ns for (tid, _), stacks in found.items()}
    assert times == {10: THRESHOLD, 11: 2 * THRESHOLD}


def test_the_threshold_rises_and_falls(kernel, thread):
    """It doubles with every PERIOD_WALKS walks that come too fast; after calm periods it is what it was."""
    frames(kernel, thread, 0xB)

    def threshold():
        return ctypes.c_uint64.in_dll(kernel.library, "offcpu_thresholds_cells").value

    for _ in range(PERIOD_WALKS):  # of the threshold's length: each is walked
        block(kernel, thread, 1000)
        kernel.set("shim_random", ctypes.c_uint32, 0)
    assert threshold() == 2 * THRESHOLD
    for _ in range(PERIOD_WALKS):
        block(kernel, thread, 1000)
        kernel.set("shim_random", ctypes.c_uint32, 0)
    assert threshold() == 4 * THRESHOLD
    kernel.at(kernel.now_ns + 100_000_000)
    block(kernel, thread, 1000)
    assert threshold() == 2 * THRESHOLD
    kernel.at(kernel.now_ns + 10**10)
    block(kernel, thread, 1000)
    assert threshold() == THRESHOLD


@pytest.mark.parametrize("seed", range(4))
def test_the_split_is_right_on_average(kernel, thread, seed):
    """Two functions that alternate in one system call, one with waits ten times as long: each gets its time.

    The error is within four of the standard errors that are reported with the split.
    """
    random = Random(seed)  # noqa: S311 - no secret; it has to be repeatable
    truth = {0xA: 0, 0xB: 0}
    for i in range(6000):
        at = 0xA if i % 2 else 0xB
        ns = random.randrange(1000, 40_000) * (10 if at == 0xA else 1)
        frames(kernel, thread, at)
        kernel.set("shim_random", ctypes.c_uint32, random.randrange(1 << 32))
        truth[at] += ns
        block(kernel, thread, ns)

    stacks = {(str(at),): part for at, part in sampled(kernel).items()}
    parts = {int(p.reason): p for p in wait_reasons.split(FUTEX, sum(truth.values()), stacks, Names({}, {}, {}, {}))}
    assert parts[0xA].ns + parts[0xB].ns == pytest.approx(sum(truth.values()))
    for at, part in parts.items():
        error = part.variance_ns2**0.5
        assert 0 < error < 0.05 * sum(truth.values())
        assert abs(part.ns - truth[at]) < 4 * error


def test_a_rare_long_wait_behind_many_short_ones(kernel, thread):
    """100,000 times as rare, it has its whole time: its stack is walked whatever came before."""
    frames(kernel, thread, 0xA)
    kernel.set("shim_random", ctypes.c_uint32, 0)
    for _ in range(2000):
        block(kernel, thread, 20_000)
    frames(kernel, thread, 0xB)
    block(kernel, thread, 3_000_000_000)

    stacks = {(str(at),): part for at, part in sampled(kernel).items()}
    parts = {int(p.reason): p.ns for p in wait_reasons.split(FUTEX, 3_040_000_000, stacks, Names({}, {}, {}, {}))}
    assert parts == {0xA: 40_000_000, 0xB: 3_000_000_000}
