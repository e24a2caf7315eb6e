"""The sizes of the maps that all modules share, and the kinds of system calls: `generated/sizes.h` of a BPF unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from chainbench_agent.catalog import DISKS, HISTOGRAM_SLOTS, SLOTS_PER_OCTAVE_BITS
from chainbench_agent.host.syscall_names import syscalls
from chainbench_agent.loading.entry_functions import SAVED_PARAMETERS
from chainbench_agent.probes import CALLS, FIELDS

TASK_RECORDS = 65536
"""Threads alive at once that have a record each, of 192 bytes; fewer where the kernel numbers fewer (bpf_unit.py)."""

MEMBERS = 16384
"""Processes alive at once that a target may have; those beyond are counted as lost."""

PROCESSES = 4096
"""Processes that have a record each, a power of two; what others did is in the sums."""

ENDED_THREADS = 2048
"""Ended threads of a target that are recorded one by one; the others are in the sum."""

CALL_NUMBERS = 512
"""System call numbers that can be followed; Linux 7.2 ends at 471."""

REQUESTS = 16384
"""Block requests at once, a power of two: 16 devices with 1,024 tags each; one without room is counted as lost."""

BIO_SETS = 2048
"""A power of two; each holds 7 bios, and a new one replaces an old one (see machines/request.h)."""

CALLS_UNDER_WAY = 16384
"""Calls of kernel functions at once whose returns are awaited (see lib/returns.h); one beyond is counted as lost."""

INTERRUPTED = 16384
"""Threads at once whose wait was interrupted, and whose next call says whether it goes on (see machines/calls.h)."""

LOCK_WAITS = 16384
"""Threads that wait for a lock of the kernel at once, a power of two; those beyond are counted as lost."""


def sizes_h(has_field: Callable[[str], bool], host: Mapping[str, int]) -> str:
    """`host`: CB_<key> of this host, instead of those of a host that has no PMU counters and emits no events."""
    host = {"COUNTERS": 0, "TASKS": TASK_RECORDS, "SLOW_IO_NS": 0} | dict(host)
    lines = [
        f"#define CB_SLOTS {HISTOGRAM_SLOTS}",
        f"#define CB_SLOT_BITS {SLOTS_PER_OCTAVE_BITS}",
        f"#define CB_MEMBERS {MEMBERS}",
        f"#define CB_ENDED_THREADS {ENDED_THREADS}",
        f"#define CB_PROCESSES {PROCESSES}",
        f"#define CB_CALL_NUMBERS {CALL_NUMBERS}",
        *("enum cb_call {", *(f"\tCB_CALL_{kind}," for kind in call_kinds()), "};"),
        f"#define CB_REQUESTS {REQUESTS}",
        f"#define CB_DISKS {DISKS}",
        f"#define CB_BIO_SETS {BIO_SETS}",
        f"#define CB_LOCK_WAITS {LOCK_WAITS}",
        f"#define CB_INTERRUPTED {INTERRUPTED}",
        f"#define CB_ENTERED_ENTRIES {CALLS_UNDER_WAY}",
        f"#define CB_ENTERED_WITH {SAVED_PARAMETERS}",
        *(f"#define CB_{name} {value}" for name, value in host.items()),
        *(f"#define CB_HAS_{name}" for name, field in FIELDS.items() if has_field(field)),
    ]
    return "\n".join(lines) + "\n"


def call_kinds() -> tuple[str, ...]:
    """The names of the kinds of system calls, in the order of their numbers: CB_CALL_<name> in C."""
    return ("NONE", *CALLS, "UNSEEN", "INTERRUPTED")


def followed_calls(machine: str) -> Iterator[tuple[int, int, int]]:
    """The entries of cb_call_kinds: number, its kind in 64-bit programs of `machine`, its kind in 32-bit ones."""
    kinds = {name: kind for kind, group in enumerate(call_kinds()) for name in CALLS.get(group, ())}
    wide, narrow = syscalls(machine), syscalls("i386")
    for number in range(CALL_NUMBERS):
        in_wide, in_narrow = (kinds.get(table.get(number, ""), 0) for table in (wide, narrow))
        if in_wide or in_narrow:
            yield number, in_wide, in_narrow
