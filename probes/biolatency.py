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
        ),
        Counter(
            name="issued_before_run",
            help="Requests that completed in the run but were issued before it; their latency is not known.",
            hooks=HOOKS,
        ),
    ),
    scratch=(
        Scratch(
            name="issued",
            # one per request in flight: 16 devices with 1,024 tags each
            entries=16384,
            when_full="the request's latency is not measured, and counted as lost",
        ),
    ),
)
