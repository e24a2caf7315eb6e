"""A simulated machine: programs with threads, locks, disks and children, and where the time of each thread went.

A program is a generator of operations; what an operation answers is sent back into it.
"""

import heapq
from collections import defaultdict, deque
from dataclasses import dataclass, field
from itertools import count

SLICE_MS = 4.0
MAIN_PID = 100


@dataclass(eq=False)
class Thread:
    program: object
    pid: int
    line: str = "runnable"
    since: float = 0.0
    left_ms: float = 0.0
    answer: object = None
    ended: bool = False
    joined_by: list = field(default_factory=list)
    lines: dict = field(default_factory=lambda: defaultdict(float))


class Machine:
    def __init__(self, cpus=2):
        self.now, self.free, self.events, self.order = 0.0, cpus, [], count()
        self.ready, self.threads, self.pids = deque(), [], count(MAIN_PID)
        self.locks = defaultdict(lambda: [None, deque()])
        self.queues = defaultdict(lambda: (deque(), deque()))

    def run(self, program):
        """Until the main thread ends; its lines, and (pid, lines) of all others."""
        main = self.start(program, next(self.pids))
        while not main.ended:
            self.now, _, what, thread = heapq.heappop(self.events)
            what(thread)
        for thread in self.threads:
            if not thread.ended:
                self.enter(thread, thread.line)
        return dict(main.lines), [(thread.pid, dict(thread.lines)) for thread in self.threads if thread is not main]

    def after(self, ms, what, thread):
        heapq.heappush(self.events, (self.now + ms, next(self.order), what, thread))

    def enter(self, thread, line):
        """The thread's time until now belongs to the line it was in."""
        thread.lines[thread.line] += self.now - thread.since
        thread.line, thread.since = line, self.now

    def start(self, program, pid):
        thread = Thread(program, pid, since=self.now)
        self.threads.append(thread)
        self.wake(thread)
        return thread

    def wake(self, thread, answer=None):
        thread.answer = answer
        self.enter(thread, "runnable")
        self.ready.append(thread)
        self.fill()

    def fill(self):
        while self.free and self.ready:
            self.free -= 1
            thread = self.ready.popleft()
            self.enter(thread, "on_cpu")
            self.after(0, self.step, thread)

    def leave(self, thread, line):
        """Give the CPU up and wait."""
        self.free += 1
        self.enter(thread, line)
        self.fill()

    def slice_ends(self, thread):
        """The thread makes way for another one that is ready, if it has not finished computing."""
        if thread.left_ms > 1e-9 and self.ready:
            self.leave(thread, "runnable")
            self.ready.append(thread)
            self.fill()
        else:
            self.step(thread)

    def step(self, thread):
        """The thread goes on until it computes, waits or ends."""
        if thread.left_ms > 1e-9:
            self.compute(thread)
            return
        try:
            while True:
                answer, thread.answer = thread.answer, None
                name, *values = thread.program.send(answer)
                if getattr(self, f"do_{name}")(thread, *values):
                    return
        except StopIteration:
            thread.ended = True
            self.leave(thread, "ended")
            for waiter in thread.joined_by:
                self.wake(waiter)

    def compute(self, thread):
        ms = min(SLICE_MS, thread.left_ms)
        thread.left_ms -= ms
        self.after(ms, self.slice_ends, thread)

    # --- The operations: true where the thread does not go on at once -----------------------------

    def do_run(self, thread, ms):
        thread.left_ms = ms
        self.compute(thread)
        return True

    def do_wait(self, thread, line, ms):
        self.leave(thread, line)
        self.after(ms, self.wake, thread)
        return True

    def do_lock(self, thread, name):
        lock = self.locks[name]
        if lock[0] is None:
            lock[0] = thread
            return False
        lock[1].append(thread)
        self.leave(thread, "futex/lock")
        return True

    def do_unlock(self, _, name):
        lock = self.locks[name]
        lock[0] = lock[1].popleft() if lock[1] else None
        if lock[0]:
            self.wake(lock[0])

    def do_put(self, _, name, item):
        items, waiters = self.queues[name]
        if waiters:
            self.wake(waiters.popleft(), item)
        else:
            items.append(item)

    def do_get(self, thread, name):
        items, waiters = self.queues[name]
        if items:
            thread.answer = items.popleft()
            return False
        waiters.append(thread)
        self.leave(thread, "futex/lock")
        return True

    def do_thread(self, thread, program):
        thread.answer = self.start(program, thread.pid)

    def do_process(self, thread, program):
        thread.answer = self.start(program, next(self.pids))

    def do_join(self, thread, other):
        if other.ended:
            return False
        other.joined_by.append(thread)
        self.leave(thread, "wait_child" if other.pid != thread.pid else "futex/lock")
        return True
