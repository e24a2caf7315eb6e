"""Whose a block request is (probes/biolatency.c): that of who submitted its bio, not of who issues it."""

import pytest
from user_space import INTERRUPTIBLE

MEMBER = 10


@pytest.fixture
def threads(kernel):
    """(in the target, beside it, a kernel thread)"""
    return kernel.task(MEMBER), kernel.task(20), kernel.task(30, kthread=True)


def transfer(kernel, bio, submitter, issuer):
    """A request of 70 ns, completed by whoever comes along."""
    request = kernel.request(4096, bio)
    if submitter:
        kernel.fire("block_bio_queue_0", bio, current=submitter)
    kernel.at(kernel.now_ns + 100).fire("block_rq_issue_0", request, current=issuer)
    kernel.at(kernel.now_ns + 70).fire("block_rq_complete_0", request, 0, 4096)


def found(kernel):
    biolatency = kernel.counted()["biolatency"]
    return biolatency["latency_ns"].sum, biolatency["unattributed"], biolatency["unmatched_completions"]


@pytest.mark.parametrize(
    ("submitter", "expected"),
    [(0, (70, 0, 0)), (1, (0, 0, 0)), (2, (0, 1, 0)), (None, (0, 1, 0))],
    ids=["target", "other", "kernel thread", "forgotten bio"],
)
@pytest.mark.parametrize("issuer", [0, 1, 2])
def test_the_owner(kernel, threads, submitter, issuer, expected):
    """Somebody else's is neither measured nor unattributed."""
    kernel.at(1000).tree(MEMBER).begin()

    transfer(kernel, kernel.bio(), None if submitter is None else threads[submitter], threads[issuer])

    assert found(kernel) == expected
    assert kernel.hash("biolatency_issued") == {}


@pytest.mark.parametrize("submitter", [0, 1, 2, None])
def test_the_whole_machine(kernel, threads, submitter):
    """Without a target everything is measured; who submitted it, nobody asks."""
    kernel.at(1000).begin()

    transfer(kernel, kernel.bio(), None if submitter is None else threads[submitter], threads[1])

    assert found(kernel) == (70, 0, 0)


def test_on_older_kernels(kernel, threads):
    """Before 5.11 the queue came first."""
    bio = kernel.bio()
    request = kernel.request(4096, bio)
    kernel.at(1000).tree(MEMBER).begin()

    kernel.fire("block_bio_queue_1", 0, bio, current=threads[0])
    kernel.fire("block_rq_issue_1", 0, request)
    kernel.at(1030).fire("block_rq_complete_0", request, 0, 4096)

    assert found(kernel) == (30, 0, 0)


def test_a_bio_is_used_again(kernel, threads):
    """The last one who submitted it is its owner."""
    bio = kernel.bio()
    kernel.at(1000).tree(MEMBER).begin()
    for submitter in (0, 1, 2, 0):
        transfer(kernel, bio, threads[submitter], threads[1])

    assert found(kernel) == (140, 1, 0)


def test_a_request_without_a_bio(kernel):
    """A flush belongs to nobody."""
    kernel.at(1000).tree(MEMBER).begin()
    transfer(kernel, None, None, kernel.idle)

    assert found(kernel) == (0, 1, 0)


def test_issued_again(kernel, threads):
    """It stays the owner's, and is measured from its last issue."""
    bio = kernel.bio()
    request = kernel.request(4096, bio)
    kernel.at(1000).tree(MEMBER).begin()
    kernel.fire("block_bio_queue_0", bio, current=threads[0])
    kernel.at(1100).fire("block_rq_issue_0", request, current=threads[2])
    kernel.at(1200).fire("block_rq_requeue_0", request, current=threads[2])
    kernel.at(1300).fire("block_rq_issue_0", request, current=threads[2])
    kernel.at(1350).fire("block_rq_complete_0", request, 0, 4096)

    assert found(kernel) == (50, 0, 0)


def test_the_submitter_of_a_cgroup(kernel, threads):
    """By where it is when it submits."""
    ours, other, _ = threads
    kernel.move(ours, 5)
    kernel.move(other, 6)
    kernel.at(1000).cgroup(5, level=1).begin()
    for submitter in (ours, other):
        transfer(kernel, kernel.bio(), submitter, other)

    kernel.switch(kernel.idle, ours)
    kernel.switch(ours, kernel.idle, INTERRUPTIBLE)
    kernel.move(ours, 6)
    transfer(kernel, kernel.bio(), ours, other)

    assert found(kernel) == (70, 0, 0)
