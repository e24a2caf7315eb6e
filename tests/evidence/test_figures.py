"""Every number of an evidence can be found, and says its unit, its error, and why it is absent."""

from datetime import UTC, datetime

import pytest

from chainbench_agent.catalog import Counter, Derived, Distribution, Module, Table
from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.evidence.figures import Figures
from chainbench_agent.evidence.metric_keys import reported_key
from chainbench_agent.evidence.model import Evidence, Run, Target
from chainbench_agent.probes import CATALOG

RUN = Run(id="1", machine="host", started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=1000, ended_by="stop")

QUEUE = Module(
    name="queue",
    section="queues",
    question="?",
    metrics=(
        Distribution(name="latency_ns", help="", sampled=True),
        Distribution(name="drain_ns", help=""),
        Counter(name="pushes", help="", sampled=True, per_process=True),
        Counter(name="held_ns", help="", per_process=True),
        Table(name="read_bytes", help="", entries=2, names="", label="state"),
        Derived(name="hit_ratio", help="", of=("pushes",), gauge=True),
        Derived(name="devices", help="", of=("raw",), label="device", value="count"),
        Derived(name="reasons", help="", of=("raw",), label="reason", value="ms"),
        Derived(name="cycles", help="", of=("raw",), label="pid", value="edges"),
    ),
)
CALLS = Module(
    name="calls",
    question="?",
    metrics=(
        Table(name="by_number", help="", entries=2, names="", label="call", sampled=True, reported=False),
        Derived(name="by_name", help="", of=("by_number",), label="call", inline=True),
        Counter(name="total", help="", sampled=True),
    ),
)

SECTION = {
    "pushes": 7,
    "held_ms": 1.5,
    "read_bytes": {"full": 10, "empty": 20},
    "devices": [{"device": "sda", "count": 3, "bytes": 4096, "p95_us": 1.5}, {"device": "sdb", "count": 4, "bytes": 0}],
    "reasons": [
        {"reason": "io", "syscall": "read", "ms": 3.0, "sampled_percent": 50.0, "standard_error_ms": 0.3},
        {"reason": "io", "syscall": "read", "ms": 1.0, "sampled_percent": 60.0, "standard_error_ms": 0.4},
        {"reason": "nap", "syscall": "read", "ms": 2.0, "sampled_percent": 100.0, "standard_error_ms": 0.0},
    ],
    "cycles": [{"pid": 7, "edges": [{"held": "0x1"}]}],
    "top_processes": [{"pid": 9, "command": "dd", "pushes": 5, "held_ms": 1.0}],
    "other_processes": {"pushes": 2, "held_ms": 0.5},
    "sources": {"pushes": "raw_tracepoint:push"},
    "scope": {"held_ms": "machine"},
}
SAMPLING = {"interval": 10, "zero_means_below": 29}


def evidence(sections, **more):
    return Evidence(available=True, source="ebpf", run=RUN, sections=sections, **({"target": Target()} | more))


@pytest.fixture
def figures(counted):
    """`figures(key=…)` → those of SECTION with other keys in it."""

    def read(**changed):
        section = SECTION | {"latency_us": counted(1_000, 3_000), "drain_us": counted()} | changed
        return Figures(evidence({"queues": section}), (QUEUE, CALLS))

    return read


def test_a_figure_says_what_it_is(figures):
    found = figures().find("queue", "pushes")

    assert (found.module, found.name, found.number, found.unit, found.how) == ("queue", "pushes", 7, "count", "exact")
    assert found.source == "raw_tracepoint:push"
    assert not found.machine_wide
    assert figures().find("queue", "held_ms").machine_wide


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        *(("pushes", "count"), ("held_ms", "ms"), ("hit_ratio", "percent"), ("latency_us", "ns"), ("p95_us", "us")),
        *(("drain_us.sum_us", "us"), ("drain_us.count", "count"), ("top_processes.held_ms", "ms")),
        *(("devices", "count"), ("devices.bytes", "bytes"), ("devices.p95_us", "us"), ("reasons", "ms")),
    ],
)
def test_units(figures, name, unit):
    """The key gives the unit, for lists the name of the value; histograms are in nanoseconds."""
    assert {figure.unit for figure in figures(hit_ratio=97.5).named("queue", name)} == {unit}


