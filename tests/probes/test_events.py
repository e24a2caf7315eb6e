"""Events that handlers emit (probes/lib/events.h), into a ring buffer that only the test reads.

Two kinds are emitted only here, as no measured test provokes them: an RCU stall would hold up the machine for 21
seconds, and two orders of the kernel's own mutexes would be a fault of the kernel.  The test makes the kernel's calls.
"""

import ctypes
import shutil

import pytest
from shim_sockets import MEMBER, Net
from user_space import AGENT, CPUS, UserSpace, fused

from chainbench_agent.kernel.reading import ring_buffer
from chainbench_agent.loading import event_records
from chainbench_agent.probes import CATALOG

SECOND = 10**9
A, B = 0x1000, 0x2000
KERNEL = 0xFFFF888000001000
ROOM = 4096 // (8 + event_records._RECORD.size)
"""Records in one page."""


@pytest.fixture(scope="module")
def emitting_unit(compile_unit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_records, "PAGES", 1)
        return compile_unit(fused(EVENTS=1).text, "telling")


class EmittingKernel(UserSpace):
    """A kernel whose ring buffer of events is read."""

    def listen(self, *, on):
        (ctypes.c_uint32 * 1).in_dll(self.library, "cb_listening_cells")[0] = on
        return self

    def heard(self):
        """All events that were emitted; empties the ring buffer."""
        stride = 8 + event_records._RECORD.size
        records = self.raw("cb_event_records")[: self.get("cb_event_records_filled")]
        self.set("cb_event_records_filled", ctypes.c_uint64, 0)
        runs, kinds = {self.run: f"run-{self.run}"}, event_records.kinds(CATALOG)
        return [
            event_records.decode(records[at + 8 : at + stride], kinds, runs) for at in range(0, len(records), stride)
        ]

    def dropped(self):
        """Cause → how many, of all kinds and CPUs."""
        _, _, *sums = map(sum, zip(*ring_buffer._COUNTS.iter_unpack(self.raw("cb_event_counts")), strict=True))
        return dict(zip(ring_buffer.CAUSES, sums, strict=True))

    def exec(self, task, times=1, *, cpu=0):
        for _ in range(times):
            self.fire("sched_process_exec_0", task, task.pid, 0, cpu=cpu, current=task)


@pytest.fixture
def kernel(emitting_unit, tmp_path):
    return EmittingKernel(ctypes.CDLL(str(shutil.copy(emitting_unit, tmp_path)))).at(SECOND).listen(on=True)


@pytest.fixture
def one(kernel):
    return kernel.task(10, comm="one")


def test_an_event(kernel, one):
    """When, what, who, in which run, and its value: as the agent reads them from the same bytes."""
    kernel.begin().at(SECOND + 7).exec(one)

    (event,) = kernel.heard()
    assert event == event_records.EventRecord(SECOND + 7, "exec.exec", 10, "one", {"pid_before": 10}, "run-1")
    assert kernel.dropped() == {"held_back": 0, "without_room": 0}


def test_an_event_has_the_id_of_its_run(kernel, one):
    """An event of one run that is read during the next does not get the next one's id."""
    kernel.begin().exec(one)
    kernel.end().begin().exec(one)

    assert [event.run_id for event in kernel.heard()] == [None, "run-2"]


def test_what_there_is_no_room_for_is_counted(kernel, one):
    """Events that fit wait to be read, the others are counted; after a read there is room again."""
    kernel.begin().exec(one, 97)
    assert kernel.dropped() == {"held_back": 0, "without_room": 97 - ROOM}
    assert len(kernel.heard()) == ROOM

    kernel.at(2 * SECOND).exec(one, 3)
    assert len(kernel.heard()) == 3
    assert kernel.dropped() == {"held_back": 0, "without_room": 97 - ROOM}
    assert kernel.counted()["exec"]["exec_count"] == 97 + 3


