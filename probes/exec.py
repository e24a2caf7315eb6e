"""Programs and processes started.  Kernel side: exec.c"""

from collections.abc import Mapping
from typing import Any

from chainbench_agent.abi.kernel_text import text_of
from chainbench_agent.catalog import READ_AROUND, Counter, Derived, Event, KernelCounter, Keyed, Module, Names

TOP = 20


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    del names
    commands = {
        text_of(key.split(b"\0")[0]): int.from_bytes(value, "little") for key, value in counts["commands"].items()
    }
    top = sorted(commands.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return {"top_commands": [{"command": command, "count": count} for command, count in top]}


MODULE = Module(
    name="exec",
    question="Which programs did the workload start?",
    events=(Event(name="exec", help="A program was started.", value="pid_before"),),
    metrics=(
        Counter(
            name="exec_count",
            help="Programs started by a successful execve.",
            hooks=("sched_process_exec",),
            prometheus="chainbench_exec_count_total",
            per_process=True,
        ),
        Counter(
            name="exec_failures",
            help=(
                "Calls of execve and execveat that failed, in the process that made them. A search for a program in "
                "PATH makes one such call for each directory without it."
            ),
            hooks=("sys_exit",),
            per_process=True,
        ),
        Counter(
            name="forks",
            help="Processes created.",
            hooks=("sched_process_fork",),
            per_process=True,
            kernel_counter=KernelCounter(
                "forks", "/proc/stat processes", f"processes and threads, {READ_AROUND}", plus=("threads_created",)
            ),
        ),
        Counter(name="threads_created", help="Threads created.", hooks=("sched_process_fork",), per_process=True),
        Keyed(
            name="commands",
            help="Programs started, by command name.",
            hooks=("sched_process_exec",),
            key="char[16]",
            entries=4096,
            when_full="a further command is counted in exec_count only, and as lost",
            reported=False,
        ),
        Derived(
            name="top_commands",
            help=f"The {TOP} commands started most often (the first 15 bytes of their names).",
            of=("commands",),
            label="command",
            label_help="The first 15 bytes of the command's name.",
            value="count",
        ),
    ),
    derive=derive,
)
