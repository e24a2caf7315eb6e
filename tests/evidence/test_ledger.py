"""Where the time of the target's threads went: it adds up, as a whole and for each thread."""

from dataclasses import replace
from struct import pack

import pytest

from chainbench_agent.catalog import CallStack, Names
from chainbench_agent.evidence.ledger import TOP_THREADS, ledger
from chainbench_agent.evidence.open_intervals import closed, open_time
from chainbench_agent.evidence.sample import Account, Members, OpenInterval, ProcThread, Sleeper, TaskState, Thread
from chainbench_agent.evidence.sleepers import with_accounts
from chainbench_agent.probes.blocked_time import blocked_time
from chainbench_agent.probes.offcpu import MODULE
from chainbench_agent.probes.wait_key import UNINTERRUPTIBLE

MS = 1_000_000
BEGIN, END = 1_000 * MS, 2_000 * MS
READ, FUTEX, FSYNC, NO_SYSCALL = 0, 202, 74, 0x3FF
UNKNOWN = 0xFFFFFFFF
NAMES = Names(
    tables={"calls": {READ: "read", FUTEX: "futex", FSYNC: "fsync"}},
    stacks={
        "offcpu_stacks": {
            CallStack(1): ("__schedule", "schedule", "futex_do_wait"),
            CallStack(2): ("schedule", "pipe_read"),
            CallStack(3): ("schedule", "sk_wait_data"),
        }
    },
)
STATES = {
    TaskState.RUNNING: "on_cpu_ms",
    TaskState.PREEMPTED: "runnable_ms",
    TaskState.RUNNABLE: "runnable_ms",
    TaskState.BLOCKED: "blocked_ms",
    TaskState.THROTTLED: "blocked_ms",
    TaskState.UNSEEN: "unexplained_ms",
}
PARTS = ("on_cpu_ms", "runnable_ms", "blocked_ms", "unexplained_ms")


def thread(tid=1, begin_ns=BEGIN, command="sh"):
    return Thread(tid, 7, command, begin_ns)


def account(wall=0, on_cpu=0, runnable=0, blocked=0, throttled=0):
    """An Account of times in milliseconds."""
    return Account(wall * MS, on_cpu * MS, runnable * MS, blocked * MS, throttled * MS)


def living(of, state, since_ms, sums=None, wait=UNKNOWN):
    """`since_ms`: after the beginning of the run."""
    return OpenInterval(state, BEGIN + since_ms * MS, wait, kernel_thread=False, thread=of, account=sums or account())


def sleeper(of, syscall, function, state="S", **more):
    """A thread of which no hook saw a move; /proc showed it before the run and after it."""
    proc = ProcThread(of.pid, of.command, END, state, BEGIN - 10 * MS, BEGIN - 9 * MS, on_cpu_ns=5 * MS, arrivals=3)
    return Sleeper(of, syscall, function, proc, **more)


def blocked(waits):
    """The hash of offcpu: wait → ms."""
    return {pack("=I", wait): (ms * MS).to_bytes(8, "little") for wait, ms in waits.items()}


def of_threads(*given):
    """The hash of (thread, wait, ms)."""
    return {pack("=QII", t.begin_ns, t.tid, wait): (ms * MS).to_bytes(8, "little") for t, wait, ms in given}


