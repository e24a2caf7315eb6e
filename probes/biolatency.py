"""Block I/O latency.  Kernel side: biolatency.c"""

from chainbench_agent.spec import Counter, Distribution, Module, Scratch

HOOKS = ("block_rq_issue", "block_rq_requeue", "block_rq_complete")

MODULE = Module(
    name="biolatency",
    question="Did the workload wait for the disk?",
    metrics=(
        Distribution(
            name="latency_ns",
            help="Time of a block request from its issue to the device until its completion.",
            hooks=HOOKS,
            prometheus="chainbench_biolatency_microseconds",
        ),
        Counter(
            name="unattributed",
            help=(
                "Requests submitted by a kernel thread on behalf of somebody unknown: writeback, the journal, flushes. "
                "Without a target these are measured like all others."
            ),
            hooks=(*HOOKS, "block_bio_queue"),
        ),
        Counter(
            name="unmatched_completions",
            help=(
                "Completions without an issue in the run: requests issued before it, and writes that only ask for "
                "a flush, which complete beside the flush itself (the flush is measured)."
            ),
            hooks=HOOKS,
        ),
    ),
    scratch=(
        Scratch(
            name="owners",
            # as many bios as requests, and some that were merged; an old one goes when a new one comes
            entries=32768,
            when_full="a request whose bio is forgotten is counted as unattributed",
        ),
        Scratch(
            name="issued",
            # one per request in flight: 16 devices with 1,024 tags each
            entries=16384,
            when_full="the request's latency is not measured, and counted as lost",
        ),
    ),
)
