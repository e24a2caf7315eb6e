"""Twelve programs before and after one change, and the lines of the ledger that are to blame for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    program: object
    before: float
    after: float
    cause: frozenset
    """Empty: the change hardly shows in the wall clock."""
    needs_wakers: bool = False
    """The main thread waits for its own threads: without a record of who woke it, only the wait is known."""


def disk(ms):
    return "wait", "disk", ms


def started(programs):
    threads = []
    for program in programs:
        thread = yield "thread", program
        threads.append(thread)
    return threads


def one_thread(reads):
    for _ in range(reads):
        yield "run", 0.1
        yield disk(0.2)


def idle_pool(serial_ms):
    def worker():
        while (yield "get", "jobs"):
            yield "run", 20.0
            yield "put", "results", True

    workers = yield from started([worker() for _ in range(8)])
    yield "run", serial_ms
    for _ in workers:
        yield "put", "jobs", True
    for _ in workers:
        yield "get", "results"
    for _ in workers:
        yield "put", "jobs", False
    for worker_ in workers:
        yield "join", worker_


def lock_held_long(held_ms):
    def worker():
        for _ in range(50):
            yield "run", 0.5
            yield "lock", "L"
            yield "run", held_ms
            yield "unlock", "L"

    yield from in_parallel([worker() for _ in range(4)])


def in_parallel(programs):
    for thread in (yield from started(programs)):
        yield "join", thread


def holder_sleeps(ms):
    def holder():
        yield "lock", "L"
        yield "put", "held", True
        yield "wait", "sleep", ms
        yield "unlock", "L"

    thread = yield "thread", holder()
    yield "get", "held"
    yield "lock", "L"
    yield "run", 30.0
    yield "unlock", "L"
    yield "join", thread


def with_pollers(reads):
    def poller():
        while True:
            yield "wait", "sleep", 10.0
            yield "run", 0.05

    for _ in range(3):
        yield "thread", poller()
    for _ in range(reads):
        yield "run", 0.05
        yield disk(0.25)


def pipeline(write_ms):
    def consumer():
        while (yield "get", "items"):
            yield "run", 0.2
            yield disk(write_ms)
            yield "put", "done", True

    thread = yield "thread", consumer()
    for _ in range(100):
        yield "run", 0.3
        yield "put", "items", True
        yield "get", "done"
    yield "put", "items", False
    yield "join", thread


def compiler(ms):
    yield "run", ms
    yield disk(5.0)


def shell(children):
    def child():
        yield "run", 3.0

    for _ in range(children):
        yield "join", (yield "process", child())
    yield "run", 50.0


def make_two_jobs(ms):
    jobs = []
    for _ in range(20):
        jobs.append((yield "process", compiler(ms)))
        if len(jobs) == 2:
            yield "join", jobs.pop(0)
    for job in jobs:
        yield "join", job


def with_helper(ms):
    def helper():
        yield "run", ms

    thread = yield "thread", helper()
    for _ in range(100):
        yield "run", 2.0
        yield disk(1.0)
    yield "join", thread


def prefetching(read_ms):
    def reader():
        for _ in range(100):
            yield disk(read_ms)
            yield "put", "pages", True

    thread = yield "thread", reader()
    for _ in range(100):
        yield "get", "pages"
        yield "run", 3.0
    yield "join", thread


def reader_and_busy_helper(read_ms):
    def reader():
        for _ in range(50):
            yield "get", "requests"
            yield disk(read_ms)
            yield "put", "pages", True

    def helper():
        while True:
            yield "run", 2.0
            yield "wait", "sleep", 0.1

    thread = yield "thread", reader()
    yield "thread", helper()
    for _ in range(50):
        yield "put", "requests", True
        yield "get", "pages"
        yield "run", 0.5
    yield "join", thread


def lock_fight(rounds):
    def worker(*, writes):
        for _ in range(rounds):
            yield "lock", "L"
            yield "run", 0.2
            yield "unlock", "L"
            yield "run", 0.2
        if writes:
            yield disk(100.0)

    yield from in_parallel([worker(writes=i == 0) for i in range(3)])


def case(name, program, before, after, *cause, needs_wakers=False):
    return Case(name, program, before, after, frozenset(cause), needs_wakers)


CASES = (
    case("one thread, 400 reads become 100", one_thread, 400, 100, "disk", "on_cpu"),
    case("main computes less while a pool is idle", idle_pool, 300.0, 200.0, "on_cpu"),
    case("four threads, a lock held shorter", lock_held_long, 2.0, 1.0, "on_cpu", needs_wakers=True),
    case("a lock held by a thread that sleeps longer", holder_sleeps, 50.0, 250.0, "futex/lock", "sleep"),
    case("pollers next to it, 400 reads become 100", with_pollers, 400, 100, "disk", "on_cpu"),
    case("a pipeline whose consumer writes faster", pipeline, 3.0, 1.0, "disk", needs_wakers=True),
    case("a shell with fewer children", shell, 50, 10, "on_cpu"),
    case("two jobs at a time that compute less", make_two_jobs, 30.0, 20.0, "on_cpu"),
    case("a helper that nobody waits for", with_helper, 150.0, 50.0),
    case("reads that are hidden behind computation", prefetching, 2.0, 1.0),
    case("a reader gets faster while a helper computes", reader_and_busy_helper, 4.0, 2.0, "disk", needs_wakers=True),
    case("three threads that fight for a lock less often", lock_fight, 300, 150, "on_cpu", needs_wakers=True),
)
