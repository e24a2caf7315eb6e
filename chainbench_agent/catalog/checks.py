"""Words for what a figure is compared with: another figure, the ledger, a counter of the kernel's own."""

from __future__ import annotations

from typing import Literal, NamedTuple

READ_AROUND = "read a moment before the run and after it"
"""Why a kernel's counter differs a little from what a run counts."""

RoleName = Literal["on_cpu", "idle", "runnable", "blocked", "throttled", "throttled_groups"]


class Role(NamedTuple):
    """The meaning of a figure, whichever module has it, for comparisons across modules.

    on_cpu, runnable, blocked and throttled are the ledger's lines; `idle` is the idle time of the CPUs, and
    `throttled_groups` the throttled time of cgroups.  One module has a role.
    """

    name: RoleName
    figures: tuple[str, ...]
    """Keys of the module's section whose sum it is; a mapping counts as the sum of its values."""


class Same(NamedTuple):
    """A metric and a number of a distribution that count the same."""

    figure: str
    distribution: str
    key: Literal["count", "sum_us"] = "count"


class PartOf(NamedTuple):
    """A figure that is no more than another one."""

    part: str
    whole: str


class SumOf(NamedTuple):
    """Figures that add up to another one."""

    parts: tuple[str, ...]
    whole: str
    invariant: str
    """Its name in INVARIANTS of evidence/self_check.py."""
    unit: str = "ms"


Check = Same | PartOf | SumOf
"""A condition between the figures of one module."""


class KernelCounter(NamedTuple):
    """The kernel's own counter of what a metric counts, for the whole machine."""

    counter: str
    """A key of Sample.kernel (kernel/reading/proc_counters.py)."""
    origin: str
    note: str
    """The reasons for a difference."""
    plus: tuple[str, ...] = ()
    """Figures of the section that are to be added to the metric, because the kernel counts them together."""
