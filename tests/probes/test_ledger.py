"""Every nanosecond of every thread is accounted for once, whatever the threads do."""

from collections import Counter
from random import Random

import pytest
from user_space import AGENT, DEAD, INTERRUPTIBLE, UNINTERRUPTIBLE, blocked

from chainbench_agent.catalog import Names
from chainbench_agent.evidence.ledger import ledger
from chainbench_agent.evidence.sample import Account, Thread
from chainbench_agent.probes.blocked_time import blocked_time
from chainbench_agent.probes.wait_key import UNINTERRUPTIBLE as NO_SIGNAL


class Model:
    """Runs a few threads on a few CPUs, and keeps the account that the handlers must agree with."""

    CPUS = 3

    def __init__(self, kernel, seed):
        self.kernel = kernel
        self.random = Random(seed)  # noqa: S311 - no secret; it has to be repeatable
        self.tasks = [kernel.task(pid, syscall=pid % 7, kthread=pid % 5 == 0) for pid in range(10, 20)]
        self.tasks.append(kernel.task(AGENT + 50, tgid=AGENT))
        self.state = dict.fromkeys(self.tasks, "blocked")
        self.wait = {task: task.pid % 7 for task in self.tasks}
        self.since = dict.fromkeys(self.tasks, 0)
        self.on = [kernel.idle] * self.CPUS
        self.seen = set()
        self.totals = Counter()
        self.begun = None

    def close(self, task, state):
        """The task's interval ends; what it was goes into the account, as far as it lies in the run."""
        now = self.kernel.now_ns
        was, self.state[task] = self.state[task], state
        began, self.since[task] = self.since[task], now
        if self.begun is None:
            return
        ns = now - max(began, self.begun)
        # Whether it was woken or preempted before the run, nobody has seen; nor whether a signal may end its sleep.
        first = task not in self.seen
        self.seen.add(task)
        if task.pid > AGENT:
            return
        if was == "running":
            self.totals["on_cpu"] += ns
        elif task.pid % 5:
            wait = task.pid % 7 if first else self.wait[task]
            self.totals[wait if was == "blocked" else "preempted" if first else was] += ns
        if was in ("woken", "preempted") and state == "running":
            self.totals["waits"] += 1

    def switch(self, cpu):
        out = self.on[cpu]
        ready = [task for task in self.tasks if self.state[task] in ("woken", "preempted")]
        into = self.random.choice([*ready, self.kernel.idle])
        state, preempt = self.random.choice([(0, False), (1, True), (INTERRUPTIBLE, False), (UNINTERRUPTIBLE, False)])
        if into == out:
            return
        if out != self.kernel.idle:
            self.tell_on_cpu(out, on_cpu=False)
            asleep = state and not preempt
            self.close(out, "blocked" if asleep else "preempted")
            self.wait[out] = out.pid % 7 | (NO_SIGNAL if state == UNINTERRUPTIBLE else 0)
            if self.begun is not None and out.pid < AGENT:
                self.totals["voluntary" if asleep else "involuntary"] += 1
                self.totals["blocks"] += bool(asleep and out.pid % 5)
        else:
            state, preempt = 0, False
        if into != self.kernel.idle:
            self.tell_on_cpu(into, on_cpu=True)
            self.close(into, "running")
        self.on[cpu] = into
        self.kernel.switch(out, into, state, cpu=cpu, preempt=preempt)

    def tell_on_cpu(self, task, *, on_cpu):
        self.kernel.tell("shim_set_on_cpu", task, on_cpu)

    def wake(self):
        asleep = [task for task in self.tasks if self.state[task] == "blocked"]
        if asleep:
            task = self.random.choice(asleep)
            self.close(task, "woken")
            self.kernel.wake(task)

    def live(self, steps):
        for _ in range(steps):
            self.kernel.at(self.kernel.now_ns + self.random.randrange(1, 10**6))
            if self.random.random() < 0.4:
                self.wake()
            else:
                self.switch(self.random.randrange(self.CPUS))

    def begin(self):
        self.begun = self.kernel.now_ns
        self.kernel.begin()

    def end(self):
        self.kernel.end()
        for task in self.seen.copy():
            self.close(task, "over")


@pytest.mark.parametrize("seed", range(8))
def test_the_account_of_a_bystander(kernel, seed):
    """The handlers agree with an independent account to the nanosecond, both edges of the run included."""
    model = Model(kernel, seed)
    model.live(200)
    model.begin()
    model.live(2000)
    model.end()

    counted = kernel.counted(closed=True)
    cpu, offcpu = counted["cpu"], counted["offcpu"]
    ours = Counter(blocked(offcpu)) | Counter(
        on_cpu=cpu["on_cpu_ns"],
        woken=offcpu["woken_wait_ns"],
        preempted=offcpu["preempted_wait_ns"],
        voluntary=cpu["voluntary_switches"],
        involuntary=cpu["involuntary_switches"],
        blocks=offcpu["block_count"],
        waits=sum(counted["runqlat"]["latency_ns"].slots),
    )
    assert ours == model.totals
    assert kernel.lost() == {}


GROUP = 10
"""Every thread of the lives below is in this process, and it is the target."""


NEXT = {0: "runnable_ns", INTERRUPTIBLE: "blocked_ns", UNINTERRUPTIBLE: "blocked_ns", DEAD: None}
"""Task state when a thread leaves its CPU → the field of its account that its time is in from then on."""


