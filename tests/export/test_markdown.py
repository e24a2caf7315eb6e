from chainbench_agent.catalog import Counter, Hook, Module, raw_tracepoint
from chainbench_agent.export.health import HEALTH
from chainbench_agent.export.markdown import metrics_table
from chainbench_agent.probes import CATALOG

HOOKS = (
    Hook("sched_switch", (), (raw_tracepoint("sched_switch"),)),
    Hook("task_ran", (), raised_on=("sched_switch",)),
)


def rows(table):
    """(JSON, Prometheus, unit, hooks) of each row."""
    cells = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines()[2:]]
    return {json.strip("`"): (prometheus, unit, hooks.strip("| ")) for _, json, prometheus, unit, _, hooks in cells}


def test_every_kind_of_metric(catalog):
    found = rows(metrics_table(catalog))
    assert {key: value[:2] for key, value in found.items() if key.startswith(("queues", "call"))} == {
        "queues.*": ("`chainbench_queue_microseconds`", "µs"),
        "queues.drain_us.*": ("`chainbench_queue_drain_seconds`", "µs"),
        "queues.pushes": ("`chainbench_queue_pushes_total`", "count"),
        "queues.queue_pops": ("`chainbench_queue_pops_total`", "count"),
        "queues.held_ms": ("`chainbench_queue_held_seconds_total`", "ms"),
        "queues.busy_ms.<state>": ("`chainbench_queue_busy_seconds_total{state}`", "ms"),
        "queues.depth": ("`chainbench_queue_depth`", "count"),
        "queues.avg_wait_us": ("`chainbench_queue_avg_wait_seconds`", "µs"),
        "queues.reasons[].ms": ("`chainbench_queue_reason_seconds{reason,…}`", "ms"),
        "queues.commands[].count": ("none: its labels have no bound", "count"),
        "call_counts.<call>": ("`chainbench_call_count_total{call}`", "count"),
    }
    assert found["gain_pct"][:2] == ("`chainbench_gain_percent`", "%")


def test_hooks_are_those_of_the_kernel():
    metric = Counter(name="switches", help="A | B.", hooks=("task_ran", "sched_switch"))
    table = metrics_table([Module(name="cpu", question="?", metrics=(metric,))], HOOKS)
    assert rows(table)["cpu.switches"][2] == "`sched_switch`"
    assert r"A \| B." in table


def test_the_whole_catalogue_has_a_row_for_each_reported_metric():
    table = metrics_table(CATALOG)
    reported = sum(len(module.reported) for module in CATALOG)
    assert len(table.splitlines()) == 2 + reported + 4 + len(HEALTH)