def stacks(**given):
    """The hash of sampled waits: `w202s1=30` is 30 ms of wait 202 with stack 1, in waits of 1 ms that were walked."""
    parts = {name: name[1:].split("s") for name in given}
    return {
        pack("=I4xQ", int(parts[name][0]), int(parts[name][1])): pack("=5Q", 0, ms * MS // 2, ms * MS, ms, ms * 500_000)
        for name, ms in given.items()
    }


@pytest.fixture
def written(sample):
    """`written(tasks=…, members=…, before=…, blocked_ns=…, …)` → the ledger, as build() has it written."""

    def of(before=None, tasks=(), members=None, **offcpu):
        first = sample(BEGIN, members=before or Members())
        last = sample(END, tasks=tuple(tasks), members=members or Members(), offcpu=offcpu)
        last = with_accounts(first, last)
        counts = closed(MODULE, last.modules["offcpu"], open_time(first, last, targeted=True))
        return ledger(blocked_time(counts, NAMES), NAMES, first, last)

    return of


def check_sums(part):
    """Its wall = on_cpu + runnable + blocked + unexplained; blocked = its categories = their reasons."""
    assert part["wall_ms"] == pytest.approx(sum(part[name] for name in PARTS), abs=1e-6)
    assert part["blocked_ms"] == pytest.approx(sum(category["ms"] for category in part["blocked"]), abs=0.001)
    for category in part["blocked"]:
        assert category["ms"] == pytest.approx(sum(reason["ms"] for reason in category["reasons"]), abs=1e-5)


def reasons(part):
    """(category, reason, system call) → ms."""
    return {
        (category["category"], reason["reason"], reason["syscall"]): reason["ms"]
        for category in part["blocked"]
        for reason in category["reasons"]
    }


def test_nothing_happened(written):
    """Zeros that were measured, and no line without a thread."""
    nothing = dict.fromkeys(("wall_ms", *PARTS), 0) | {"blocked": []}
    assert written() == nothing | {"threads": [], "threads_not_shown": 0, "idle_threads": {"threads": 0} | nothing}


def test_it_adds_up(written):
    """Living, ended and sleeping threads: as a whole, for each, and the whole is the sum of the threads."""
    a, b, c, d = thread(1), thread(2, BEGIN + 100 * MS), thread(3), thread(4)
    tasks = [
        living(a, TaskState.RUNNING, 900, account(on_cpu=200, runnable=50, blocked=640), FUTEX),
        living(b, TaskState.BLOCKED, 500, account(on_cpu=300, runnable=70, blocked=30), FSYNC),
    ]
    members = Members(
        ended_threads=1,
        ended=account(400, 100, 20, 270, 10),
        ended_singly={c: account(400, 100, 20, 270, 10)},
        sleepers=(sleeper(d, READ, "pipe_read"),),
    )
    waits = of_threads((a, FUTEX, 640), (b, FSYNC, 30), (c, READ, 270))

    found = written(
        tasks=tasks, members=members, by_thread_ns=waits, blocked_ns=blocked({FUTEX: 640, FSYNC: 30, READ: 270})
    )

    for part in (found, *found["threads"]):
        check_sums(part)
    for name in ("wall_ms", *PARTS):
        assert found[name] == pytest.approx(sum(line[name] for line in found["threads"]), abs=1e-6)
    assert [found[name] for name in ("wall_ms", *PARTS)] == [3300, 700, 140, 2450, 10]
    assert reasons(found) == {
        ("futex/lock", "blocked in futex", "futex"): 640,
        ("disk", "blocked in fsync", "fsync"): 530,
        ("other", "blocked in read", "read"): 270,
        ("pipe", "pipe_read", "read"): 1000,
        ("throttled", "CPU quota used up", ""): 10,
    }
    assert found["threads_not_shown"] == 0


@pytest.mark.parametrize(("state", "name"), STATES.items())
@pytest.mark.parametrize(
    ("begin_ms", "since_ms", "wall", "ms"),
    [(0, 400, 1000, 600), (0, 0, 1000, 1000), (-500, -500, 1000, 1000), (400, 400, 600, 600), (0, 1000, 1000, 0)],
    ids=["within", "whole run", "since before the run", "whole life", "just now"],
)
def test_the_present_state_lasts_until_the_end(written, state, name, begin_ms, since_ms, wall, ms):  # noqa: PLR0913, PLR0917 - a case
    """The present state is cut at both edges of the run; the time before it is in the account."""
    of = thread(begin_ns=BEGIN + begin_ms * MS)
    on_cpu = wall - ms
    task = living(of, state, since_ms, account(on_cpu=on_cpu), FUTEX)

    found = written(tasks=[task])

    expected = dict.fromkeys(PARTS, 0) | {"wall_ms": wall}
    expected["on_cpu_ms"] += on_cpu
    expected[name] += ms
    for part in (found, found["threads"][0]):
        check_sums(part)
        assert {key: part[key] for key in expected} == expected


def test_a_thread_is_named(written):
    """Its line begins with the kernel's numbers for it, and its command."""
    (line,) = written(tasks=[living(thread(5, command="python3"), TaskState.RUNNING, 0)])["threads"]

    assert list(line)[:3] == ["tid", "pid", "command"]
    assert (line["tid"], line["pid"], line["command"]) == (5, 7, "python3")


def test_what_is_missing_is_unexplained(written):
    """A difference is reported, also a negative one: no line is changed to make the sum right."""
    less = written(tasks=[living(thread(), TaskState.RUNNING, 900, account(on_cpu=100))])
    more = written(tasks=[living(thread(), TaskState.RUNNING, 900, account(on_cpu=1000))])

    assert (less["unexplained_ms"], more["unexplained_ms"]) == (800, -100)
    check_sums(less)
    check_sums(more)


def test_threads_without_a_record_are_in_the_whole(written):
    """There was no room for them: only their number and the sum of their times are known."""
    recorded = {thread(1): account(10, 10)}
    members = Members(ended_threads=5, ended=account(100, 60, 0, 40), ended_singly=recorded)

    found = written(members=members, blocked_ns=blocked({FUTEX: 40}))

    assert (found["wall_ms"], found["on_cpu_ms"], found["blocked_ms"]) == (100, 60, 40)
    assert [line["wall_ms"] for line in found["threads"]] == [10]
    assert found["threads_not_shown"] == 4
    check_sums(found)


def test_what_ended_before_the_run_is_none_of_it(written):
    """The sum in the kernel only grows."""
    before = Members(ended_threads=40, ended=account(9000, 5000, 1000, 2500, 500))
    after = Members(
        ended_threads=41,
        ended=account(9100, 5050, 1010, 2530, 510),
        ended_singly={thread(): account(100, 50, 10, 30, 10)},
    )

    found = written(before, members=after, blocked_ns=blocked({FUTEX: 30}))

    assert [found[name] for name in ("wall_ms", *PARTS)] == [100, 50, 10, 40, 0]
    assert found["threads_not_shown"] == 0


def test_a_thread_id_that_was_used_twice(written):
    """Two lives are two threads, each with its own waits."""
    old, new = thread(1, BEGIN), thread(1, BEGIN + 500 * MS)
    members = Members(ended_threads=1, ended=account(300, 0, 0, 300), ended_singly={old: account(300, 0, 0, 300)})

    found = written(
        tasks=[living(new, TaskState.RUNNING, 900, account(blocked=400))],
        members=members,
        by_thread_ns=of_threads((old, READ, 300), (new, FUTEX, 400)),
        blocked_ns=blocked({READ: 300, FUTEX: 400}),
    )

    assert [reasons(line) for line in found["threads"]] == [
        {("futex/lock", "blocked in futex", "futex"): 400},
        {("other", "blocked in read", "read"): 300},
    ]


@pytest.mark.parametrize(
    ("sleeper", "reason"),
    [
        (sleeper(thread(), FUTEX, "futex_do_wait"), ("futex/lock", "futex_do_wait", "futex")),
        (sleeper(thread(), FUTEX, ""), ("futex/lock", "blocked in futex", "futex")),
        (sleeper(thread(), NO_SYSCALL, "do_nanosleep"), ("sleep", "do_nanosleep", "")),
        (sleeper(thread(), FUTEX, "", frames=("pipe_read", "x")), ("pipe", "pipe_read", "futex")),
        (sleeper(thread(), READ, "", wait=FSYNC), ("disk", "blocked in fsync", "fsync")),
    ],
)
def test_a_thread_that_slept_all_the_time(written, sleeper, reason):
    """It made no move that a program could see: the kernel says in what it sleeps, as far as it says."""
    found = written(members=Members(sleepers=(sleeper,)))

    for part in (found, *found["threads"]):
        assert [part[name] for name in ("wall_ms", *PARTS)] == [1000, 0, 0, 1000, 0]
        assert reasons(part) == {reason: 1000}
        check_sums(part)


def test_a_thread_that_was_moved_in_while_it_slept(written):
    """It slept there since it fell asleep: what it did before was done elsewhere."""
    asleep = sleeper(thread(begin_ns=BEGIN + 400 * MS), READ, "pipe_read")
    found = written(members=Members(sleepers=(asleep,)))

    for part in (found, *found["threads"]):
        assert [part[name] for name in ("wall_ms", *PARTS)] == [600, 0, 0, 600, 0]


def test_a_thread_that_was_moved_out_while_it_slept(written):
    """Its account ends where it fell asleep, and adds up."""
    moved = living(thread(), TaskState.FREE, 400, account(on_cpu=300, runnable=100))
    found = written(tasks=[moved])

    for part in (found, *found["threads"]):
        assert [part[name] for name in ("wall_ms", *PARTS)] == [400, 300, 100, 0, 0]
        assert part["blocked"] == []


def test_a_thread_that_ran_all_the_time(written):
    """It never left its CPU, so no switch was seen; the kernel's own account has its time."""
    now = sleeper(thread(), NO_SYSCALL, "", state="R")
    before = Members(proc_threads={1: replace(now.proc, at_ns=BEGIN)})
    ran = replace(now, proc=replace(now.proc, on_cpu_ns=now.proc.on_cpu_ns + 1000 * MS))
    found = written(before, members=Members(sleepers=(ran,)))

    for part in (found, *found["threads"]):
        assert [part[name] for name in ("wall_ms", *PARTS)] == [1000, 1000, 0, 0, 0]
        assert part["blocked"] == []


def test_a_wait_is_split_by_what_was_sampled(written):
    """The time of a system call is exact; between its functions it is divided as in the blocks with a stack."""
    a, b = thread(1), thread(2)
    found = written(
        tasks=[
            living(a, TaskState.RUNNING, 1000, account(blocked=800)),
            living(b, TaskState.RUNNING, 1000, account(blocked=200)),
        ],
        blocked_ns=blocked({READ: 1000}),
        by_thread_ns=of_threads((a, READ, 800), (b, READ, 200)),
        sampled_ns=stacks(w0s2=30, w0s3=10),
    )

    pipe, socket = ("pipe", "pipe_read", "read"), ("network", "sk_wait_data", "read")
    assert reasons(found) == {pipe: 750, socket: 250}
    assert [reasons(line) for line in found["threads"]] == [{pipe: 600, socket: 200}, {pipe: 150, socket: 50}]


def test_what_cannot_end_by_a_signal_is_the_same_reason(written):
    """Two waits of one function and system call are added up."""
    found = written(
        tasks=[living(thread(), TaskState.RUNNING, 1000, account(blocked=50))],
        blocked_ns=blocked({FUTEX: 20, FUTEX | UNINTERRUPTIBLE: 30}),
        by_thread_ns=of_threads((thread(), FUTEX, 20), (thread(), FUTEX | UNINTERRUPTIBLE, 30)),
    )

    assert reasons(found) == reasons(found["threads"][0]) == {("futex/lock", "blocked in futex", "futex"): 50}


def test_a_page_fault(written):
    """An exception waits for a page, whatever brings it."""
    found = written(tasks=[living(thread(), TaskState.BLOCKED, 400)])

    assert reasons(found) == reasons(found["threads"][0]) == {("page_fault/memory", "exception", ""): 600}


def test_throttled(written):
    """A category of what is blocked: the quota was used up, until now."""
    task = living(thread(), TaskState.THROTTLED, 900, account(on_cpu=600, throttled=300))

    found = written(tasks=[task], throttled_wait_ns=300 * MS)

    for part in (found, *found["threads"]):
        assert (part["blocked_ms"], part["runnable_ms"]) == (400, 0)
        assert reasons(part) == {("throttled", "CPU quota used up", ""): 400}
        check_sums(part)


def test_waits_that_were_not_distinguished(written):
    """A thread whose waits found no room in the hash is blocked all the same."""
    found = written(
        tasks=[living(thread(), TaskState.RUNNING, 1000, account(blocked=700))],
        blocked_ns=blocked({FUTEX: 700}),
        by_thread_ns=of_threads((thread(), FUTEX, 100)),
    )

    assert reasons(found["threads"][0]) == {
        ("other", "not told apart", ""): 600,
        ("futex/lock", "blocked in futex", "futex"): 100,
    }
    assert reasons(found) == {("futex/lock", "blocked in futex", "futex"): 700}
    check_sums(found["threads"][0])


def test_what_is_most_comes_first(written):
    """The threads by their work; categories, and the reasons in each, by their length."""
    waits = {READ: 300, FSYNC: 50, FUTEX: 250}
    tasks = [
        living(thread(1, BEGIN + 900 * MS), TaskState.RUNNING, 900),
        living(thread(2), TaskState.RUNNING, 600, account(blocked=600)),
        living(thread(3, BEGIN + 500 * MS), TaskState.RUNNING, 500),
    ]
    found = written(
        tasks=tasks,
        blocked_ns=blocked(waits),
        by_thread_ns=of_threads(*((thread(2), wait, ms) for wait, ms in waits.items())),
        sampled_ns=stacks(w202s1=1, w202s9=9, w0s2=1, w0s3=1),
    )

    assert [line["tid"] for line in found["threads"]] == [3, 2, 1]
    for part in (found, found["threads"][1]):
        assert [category["ms"] for category in part["blocked"]] == [250, 150, 150, 50]
        assert part["blocked"][0]["category"] == "futex/lock"
        assert [reason["ms"] for reason in part["blocked"][0]["reasons"]] == [225, 25]
        assert part["blocked"][0]["reasons"][0]["reason"] == "blocked in futex"
    assert found["blocked"][0]["reasons"][0]["sampled_percent"] == 2.0
    assert found["threads"][1]["blocked"][0]["reasons"][0]["split_of"] == "target"


def test_threads_that_work_hide_behind_none_that_are_idle(written):
    """25 threads that slept for longer than the four live that do the work; the idle ones have a line of their own."""
    asleep = [living(thread(100 + i), TaskState.BLOCKED, 0, wait=FUTEX) for i in range(25)]
    workers = [living(thread(i, BEGIN + 400 * MS), TaskState.RUNNING, 700, account(runnable=300)) for i in range(4)]

    found = written(tasks=[*asleep, *workers])

    assert {line["tid"] for line in found["threads"][:4]} == {0, 1, 2, 3}
    assert len(found["threads"]) == TOP_THREADS
    assert found["threads_not_shown"] == 29 - TOP_THREADS
    idle = found["idle_threads"]
    assert [idle[name] for name in ("threads", "wall_ms", *PARTS)] == [25, 25_000, 0, 0, 25_000, 0]
    assert reasons(idle) == {("futex/lock", "blocked in futex", "futex"): 25_000}
    check_sums(idle)


def test_a_thread_that_only_waited_is_shown(written):
    """25 threads worked longer than it; a quarter of the lines is for those that existed longest."""
    workers = [living(thread(10 + i, BEGIN + 900 * MS), TaskState.RUNNING, 950) for i in range(25)]
    waiting = living(thread(9, BEGIN + 600 * MS), TaskState.BLOCKED, 601, account(on_cpu=1), wait=FUTEX)

    found = written(tasks=[*workers, waiting])

    assert len(found["threads"]) == TOP_THREADS
    (line,) = (line for line in found["threads"] if line["tid"] == 9)
    assert line["blocked_ms"] == 399


def test_the_main_thread_is_always_shown(written):
    """The main thread is shown also if it only waits, and is not idle then: it waits for the others."""
    main = living(replace(thread(7)), TaskState.BLOCKED, 0, wait=READ)
    workers = [living(thread(10 + i), TaskState.RUNNING, 0) for i in range(TOP_THREADS)]

    found = written(tasks=[*workers, main], members=Members(root=7))

    assert found["threads"][0]["tid"] == 7
    assert found["idle_threads"]["threads"] == 0
    assert written(tasks=[main], members=Members(root=8))["idle_threads"]["threads"] == 1


@pytest.mark.parametrize(
    ("begin_ms", "on_cpu", "idle"),
    [(0, 0, 1), (0, 0.999, 1), (0, 1, 0), (500, 0.5, 1), (501, 0, 0)],
    ids=["never ran", "hardly ran", "a millisecond", "half of the run", "less than half of the run"],
)
def test_who_hardly_ran(written, begin_ms, on_cpu, idle):
    """Less than a millisecond on a CPU in half a run or more; a short life is not an idle one."""
    ran = replace(account(), on_cpu_ns=int(on_cpu * MS))

    found = written(tasks=[living(thread(1, BEGIN + begin_ms * MS), TaskState.BLOCKED, begin_ms, ran)])

    assert found["idle_threads"]["threads"] == idle


def test_only_the_longest_threads_are_shown(written):
    """The others are counted, and in the whole."""
    tasks = [living(thread(i, BEGIN + i * MS), TaskState.RUNNING, i) for i in range(TOP_THREADS + 3)]

    found = written(tasks=tasks)

    assert [line["tid"] for line in found["threads"]] == list(range(TOP_THREADS))
    assert found["threads_not_shown"] == 3
    assert found["wall_ms"] == found["on_cpu_ms"] == sum(1000 - i for i in range(TOP_THREADS + 3))


def test_what_was_counted_is_not_changed(written):
    """The sample is read again for the next evidence of a run that goes on."""
    task = living(thread(), TaskState.RUNNING, 500, account(on_cpu=500))
    before = replace(task)

    assert written(tasks=[task]) == written(tasks=[task])
    assert task == before
