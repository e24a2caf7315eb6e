"""Every nanosecond of every thread is accounted for once, whatever the threads do."""

from collections import Counter
from random import Random

import pytest
from user_space import AGENT, INTERRUPTIBLE, UNINTERRUPTIBLE, blocked

from chainbench_agent.probes.offcpu import UNINTERRUPTIBLE as NO_SIGNAL


class Model:
    """What a few threads do on a few CPUs, and the account that a bystander with a notebook would keep."""

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
    """Whatever the threads do, every nanosecond is where a second account says, both edges included."""
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
        blocks=sum(offcpu["block_counts"]),
        waits=sum(counted["runqlat"]["latency_ns"].slots),
    )
    assert ours == model.totals
    assert kernel.lost() == {}
