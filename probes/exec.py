"""Programs and processes started.  Kernel side: exec.c"""

from chainbench_agent.spec import Counter, Keyed, Module

MODULE = Module(
    name="exec",
    question="Which programs did the workload start?",
    metrics=(
        Counter(name="exec_count", help="Programs started by a successful execve.", hooks=("sched_process_exec",)),
        Counter(name="forks", help="Processes created.", hooks=("sched_process_fork",)),
        Counter(name="threads_created", help="Threads created.", hooks=("sched_process_fork",)),
        Keyed(
            name="top_commands",
            help="Programs started, by command name (the first 15 characters).",
            hooks=("sched_process_exec",),
            key="char[16]",
            label="command",
            entries=4096,
            when_full="a further command is counted in exec_count only, and as lost",
        ),
    ),
)
