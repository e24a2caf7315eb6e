"""Modules that have one metric of every kind, and evidence made by hand."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from chainbench_agent.catalog import Counter, Derived, Distribution, HostNames, Module, Table
from chainbench_agent.evidence.distribution import section_from_json
from chainbench_agent.evidence.model import Evidence, Labels, Run, Target
from chainbench_agent.evidence.totals import Totals
from chainbench_agent.model.status import ModuleStatus, StoreStatus

LABELS = {"scenario": "baseline", "impl": "python", "variant": "numpy", "commit": "abc123", "dataset": "d1"}

MODULE = Module(
    name="queue",
    section="queues",
    question="?",
    metrics=(
        Distribution(name="latency_ns", help="Waiting.", prometheus="chainbench_queue_microseconds"),
        Distribution(name="drain_ns", help="Draining."),
        Counter(name="pushes", help="Pushes."),
        Counter(name="queue_pops", help="Pops."),
        Counter(name="held_ns", help="Held."),
        Counter(name="raw", help="Raw material.", reported=False),
        Table(name="busy_ns", help="Busy.", entries=2, names=HostNames("states"), label="state"),
        Derived(name="depth", help="Depth.", of=("raw",), gauge=True),
        Derived(name="avg_wait_us", help="Mean.", of=("raw",), gauge=True),
        Derived(
            name="reasons",
            help="Why.",
            of=("raw",),
            label="reason",
            value="ms",
            gauge=True,
            prometheus="chainbench_queue_reason_seconds",
        ),
        Derived(name="commands", help="Who.", of=("raw",), label="command", value="count"),
    ),
)

CALLS = Module(
    name="calls",
    section="call_counts",
    question="?",
    metrics=(
        Derived(
            name="by_name",
            help="By name.",
            of=("raw",),
            label="call",
            inline=True,
            prometheus="chainbench_call_count_total",
        ),
    ),
)

SECTION = {
    "histogram": [
        {"bucket_us": 0.5, "count": 1},
        {"bucket_us": 1.024, "count": 2},  # on the bound: at most, not less
        {"bucket_us": 1.088, "count": 4},
        {"bucket_us": 17179869.184, "count": 8},
        {"bucket_us": 99999999.999, "count": 16},  # above the last bound
    ],
    "count": 31,
    "sum_us": 1234.567,
    "drain_us": {"histogram": [{"bucket_us": 2.048, "count": 3}], "count": 3, "sum_us": 5.5},
    "pushes": 7,
    "queue_pops": 0,
    "held_ms": 63.274323,
    "busy_ms": {"full": 1.5, "empty": 2},
    "depth": 2.5,
    "avg_wait_us": 12.5,
    "reasons": [
        {"reason": "io_schedule", "syscall": "read", "ms": 10.5, "sampled_percent": 3.0},
        {"reason": "io_schedule", "syscall": "read", "ms": 0.5, "sampled_percent": 9.0},
        {"reason": "io_schedule", "syscall": "write", "ms": 4, "sampled_percent": 9.0},
    ],
    "commands": [{"command": "dd", "count": 1}],
    "sources": {"pushes": "raw_tracepoint:push"},
    "unavailable": {"size": "no such hook"},
}

SECTIONS = {
    "queues": SECTION,
    "call_counts": {"push": 3, "pop": 0, "sources": {"by_name": "raw_tracepoint:call"}},
}

STATUS = SimpleNamespace(
    phase="idle",
    collector=SimpleNamespace(
        backend="ebpf",
        reason="",
        modules=(
            ModuleStatus("queue", "up"),
            ModuleStatus("calls", "down", "it does not compile:\nerror: no"),
            ModuleStatus("locks", "off"),
        ),
        loss_causes=("keys_full", "returns_missed"),
    ),
    store=StoreStatus("sqlite", "up", runs=53, bytes=1009),
)


@pytest.fixture
def catalog():
    return (MODULE, CALLS)


@pytest.fixture
def make_evidence():
    """Evidence with SECTIONS, or others as JSON has them; keyword arguments are labels."""

    def make(sections=None, run_id="1", source="ebpf", ended_by="stop", **labels):
        return Evidence(
            available=source == "ebpf",
            source=source,
            run=Run(
                id=run_id,
                machine="host",
                started_at=datetime(2026, 11, 22, tzinfo=UTC),
                duration_ms=1500.0,
                ended_by=ended_by,
                **(LABELS | labels),
            ),
            target=Target(),
            sections={name: section_from_json(section) for name, section in (sections or SECTIONS).items()},
        )

    return make


@pytest.fixture
def make_view():
    """A view of the runs as the exporter reads it; `finished`: evidence."""

    def make(*finished, current=None, reports=(), results=None, status=STATUS, totals=None):
        remembered = [
            SimpleNamespace(
                labels=Labels(**{name: getattr(evidence.run, name) for name in LABELS}),
                evidence=evidence,
                results=results or {"finished": 1},
            )
            for evidence in finished
        ]
        return SimpleNamespace(
            machine="host",
            remembered=lambda: remembered,
            reports=lambda: reports,
            current=lambda: current,
            status=lambda: status,
            totals=lambda: totals or Totals(),
        )

    return make
