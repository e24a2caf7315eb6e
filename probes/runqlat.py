"""Run-queue latency.  Kernel side: runqlat.c"""

from chainbench_agent.catalog import Counter, Distribution, Module

MODULE = Module(
    name="runqlat",
    question="Did runnable threads wait for a CPU?",
    metrics=(
        Distribution(
            name="latency_ns",
            help="Time from becoming runnable (woken, created or preempted) to running, without throttled time.",
            hooks=("task_waited",),
            prometheus="chainbench_runqlat_microseconds",
        ),
        Counter(
            name="wait_ns",
            help="Time that threads waited for a CPU.",
            hooks=("task_waited",),
            per_process=True,
            reported=False,
        ),
    ),
)
