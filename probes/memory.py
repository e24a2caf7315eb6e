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
"""The PMU counters, in the order in which memory.c reads them."""

INTERRUPTS = (
    "Work of interrupts belongs to no thread: it counts for the whole machine, but not for a target or a process."
)


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Scales each PMU counter that the hardware counted for only a part of the time (multiplexing).

    A counter that was never on the hardware has no value.
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
            help=(
                "Page faults served without I/O, as perf counts them, which does not include those of get_user_pages()."
            ),
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
            help=f"Allocations of the kernel by kmalloc. {INTERRUPTS}",
            hooks=("kmalloc", "kmalloc_node"),
            needs="interrupt_context",
            sampled=True,
        ),
        Counter(
            name="kmalloc_bytes",
            help="Bytes requested by kmalloc; the kernel rounds them up to the next size of the slab.",
            hooks=("kmalloc", "kmalloc_node"),
            needs="interrupt_context",
            sampled=True,
            squares="kmalloc_squares",
            per_process=True,
        ),
        Counter(
            name="kmalloc_squares",
            help="The squares of the requested bytes, from which the error of kmalloc_bytes is estimated.",
            hooks=("kmalloc", "kmalloc_node"),
            sampled=True,
            reported=False,
        ),
        Counter(
            name="kfree_count",
            help=f"Allocations that the kernel freed by kfree, whichever process made them. {INTERRUPTS}",
            hooks=("kfree",),
            needs="interrupt_context",
            sampled=True,
        ),
        Counter(
            name="page_allocs",
            help=(
                "Pages that requests for one block of pages took from the page allocator, for any use. Pages that it "
                "allocates in bulk (for vmalloc, splice, btrfs, network drivers) are not included: the kernel counts "
                f"them only in the machine's sum of all pages: see cross_check. {INTERRUPTS}"
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
            help="Processes that the OOM killer chose; with a target, only its processes.",
            hooks=("mark_victim",),
        ),
        PmuCounters(
            name="counters",
            help=(
                "The value of each PMU counter, the time for which it was requested, and the time for which it counted."
            ),
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
            help=(
                "PMU counters that shared the hardware: the share of the time for which each counted, by which its "
                "value is scaled."
            ),
            of=("counters",),
            needs="counter:any",
            label="counter",
            gauge=True,
        ),
        Procfs(name="swap_in_pages", help="Pages read from swap.", field="vmstat:pswpin"),
        Procfs(name="swap_out_pages", help="Pages written to swap.", field="vmstat:pswpout"),
        Procfs(
            name="zswap_in_pages",
            help="Pages read from zswap, the compressed pool before the swap device, without I/O of the device.",
            field="vmstat:zswpin",
        ),
        Procfs(name="zswap_out_pages", help="Pages written to zswap.", field="vmstat:zswpout"),
    ),
    scratch=(PerCpu(name="span", value="struct memory_span"),),
    derive=derive,
)
