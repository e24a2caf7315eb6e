"""Which figures are short where programs were skipped."""

from chainbench_agent.evidence.loss import loss
from chainbench_agent.evidence.sample import ProgramRun, Sample
from chainbench_agent.probes import CATALOG, HOOKS

RAISED_ON = {hook.name: hook.raised_on for hook in HOOKS if hook.raised_on}


def lost(missed, unavailable=None):
    """The loss in the evidence when programs were skipped; `missed`: hook → how often."""
    first = Sample(0, {}, programs=dict.fromkeys(missed, ProgramRun(0, 0, 5)))
    last = Sample(1, {}, programs={hook: ProgramRun(0, 0, 5 + count) for hook, count in missed.items()})
    return loss(CATALOG, RAISED_ON, unavailable or {}, first, last)


def test_the_figures_of_a_skipped_program():
    """Figures that the hook feeds itself, and those of the hooks that it raises."""
    found = lost({"sched_process_fork": 3, "sys_exit": 2, "kfree": 0})

    assert found.causes == {"programs_skipped": 5}
    assert found.programs_skipped.keys() == {"sched_process_fork", "sys_exit"}
    forks, exits = found.programs_skipped["sched_process_fork"], found.programs_skipped["sys_exit"]
    assert (forks.events, exits.events) == (3, 2)
    assert "exec.forks" in forks.metrics
    assert {"io.file_reads", "locks.futex_waits"} <= {*exits.metrics}
    assert not any(metric.startswith("memory.") for metric in exits.metrics)


def test_a_figure_that_is_not_there_is_not_short():
    """It has its own reason."""
    unavailable = {"memory": {"kfree_count": "why"}}

    assert lost({"kfree": 1}).programs_skipped["kfree"].metrics == ["memory.kfree_count"]
    assert lost({"kfree": 1}, unavailable).programs_skipped["kfree"].metrics == []


def test_nothing_skipped():
    assert lost({"kfree": 0}).programs_skipped is None
