"""The metrics table of docs/metrics.md, made from the catalogue: it describes figures, and has none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from chainbench_agent.catalog import Derived, Distribution, Hook, Metric, Module, Table
from chainbench_agent.evidence.distribution import WHOLE_SECTION
from chainbench_agent.evidence.metric_keys import Unit, reported_key, reported_unit
from chainbench_agent.export.families import DURATION, GAIN, RUN_DURATION, RUNS
from chainbench_agent.export.health import HEALTH
from chainbench_agent.export.series import metric_family
from chainbench_agent.probes import HOOKS

HEAD = ("Module", "JSON", "Prometheus", "Unit of the JSON", "What it is", "Kernel hooks")
SYMBOLS: dict[Unit, str] = {"us": "µs", "percent": "%"}
"""The units that are not written by their name."""

ABOUT_RUNS = (
    ("run", "run.duration_ms", RUN_DURATION, "ms"),
    ("", "", RUNS, ""),
    ("report", "baseline_ms, optimized_ms", DURATION, "ms"),
    ("", "gain_pct", GAIN, "%"),
)
"""The families that are not counted in the kernel: (section, key, family, unit)."""

NO_SERIES = "none: its labels have no bound"


def metrics_table(catalog: Iterable[Module], hooks: Iterable[Hook] = HOOKS) -> str:
    """A Markdown table with a row for each reported metric, and for each family about runs or the agent."""
    by_name = {hook.name: hook for hook in hooks}
    rows = [row for module in catalog for row in _module_rows(module, by_name)]
    rows += [(name, _code(key), _code(f.name), unit, f.help, "") for name, key, f, unit in ABOUT_RUNS]
    for first, (family, labels) in enumerate(HEALTH):
        name = family.name + (f"{{{','.join(labels)}}}" if labels else "")
        rows.append(("" if first else "agent", "", _code(name), "", family.help, ""))
    return table(HEAD, rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, with a newline behind the last row."""
    lines = (head, ("---",) * len(head), *rows)
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _module_rows(module: Module, hooks: Mapping[str, Hook]) -> Iterator[tuple[str, ...]]:
    for first, metric in enumerate(module.reported):
        family = metric_family(module, metric)
        yield (
            "" if first else module.name,
            _code(_path(module, metric)),
            _code(family.name + _labels(metric)) if family else NO_SERIES,
            SYMBOLS.get(unit := reported_unit(metric), unit),
            metric.help,
            ", ".join(_code(name) for name in _kernel_hooks(module.hooks_of(metric), hooks)),
        )


def _path(module: Module, metric: Metric) -> str:
    """Where the number stands in the evidence."""
    key = f"{module.section_key}.{reported_key(metric)}"
    match metric:
        case Distribution() if reported_key(metric) == WHOLE_SECTION:
            return f"{module.section_key}.*"
        case Distribution():
            return f"{key}.*"
        case Table(label=label):
            return f"{key}.<{label}>"
        case Derived(inline=True, label=label):
            return f"{module.section_key}.<{label}>"
        case Derived(value=value) if value:
            return f"{key}[].{value}"
    return key


def _labels(metric: Metric) -> str:
    """The metric's own labels; every series has those of the run as well, and a list's further texts are labels."""
    match metric:
        case Derived(label=label, value=value) if value:
            return f"{{{label},…}}"
        case Table(label=label) | Derived(label=label) if label:
            return f"{{{label}}}"
    return ""


def _kernel_hooks(names: Iterable[str], hooks: Mapping[str, Hook]) -> list[str]:
    """The hooks that have sources: a hook that a state machine raises is replaced by those it is raised on."""
    found = (place for name in names for place in (hooks[name].raised_on or (name,)))
    return list(dict.fromkeys(found))


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