class Lives:
    """Threads of one process that are born, run, wait, sleep, are throttled, and end; and a notebook of each."""

    CPUS = 4

    def __init__(self, kernel, seed):
        self.kernel = kernel
        self.random = Random(seed)  # noqa: S311 - no secret; it has to be repeatable
        self.on = [kernel.idle] * self.CPUS
        self.state, self.since, self.begun, self.books, self.unthrottled = {}, {}, {}, {}, {}
        self.ended = Counter()
        self.numbers = list(range(10, 22))

    def enters(self, task, state):
        """The interval that is open goes into the book, and another begins."""
        now = self.kernel.now_ns
        if self.state.get(task):
            until = self.unthrottled.pop(task, now)  # what comes behind it is a wait for a CPU
            self.books[task][self.state[task]] += until - self.since[task]
            self.books[task]["runnable_ns"] += now - until
        self.state[task], self.since[task] = state, now

    def is_born(self):
        number = self.random.choice(self.numbers)
        self.numbers.remove(number)
        task = self.kernel.task(number, tgid=GROUP, comm=f"t{number}", syscall=number)
        self.kernel.limit(task)
        self.books[task], self.begun[task] = Counter(), self.kernel.now_ns
        self.enters(task, "runnable_ns")
        self.kernel.born(task)

    def is_woken(self):
        asleep = [task for task, state in self.state.items() if state == "blocked_ns"]
        if asleep:
            task = self.random.choice(asleep)
            self.enters(task, "runnable_ns")
            self.kernel.wake(task)

    def is_unthrottled(self):
        """Sometimes it then waits for a CPU at once, sometimes the CPU has long been there."""
        for task, state in self.state.items():
            if state == "throttled_ns" and task not in self.unthrottled and self.random.random() < 0.5:
                self.kernel.unthrottle(task)
                self.unthrottled[task] = self.kernel.now_ns

    def switches(self):
        cpu = self.random.randrange(self.CPUS)
        out = self.on[cpu]
        ready = [task for task, state in self.state.items() if state == "runnable_ns" or task in self.unthrottled]
        into = self.random.choice([*ready, self.kernel.idle])
        state = self.random.choice(list(NEXT)) if out != self.kernel.idle else 0
        if into == out:
            return
        if out != self.kernel.idle:
            throttled = self.random.random() < 0.3
            if throttled and not state:
                self.kernel.throttle(out)
            self.enters(out, "throttled_ns" if throttled and not state else NEXT[state])
        if into != self.kernel.idle:
            self.enters(into, "on_cpu_ns")
        self.on[cpu] = into
        self.kernel.switch(out, into, state, cpu=cpu)
        if state == DEAD:
            self.is_over(out)

    def is_over(self, task):
        del self.state[task]
        self.numbers.append(task.pid)
        wall = self.kernel.now_ns - self.begun[task]
        self.ended.update(self.books[task], wall_ns=wall, threads=1)

    def live(self, steps):
        for _ in range(steps):
            self.kernel.at(self.kernel.now_ns + self.random.randrange(1, 10**6))
            kind = self.random.random()
            if kind < 0.1 and self.numbers:
                self.is_born()
            elif kind < 0.4:
                self.is_woken()
            elif kind < 0.5:
                self.is_unthrottled()
            else:
                self.switches()

    def book(self, task):
        thread = Thread(task.pid, GROUP, f"t{task.pid}", self.begun[task])
        return thread, Account(**self.books[task])


@pytest.mark.parametrize("seed", range(8))
def test_the_account_of_every_thread(kernel, seed):
    """Ended or alive, its wall time is the sum of its states, and each is what its own notebook says."""
    lives = Lives(kernel, seed)
    kernel.at(1000).tree(GROUP).begin()
    lives.live(3000)
    kernel.end()

    last = kernel.sample()
    alive = {task.thread: task.account for task in last.tasks}
    assert alive == dict(lives.book(task) for task in lives.state)
    ended = last.members.ended
    assert ended.wall_ns == ended.on_cpu_ns + ended.runnable_ns + ended.blocked_ns + ended.throttled_ns
    assert lives.ended == Counter(
        threads=last.members.ended_threads,
        **{name: getattr(ended, name) for name in Account.__slots__},
    )
    books = dict(lives.book(task) for task in lives.books if task not in lives.state)
    kept = last.members.ended_singly
    assert kept
    for thread, account in kept.items():
        parts = account.on_cpu_ns + account.runnable_ns + account.blocked_ns + account.throttled_ns
        assert account == Account(**{n: getattr(books[thread], n) for n in Account.__slots__[1:]}, wall_ns=parts)
    assert last.members.threads == len(lives.books)
    assert kernel.lost() == {}


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_unexplained(kernel, seed):
    """The evidence's ledger of such a run adds up."""
    lives = Lives(kernel, seed)
    kernel.at(1000).tree(GROUP).begin()
    lives.live(1000)
    kernel.end()

    found = ledger(blocked_time(kernel.counted(closed=True)["offcpu"], Names()), Names(), kernel.first, kernel.sample())

    assert found["unexplained_ms"] == 0
    assert found["wall_ms"] == pytest.approx(found["on_cpu_ms"] + found["runnable_ms"] + found["blocked_ms"], abs=1e-5)
    assert sum(category["ms"] for category in found["blocked"]) == pytest.approx(found["blocked_ms"], abs=1e-3)
    assert all(thread["unexplained_ms"] == 0 for thread in found["threads"])