def test_more_than_is_emitted_in_a_second(kernel, one):
    """The limit is for each CPU and each kind of event, and for one second."""
    kernel.begin()
    for cpu in range(CPUS):
        for _ in range(2):
            kernel.exec(one, 53, cpu=cpu)
            kernel.heard()
    assert kernel.dropped() == {"held_back": (106 - event_records.PER_SECOND) * CPUS, "without_room": 0}

    kernel.fire("rcu_stall_warning_0", 0)
    kernel.at(2 * SECOND).exec(one)
    assert [event.name for event in kernel.heard()] == ["locks.rcu_stall", "exec.exec"]


def test_nothing_is_emitted_while_nobody_listens(kernel, one):
    kernel.listen(on=False).begin().exec(one, 53)

    assert kernel.heard() == []
    assert kernel.dropped() == {"held_back": 0, "without_room": 0}


def test_an_rcu_stall(kernel):
    """The event names no process: the one that the warning interrupted has nothing to do with it."""
    kernel.begin().fire("rcu_stall_warning_0", 0, current=kernel.task(30, comm="other"))

    assert kernel.heard() == [event_records.EventRecord(SECOND, "locks.rcu_stall", 0, "", {}, "run-1")]
    assert kernel.counted()["locks"]["rcu_stalls"] == 1


def test_a_slow_request_of_the_target(kernel):
    """The event names no process, as a request ends in an interrupt; requests of others emit no event."""
    threads = [kernel.task(pid, kthread=pid == 30) for pid in (10, 20, 30, AGENT)]
    kernel.tree(10).begin()
    for took_ns, submitter in zip((53, 59, 61, 67), threads, strict=True):
        bio = kernel.bio()
        request = kernel.request(4096, bio)
        kernel.fire("block_bio_queue_0", bio, current=submitter)
        kernel.fire("block_rq_issue_0", request, current=submitter)
        kernel.at(kernel.now_ns + took_ns).fire("block_rq_complete_0", request, 0, 4096, current=threads[1])

    assert kernel.heard() == [
        event_records.EventRecord(SECOND + 53, "io.slow_request", 0, "", {"latency_ns": 53}, "run-1")
    ]


def test_segments_of_the_target_that_are_sent_again(kernel):
    """The event names the owner of the socket, though a timer sends; sockets of others or unknown owners emit none."""
    net = Net(kernel)
    for sk, segments in ((net.connected(net.ours), 3), (net.connected(net.other), 5), (net.socket(), 7)):
        net.again(sk, segments)

    (event,) = kernel.heard()
    assert (event.name, event.pid, event.details) == ("network.retransmit", MEMBER, {"segments": 3})


def nest(kernel, task, *mutexes):
    """Take them in this order, and give them back: the kernel's own, or a program's."""
    own = mutexes[0] == KERNEL or mutexes[-1] == KERNEL
    for mutex in mutexes:
        if own:
            kernel.fire("kfunc__mutex_lock", mutex, current=task)
        else:
            kernel.fire("pthread_wants_0", mutex, current=task)
            kernel.fire("pthread_answers_0", 0, current=task)
    for mutex in reversed(mutexes):
        kernel.fire("kfunc__mutex_unlock" if own else "pthread_unlocks_0", mutex, current=task)


@pytest.mark.parametrize(
    ("mutexes", "name"), [((KERNEL + 64, KERNEL), "kernel_order_violation"), ((A, B), "order_violation")]
)
def test_two_orders_of_two_mutexes(kernel, one, mutexes, name):
    """Emitted once, for the thread that made the second order, with the mutex it requested; not for one thread only."""
    two = kernel.task(11, tgid=10, comm="two")
    kernel.tree(10).begin()
    for _ in range(2):
        nest(kernel, one, *mutexes)
        nest(kernel, one, *reversed(mutexes))
    assert kernel.heard() == []

    for _ in range(2):
        nest(kernel, two, *reversed(mutexes))
    (event,) = kernel.heard()
    assert (event.name, event.pid, event.details) == (f"locks.{name}", 10, {"mutex_address": mutexes[0]})


def test_mutexes_of_others_than_the_target(kernel):
    """No event is emitted for these, nor for the agent's own."""
    kernel.tree(10).begin()
    for task in (kernel.task(30), kernel.task(31), kernel.task(AGENT)):
        nest(kernel, task, KERNEL, KERNEL + 64)
        nest(kernel, task, KERNEL + 64, KERNEL)

    assert kernel.heard() == []
