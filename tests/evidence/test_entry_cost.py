"""The cost of entering the programs, and the target's share of the whole cost."""

import pytest

from chainbench_agent.evidence.entry_cost import EntryCost, with_entries
from chainbench_agent.evidence.model import Cost, ProgramCost

ENTRY = EntryCost(call_ns=100, other_ns=80)
MS = 1_000_000


def cost(**programs):
    """`hook=(runs, ns)`; a hook with `_` at its end is fed from a perf event."""
    listed = [
        ProgramCost(hook=hook.rstrip("_"), source=f"{'perf' if hook.endswith('_') else 'raw_tracepoint'}:{hook}",
                    runs=runs, ns=ns)
        for hook, (runs, ns) in programs.items()
    ]  # fmt: skip
    return Cost(cpu_percent=1, bpf_ns=1, events=1, ns_per_event=1, programs=listed, modules={})


def test_entries():
    """A system call's programs cost more to enter than others; what is no tracepoint was not calibrated."""
    found = with_entries(
        cost(sys_enter=(1000, MS), sched_switch=(500, MS), minor_fault_=(7, 9)), ENTRY, {}, None, targeted=False
    )

    assert (found.entry_ns, found.entry_ns_per_event) == (1000 * 100 + 500 * 80, round(140_000 / 1500, 1))
    assert found.entry_excludes == ["minor_fault"]
    assert found.unavailable.keys() == {"target_cpu_percent"}


def test_of_the_whole_machine():
    """All that was paid, of the CPU time of all."""
    found = with_entries(
        cost(sys_enter=(1000, 900_000), kfree=(1000, 920_000)), ENTRY, {"cpu": {"on_cpu_ms": 20}}, None, targeted=False
    )

    percent = (found.target_cpu_percent, found.target_cpu_percent_at_least, found.target_cpu_percent_at_most)
    assert percent == (10, 10, 10)  # 0.9 + 0.1 and 0.92 + 0.08 ms
    assert found.target_shares is None


def test_of_a_target():
    """A quarter of the calls were the target's; the same share is estimated for events that have no owner."""
    sections = {"cpu": {"on_cpu_ms": 20}, "syscall_counts": {"total": 250}}
    found = with_entries(cost(sys_enter=(1000, 900_000), kfree=(1000, 920_000)), ENTRY, sections, None, targeted=True)

    assert found.target_shares == {"sys_enter": 0.25}
    percent = (found.target_cpu_percent_at_least, found.target_cpu_percent, found.target_cpu_percent_at_most)
    assert percent == (1.25, 2.5, 6.25)


def test_the_ledger_has_the_cpu_time_as_well():
    found = with_entries(cost(sys_enter=(1000, 900_000)), ENTRY, {}, {"on_cpu_ms": 5.0}, targeted=True)

    assert (found.target_cpu_percent_at_least, found.target_cpu_percent, found.target_cpu_percent_at_most) == (
        0,
        20,
        20,
    )


@pytest.mark.parametrize("on_cpu_ms", [0, 0.0])
def test_a_target_that_did_not_run(on_cpu_ms):
    """It paid nothing."""
    found = with_entries(cost(sys_enter=(3, 9)), ENTRY, {"cpu": {"on_cpu_ms": on_cpu_ms}}, None, targeted=True)

    assert found.target_cpu_percent == 0


def test_not_calibrated():
    """The reason stands where the figures would."""
    found = with_entries(cost(sys_enter=(3, 9)), "why", {"cpu": {"on_cpu_ms": 1}}, None, targeted=True)

    assert found.unavailable == {"entry_ns": "why", "target_cpu_percent": "why"}
    assert (found.entry_ns, found.target_cpu_percent) == (None, None)
    assert with_entries(None, ENTRY, {}, None, targeted=True) is None
