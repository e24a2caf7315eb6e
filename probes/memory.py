"""Page faults, kernel memory, the CPU's caches.  Kernel side: memory.c"""

from collections.abc import Mapping
from typing import Any

from chainbench_agent.catalog import (
    READ_AROUND,
    Counter,
    Derived,
    Event,
    FixedNames,
    KernelCounter,
    Module,
    Names,
    PerCpu,
    PmuCounters,
    Procfs,
)

COUNTERS = ("cache_references", "cache_misses", "l1d_misses", "l2_misses", "dtlb_misses", "itlb_misses")
"""The counters of the CPU, in the order in which memory.c reads them."""

INTERRUPTS = (
    "What interrupts do belongs to no thread: it counts for the whole machine, and neither for a target nor "
    "for a process."
)


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """A counter that was on the CPU's hardware for a part of the time is scaled by that part.

    One that never was has no value.
    """
    del names
    size = len(COUNTERS)
    values, enabled, running = (counts["counters"][i * size : (i + 1) * size] for i in range(3))
    shares = {name: r / e if e else 1.0 for name, e, r in zip(COUNTERS, enabled, running, strict=True)}
    found: dict[str, Any] = {
        name: round(value / shares[name]) for name, value in zip(COUNTERS, values, strict=True) if shares[name]
    }
    if {"cache_references", "cache_misses"} <= found.keys():
        found["cache_hits"] = max(found["cache_references"] - found["cache_misses"], 0)
    found["multiplexed"] = {name: round(share, 4) for name, share in shares.items() if share < 1}
    return found


def _of_the_cpu(name: str, help_: str) -> Derived:
    return Derived(name=name, help=help_, of=("counters",), needs=f"counter:{name}")


MODULE = Module(
    name="memory",
    question="What did the workload cost in memory, and how well did the caches serve it?",
    events=(Event(name="oom_kill", help="The kernel chose this process to be killed, because memory ran out."),),
    metrics=(
        Counter(
            name="page_faults_minor",
            help="Page faults served without I/O, as perf counts them: those of get_user_pages() are not among them.",
            hooks=("minor_fault",),
            per_process=True,
            each_of=("minor_fault",),
        ),
        Counter(
            name="page_faults_major",
            help="Page faults that had to wait for I/O, as perf counts them.",
            hooks=("major_fault",),
            per_process=True,
            each_of=("major_fault",),
        ),
        Counter(
            name="kmalloc_count",
            help=f"Pieces of memory that the kernel got by kmalloc. {INTERRUPTS}",
            hooks=("kmalloc", "kmalloc_node"),
            needs="interrupt_context",
            sampled=True,
        ),
        Counter(
            name="kmalloc_bytes",
            help="Bytes asked for by kmalloc; what is set aside is rounded up to the next size of the slab.",
            hooks=("kmalloc", "kmalloc_node"),
            needs="interrupt_context",
            sampled=True,
            squares="kmalloc_squares",
            per_process=True,
        ),
        Counter(
            name="kmalloc_squares",
            help="The squares of the bytes asked for, by which the error of kmalloc_bytes is estimated.",
            hooks=("kmalloc", "kmalloc_node"),
            sampled=True,
            reported=False,
        ),
        Counter(
            name="kfree_count",
            help=f"Pieces of memory that the kernel gave back by kfree, whoever had got them. {INTERRUPTS}",
            hooks=("kfree",),
            needs="interrupt_context",
            sampled=True,
        ),
        Counter(
            name="page_allocs",
            help=(
                "Pages taken from the page allocator by requests for one block of pages, for whatever use. Not those "
                "that it gives in bulk (to vmalloc, splice, btrfs, network drivers), of which the kernel tells nothing "
                f"but the machine's sum of all pages: see cross_check. {INTERRUPTS}"
            ),
            hooks=("mm_page_alloc",),
            needs="interrupt_context",
            kernel_counter=KernelCounter(
                "page_allocs",
                "/proc/vmstat pgalloc_*",
                f"with the agent's own pages, and those given in bulk, which no tracepoint shows, {READ_AROUND}",
            ),
        ),
        Counter(
            name="oom_kills",
            help="Processes that the OOM killer chose; of a target: those of its own.",
            hooks=("mark_victim",),
        ),
        PmuCounters(
            name="counters",
            help="Of each counter of the CPU: its value, the time it was wanted, the time it was on the hardware.",
            hooks=("task_ran", "task_waited", "task_throttled"),
            entries=3 * len(COUNTERS),
            names=FixedNames(COUNTERS * 3),
            label="counter",
            reported=False,
            events=COUNTERS,
            span="span",
        ),
        _of_the_cpu("cache_references", "Accesses to the last level cache: on Intel all, elsewhere reads."),
        _of_the_cpu("cache_misses", "Accesses to the last level cache that missed: on Intel all, elsewhere reads."),
        _of_the_cpu("cache_hits", "Accesses to the last level cache that did not miss."),
        _of_the_cpu("l1d_misses", "Reads that missed the first level data cache."),
        _of_the_cpu("l2_misses", "Requests that missed the second level cache, as the CPU's maker counts them."),
        _of_the_cpu("dtlb_misses", "Reads whose address was not in the TLB."),
        _of_the_cpu("itlb_misses", "Instructions whose address was not in the TLB."),
        Derived(
            name="multiplexed",
            help="Counters that took turns on the hardware: the share of the time that each was counting, and by which "
            "its value is scaled.",
            of=("counters",),
            needs="counter:any",
            label="counter",
            gauge=True,
        ),
        Procfs(name="swap_in_pages", help="Pages read from swap.", field="vmstat:pswpin"),
        Procfs(name="swap_out_pages", help="Pages written to swap.", field="vmstat:pswpout"),
        Procfs(
            name="zswap_in_pages",
            help="Pages that came out of zswap, the compressed pool before the swap device, whose I/O is none then.",
            field="vmstat:zswpin",
        ),
        Procfs(name="zswap_out_pages", help="Pages that went into zswap.", field="vmstat:zswpout"),
    ),
    scratch=(PerCpu(name="span", value="struct memory_span"),),
    derive=derive,
)
