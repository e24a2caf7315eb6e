"""The properties that a module derives from its declaration."""

import pytest

from chainbench_agent.catalog import (
    Counter,
    Derived,
    Distribution,
    FixedNames,
    Hook,
    HostNames,
    HostTable,
    Keyed,
    Module,
    Names,
    PerCpu,
    Scratch,
    Stacks,
    Table,
    fentry,
    fexit,
    raw_tracepoint,
)

CALLS = Counter(name="calls", help="", hooks=("enter",), reported=False)
TIME = Counter(name="time_ns", help="", hooks=("leave", "enter"))
BY_KIND = Table(name="by_kind", help="", hooks=("enter",), entries=4, names=HostNames("kinds"), label="kind")
LATENCY = Distribution(name="latency_ns", help="", hooks=("leave",))
BY_TASK = Keyed(name="by_task", help="", hooks=("enter",), key="u64", entries=8, when_full="", reported=False)
MEAN = Derived(name="mean_ms", help="", of=("time_ns", "calls", "by_task"))

MODULE = Module(
    name="locks",
    question="?",
    metrics=(CALLS, MEAN, TIME, BY_KIND, BY_TASK, LATENCY),
    scratch=(
        Scratch(name="pending", entries=8, when_full=""),
        Scratch(name="nth", entries=4, when_full="", field=True),
    ),
)


def test_a_source_is_called_by_kind_and_place():
    """As in the evidence: `raw_tracepoint:sched_switch`."""
    assert [str(make("f")) for make in (raw_tracepoint, fentry, fexit)] == ["raw_tracepoint:f", "fentry:f", "fexit:f"]
    assert raw_tracepoint("f", 1, "g(a)").args == (1, "g(a)")


def test_a_hook_is_timed_unless_it_says_otherwise():
    assert Hook("f", ()).timed


def test_a_distribution_is_in_nanoseconds():
    """Its name must say so: JSON's `_us` is made of it."""
    with pytest.raises(ValueError, match=r"distribution latency_us: .* end in _ns"):
        Distribution(name="latency_us", help="")


def test_hooks_are_those_of_all_metrics():
    assert MODULE.hooks == {"enter", "leave"}


def test_the_per_cpu_struct_has_no_hashes_and_nothing_derived():
    """In the order of the declaration: values are read by position."""
    assert MODULE.per_cpu == (CALLS, TIME, BY_KIND, LATENCY)


def test_own_maps_are_hashes_and_scratch_maps():
    """A scratch field is in the struct."""
    assert MODULE.own_maps == ("by_task", "pending")
    assert MODULE.keyed == (BY_TASK,)


def test_raw_material_is_not_reported():
    assert MODULE.reported == (MEAN, TIME, BY_KIND, LATENCY)


def test_a_derived_metric_needs_what_its_sources_need():
    """Each hook once."""
    assert MODULE.sources_of(MEAN) == (CALLS, TIME, BY_TASK)
    assert set(MODULE.hooks_of(MEAN)) == {"enter", "leave"}
    assert len(MODULE.hooks_of(MEAN)) == 2
    assert MODULE.sources_of(TIME) == ()
    assert MODULE.hooks_of(TIME) == ("leave", "enter")


def test_a_section_has_the_modules_name_unless_another_is_given():
    assert MODULE.section_key == "locks"
    assert Module(name="syscalls", section="syscall_counts", question="?", metrics=()).section_key == "syscall_counts"


def test_an_index_without_a_name_is_called_by_its_number():
    names = Names(tables={"calls": {1: "write"}}, stacks={}, throttled_before={}, throttled_after={})

    assert [names.of("calls", 1), names.of("calls", 7), names.of("none", 1)] == ["write", "7", "1"]


def test_a_host_has_names_for_indexes_or_a_declaration_does():
    names = Names(tables={"irqs": {4: "4:ttyS0"}})

    assert [HostNames("irqs")(names, index) for index in (4, 5)] == ["4:ttyS0", "5"]
    assert FixedNames(("tcp", "udp"))(names, 1) == "udp"


def test_maps_that_are_no_metrics():
    """Each kind is found by its declaration; all are the module's own maps."""
    stacks = Stacks(name="stacks", entries=8, when_full="", depth=4)
    span, calls = PerCpu(name="span", value="u64"), HostTable(name="calls", entries=8, of="calls_for_files")
    module = Module(name="files", question="?", metrics=(), scratch=(stacks, span, calls))

    assert (module.stacks, module.per_cpu_records, module.host_tables) == ((stacks,), (span,), (calls,))
    assert module.own_maps == ("stacks", "span", "calls")
