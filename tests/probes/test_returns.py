"""The arguments of a function are known when it returns (probes/lib/returns.h); fired as by kretprobes."""

import ctypes

import pytest
from user_space import fused

from chainbench_agent.catalog import RESULT
from chainbench_agent.loading.entry_functions import SAVED_PARAMETERS, Program
from chainbench_agent.loading.unit_sizes import CALLS_UNDER_WAY
from chainbench_agent.probes import HOOKS
from chainbench_agent.probes.lock_hooks import SLOW_PATHS

MEMBER = 10
ENTRY, RETURN = (
    next(part.name.removeprefix("cb_") for part in program.parts if part.kind == kind)
    for kind in ("kprobe", "kretprobe")
    for program in fused().programs
    if program.kind == "kretprobe" and program.source.target == "tcp_sendpage"
)


@pytest.fixture
def net(kernel):
    """Threads of the target and of another process, a TCP socket, calls and returns of tcp_sendpage."""

    class Net:
        def __init__(self):
            self.ours, self.also, self.other = kernel.task(MEMBER), kernel.task(11, MEMBER), kernel.task(20)
            self.sk = kernel.library.shim_sock(2, 1, 6)

        def enters(self, by):
            kernel.fire(ENTRY, self.sk, current=by)

        def returns(self, by, size):
            kernel.fire(RETURN, size & 0xFFFFFFFF, current=by)

        @property
        def sent(self):
            return kernel.counted()["network"]["tcp_bytes_sent"]

    kernel.at(1000).tree(MEMBER)
    return Net()


def test_a_call(kernel, net):
    """With its socket and its result, whoever else is in the same function; once."""
    kernel.begin()
    for thread in (net.ours, net.other, net.also):
        net.enters(thread)
    for thread, size in ((net.ours, 1009), (net.other, 997), (net.also, 211), (net.ours, 13)):
        net.returns(thread, size)

    assert net.sent == 1009 + 211
    assert kernel.hash("cb_entered") == {}
    assert kernel.lost() == {}


def test_a_call_that_begins_before_the_run(kernel, net):
    """It was seen; one that was under way when the programs were attached was not."""
    net.enters(net.ours)
    kernel.begin()
    net.returns(net.ours, 1009)
    net.returns(net.also, 997)

    assert net.sent == 1009


def test_a_return_that_was_missed(kernel, net):
    """The next call shows that it was missed, and counts itself; misses of other processes are no loss."""
    kernel.begin()
    for thread in (net.ours, net.ours, net.other, net.other):
        net.enters(thread)
    net.returns(net.ours, 1009)

    assert net.sent == 1009
    assert kernel.lost() == {"returns_missed": 1}


def test_a_return_that_was_missed_before_the_run(kernel, net):
    """It is not of this run."""
    net.enters(net.ours)
    net.enters(net.ours)
    kernel.begin()

    assert kernel.lost() == {}


def test_no_room(kernel, net):
    """The call is lost, and counted so."""
    kernel.begin()
    used = (ctypes.c_uint8 * CALLS_UNDER_WAY).in_dll(kernel.library, "cb_entered_used")
    ctypes.memset(used, 1, CALLS_UNDER_WAY)
    net.enters(net.ours)

    assert kernel.lost() == {"keys_full": 1}


def test_what_kretprobes_may_ask():
    """Saved arguments fit; none are saved where the kernel waits for locks, as the hash map takes locks itself."""
    slow_paths = {function for _, functions in SLOW_PATHS.values() for function in functions}
    for hook in HOOKS:
        for source in hook.sources:
            if source.kind == "kretprobe":
                assert len(hook.params) - source.args.count(RESULT) <= SAVED_PARAMETERS
            if source.kind == "kretprobe" and source.target in slow_paths:
                assert Program("cb", hook.name, source).parts == (Program("cb", hook.name, source),)
