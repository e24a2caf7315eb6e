"""System calls made.  Kernel side: syscalls.c"""

from chainbench_agent.spec import Counter, Module, Table

MODULE = Module(
    name="syscalls",
    section="syscall_counts",
    question="What did the workload ask of the kernel?",
    metrics=(
        Table(
            name="calls",
            help="System calls made, by name, counted as they are entered.",
            hooks=("sys_enter",),
            # Linux 7.2 ends at 471
            entries=512,
            names="syscalls",
            label="syscall",
        ),
        Table(
            name="calls_32bit",
            help="System calls made by 32-bit programs.",
            hooks=("sys_enter",),
            entries=512,
            names="syscalls_32bit",
            label="syscall",
        ),
        Counter(
            name="unknown_calls",
            help="System calls with a number above every known one (x32 programs, or calls that do not exist).",
            hooks=("sys_enter",),
        ),
    ),
)
