"""Time off the CPUs, and why.  Kernel side: offcpu.c"""

from chainbench_agent.spec import Counter, Keyed, Module, Scratch, Table

BLOCKED = ("task_blocks", "task_blocked")

WAITS = 1024
"""A wait is a system call (511: none, an exception) and whether a signal may end it (512 is set if not)."""

MODULE = Module(
    name="offcpu",
    question="What did the threads wait for?",
    metrics=(
        Table(
            name="blocked_ns",
            help="Time that user threads were blocked, by system call and kind of sleep.",
            hooks=BLOCKED,
            entries=WAITS,
            names="waits",
            label="wait",
        ),
        Table(
            name="blocks",
            help="Times that user threads blocked, by system call and kind of sleep.",
            hooks=BLOCKED,
            entries=WAITS,
            names="waits",
            label="wait",
        ),
        Counter(
            name="woken_wait_ns",
            help="Time that user threads waited for a CPU after they were woken.",
            hooks=("task_waited",),
        ),
        Counter(
            name="preempted_wait_ns",
            help="Time that user threads waited for a CPU after they lost it to another.",
            hooks=("task_waited",),
        ),
        Keyed(
            name="sampled_ns",
            help="Blocked time of the blocks whose stack was taken, by wait and stack.",
            hooks=BLOCKED,
            key="struct offcpu_stack",
            entries=4096,
            when_full="the block keeps its system call, loses its function, and is counted as lost",
        ),
    ),
    scratch=(
        Scratch(name="nth_in_run", entries=WAITS, when_full="an array: it cannot be", field=True),
        Scratch(name="stacks", entries=2048, when_full="as sampled_ns; such blocks have no function"),
    ),
)