def test_a_table_has_a_figure_for_each_entry(figures):
    found = figures().named("queue", "read_bytes")

    assert [(figure.labels, figure.number) for figure in found] == [
        ((("state", "full"),), 10),
        ((("state", "empty"),), 20),
    ]
    assert figures().find("queue", "read_bytes", state="empty").number == 20
    assert figures().find("queue", "read_bytes") is None


def test_an_empty_table_was_measured(figures):
    assert figures(read_bytes={}).named("queue", "read_bytes") == ()


def test_a_histogram_is_typed(figures, counted):
    """A histogram's summary is in figures of their own; that of the main distribution has no prefix."""
    found = figures()

    assert found.find("queue", "latency_us").histogram == counted(1_000, 3_000)
    assert found.find("queue", "latency_us").number is None
    assert (found.find("queue", "count").number, found.find("queue", "max_us").number) == (2, 3)
    assert found.find("queue", "drain_us.count").number == 0


def test_nothing_observed_has_no_quantile(figures):
    found = figures().find("queue", "drain_us.p95_us")

    assert (found.how, found.value, found.reason) == ("absent", None, "nothing was observed in this run")


def test_a_list_has_a_figure_for_each_combination_of_labels(figures):
    """Entries that differ only in numbers are added up, their errors by squares; a part may be known exactly."""
    found = figures()
    waited, napped = found.named("queue", "reasons")

    assert dict(waited.labels) == {"reason": "io", "syscall": "read"}
    assert (waited.number, waited.error, waited.how) == (4.0, 0.5, "sampled")
    assert (napped.number, napped.error, napped.how) == (2.0, None, "exact")
    assert found.find("queue", "devices", device="sda").number == 3
    assert found.find("queue", "devices.bytes", device="sda").number == 4096


def test_what_is_no_number_is_no_figure(figures):
    assert figures().named("queue", "cycles") == ()


def test_figures_of_processes(figures):
    found = figures(sampling=SAMPLING | {"standard_error": {"pushes": 7.9}})
    top = found.find("queue", "top_processes.pushes", pid="9", command="dd")
    others = found.find("queue", "other_processes.pushes")

    assert (top.number, top.error, top.how) == (5, 6.7, "sampled")
    assert top.number + others.number == found.find("queue", "pushes").number
    assert found.find("queue", "other_processes.held_ms").how == "exact"


def test_a_process_has_no_figure_of_what_is_absent(figures):
    processes = {"top_processes": [{"pid": 9, "command": "dd", "pushes": 5}], "other_processes": {"pushes": 2}}
    found = figures(**processes, unavailable={"held_ms": "no hook"})

    assert found.find("queue", "held_ms").reason == "no hook"
    assert found.named("queue", "top_processes.held_ms") == found.named("queue", "other_processes.held_ms") == ()


def test_sampled_figures_have_their_error(figures):
    """A distribution's is that of its count; a metric that counts every event stays exact in the same section."""
    found = figures(sampling=SAMPLING | {"standard_error": {"pushes": 7.9, "latency_us": {"count": 4.2}}})

    assert [(f.how, f.error) for f in map(found.find, ["queue"] * 3, ["pushes", "count", "held_ms"])] == [
        ("sampled", 7.9),
        ("sampled", 4.2),
        ("exact", None),
    ]
    assert (found.find("queue", "p95_us").how, found.find("queue", "p95_us").error) == ("sampled", None)


def test_the_keys_of_a_section_that_are_one_metric():
    """An inline mapping is all that belongs to nothing else, and has its errors by name."""
    section = {"push": 3, "pop": 0, "total": 3, "sources": {}}
    section["sampling"] = SAMPLING | {"standard_error": {"push": 5.2, "total": 5.3}}
    found = Figures(evidence({"calls": section}), (CALLS,))

    assert [(f.labels, f.number, f.error) for f in found.named("calls", "by_name")] == [
        ((("call", "push"),), 3, 5.2),
        ((("call", "pop"),), 0, None),
    ]
    assert found.find("calls", "total").error == 5.3


