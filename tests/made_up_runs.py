"""Runs as an agent stores them, made up: what was in them is known exactly."""

from datetime import UTC, datetime, timedelta

from chainbench_agent.compare.run_set import MeasuredRun
from chainbench_agent.evidence.model import Evidence

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MAIN = 100


def account(lines):
    """An account of the ledger from its lines in ms."""
    rest = {line: ms for line, ms in lines.items() if line not in {"on_cpu", "runnable", "unexplained"}}
    return {
        "wall_ms": sum(lines.values()),
        "on_cpu_ms": lines.get("on_cpu", 0.0),
        "runnable_ms": lines.get("runnable", 0.0),
        "blocked_ms": sum(rest.values()),
        "unexplained_ms": lines.get("unexplained", 0.0),
        "blocked": [{"category": line, "ms": ms, "reasons": []} for line, ms in rest.items()],
    }


def added(accounts):
    lines = {}
    for one in accounts:
        for line, ms in one.items():
            lines[line] = lines.get(line, 0.0) + ms
    return lines


def measured(number, lines, *, threads=(), idle=(), sections=None, **run):
    """A run that started `number` seconds after the first; `lines` are the main thread's.

    `threads`: (pid, lines) of the others; `idle`: lines of threads that only waited.
    """
    environment, reported_ms = run.pop("environment", {"kernel": "6.1", "cpus": 2}), run.pop("reported_ms", None)
    labels = {"scenario": "s", "impl": "python", "variant": "v", "commit": "abc", "dataset": "d"}
    everything = [lines, *(of for _, of in threads), *idle]
    shown = [(MAIN, MAIN, lines), *((MAIN + i, pid, of) for i, (pid, of) in enumerate(threads, 1))]
    target = run.pop("target", {"kind": "pid", "pid": MAIN})
    whole = run.pop("evidence", {})
    document = {
        "schema_version": 2,
        "available": True,
        "source": "ebpf",
        "reason": "",
        "run": {
            "id": f"run-{number:04}",
            "machine": "vm",
            "started_at": (EPOCH + timedelta(seconds=number)).isoformat(),
            "duration_ms": sum(lines.values()) + 5,
            "ended_by": "stop",
        }
        | labels
        | run,
        "target": target,
        "ledger": account(added(everything))
        | {
            "threads": [{"tid": tid, "pid": pid, "command": "x"} | account(of) for tid, pid, of in shown],
            "threads_not_shown": 0,
            "idle_threads": {"threads": len(idle)} | account(added(idle)),
        },
        **(sections or {}),
        **whole,
    }
    return MeasuredRun(Evidence.from_json(document), environment, reported_ms)


def distribution(count, mean_us):
    return {"count": count, "sum_us": count * mean_us, "histogram": [{"bucket_us": 131.072, "count": count}]}


def sides(baseline, optimized, order="ABBA"):
    """Two sides from functions number → run; `order`: repeated until all runs are made, or `blocks`."""
    count = 10
    letters = "A" * count + "B" * count if order == "blocks" else (order * count)[: 2 * count]
    numbered = list(enumerate(letters))
    return [baseline(i) for i, x in numbered if x == "A"], [optimized(i) for i, x in numbered if x == "B"]