@pytest.mark.parametrize(
    ("sections", "unavailable", "reason"),
    [
        ({"queues": {"unavailable": {"pushes": "no hook"}}}, {}, "no hook"),
        ({"queues": {}}, {}, "nothing happened in this run that it could be computed from"),
        ({}, {"queue": "it does not compile"}, "it does not compile"),
        ({}, {}, "the module did not collect in this run"),
    ],
)
def test_an_absent_figure_has_its_reason(sections, unavailable, reason):
    """The reason of the metric, of its module, or of the run."""
    found = Figures(evidence(sections, unavailable=unavailable), (QUEUE,)).find("queue", "pushes")

    assert (found.how, found.value, found.reason) == ("absent", None, reason)


def test_the_quantiles_of_an_absent_distribution_are_absent():
    found = Figures(evidence({}, unavailable={"queue": "no BTF"}), (QUEUE,))

    assert found.find("queue", "p95_us").reason == found.find("queue", "drain_us.mean_us").reason == "no BTF"


def test_every_metric_of_the_catalogue_has_figures():
    """Measured or absent, each of them once; only an empty table or list has none."""
    made_up = MockCollector("", "", CATALOG).evidence(RUN)
    found = list(Figures(made_up))

    named = {(figure.module, figure.name) for figure in found}
    for module in CATALOG:
        keys = {key for metric in module.reported if (module.name, key := reported_key(metric)) not in named}
        assert all(made_up.sections[module.section_key][key] in ([], {}) for key in keys)
    assert len({(figure.module, figure.name, figure.labels) for figure in found}) == len(found) > len(CATALOG)
    assert all(bool(figure.reason) == (figure.value is None) == (figure.how == "absent") for figure in found)


# --- The ledger -----------------------------------------------------------------------------------

ACCOUNT = {"wall_ms": 10.0, "on_cpu_ms": 4.0, "runnable_ms": 1.0, "blocked_ms": 5.0, "unexplained_ms": 0.0}
BLOCKED = [
    {
        "category": "disk",
        "ms": 5.0,
        "reasons": [
            {"reason": "io_schedule", "syscall": "read", "file": "regular", "ms": 4.0, "standard_error_ms": 0.2},
            {"reason": "fault", "syscall": "", "ms": 1.0},
        ],
    }
]
LEDGER = {
    **ACCOUNT,
    "blocked": BLOCKED,
    "threads": [{"tid": 8, "pid": 7, "command": "dd", **ACCOUNT, "blocked": []}],
    "threads_not_shown": 0,
    "idle_threads": {"threads": 1, **ACCOUNT, "wall_ms": 3.0, "blocked": []},
}
PROCESS = Target(kind="pid", pid=7)


def test_the_ledger():
    """The whole target, its categories with their reasons, and the threads."""
    found = Figures(evidence({}, target=PROCESS, ledger=LEDGER), ())

    assert found.find("ledger", "on_cpu_ms").number == 4.0
    assert found.find("ledger", "category_ms", category="disk").number == 5.0
    read, fault = found.named("ledger", "reason_ms")
    assert dict(read.labels) == {"category": "disk", "reason": "io_schedule", "syscall": "read", "file": "regular"}
    assert (read.number, read.error, read.how) == (4.0, 0.2, "sampled")
    assert (fault.number, fault.error, fault.how) == (1.0, None, "exact")
    assert found.find("ledger", "threads.on_cpu_ms", tid="8", pid="7", command="dd").number == 4.0
    assert found.find("ledger", "idle_threads.wall_ms").number == 3.0


@pytest.mark.parametrize(
    ("target", "unavailable", "reason"),
    [
        (Target(), {}, "only a run with a target has a ledger"),
        (PROCESS, {"ledger": "offcpu does not collect"}, "offcpu does not collect"),
    ],
)
def test_an_absent_ledger_has_its_reason(target, unavailable, reason):
    found = Figures(evidence({}, target=target, unavailable=unavailable), ())

    assert {figure.reason for figure in found} == {reason}


def test_an_unknown_module_is_refused(figures):
    """A misspelt name must not look like something that was not measured."""
    with pytest.raises(KeyError, match="queu"):
        figures().named("queu", "pushes")
