"""The values of a module in C, written from its declaration: `generated/MODULE.h` of a BPF unit."""

from __future__ import annotations

from collections.abc import Collection

from chainbench_agent.catalog import Counter, Distribution, Keyed, Module, Scratch, Table


def module_h(module: Module, options: Collection[str]) -> str:
    """The sizes of the module's maps, its per-CPU struct, and the map of that.  `options`: those that are loaded."""
    sized = [m for m in (*module.metrics, *module.scratch) if isinstance(m, Table | Keyed | Scratch)]
    prefix = module.name
    return "\n".join(
        [
            '#include "lib/common.h"',
            "",
            f"// {module.question}",
            *(f"#define {prefix.upper()}_{m.name.upper()}_ENTRIES {_entries(m, options)}" for m in sized),
            f"struct cb_{prefix} {{",
            *(f"\t{_field(m)};" for m in module.per_cpu),
            *(f"\tu64 {s.name}[{s.entries}];" for s in module.scratch if s.field),
            "};",
            f"BPF_PERCPU_ARRAY(cb_{prefix}, struct cb_{prefix}, 1);",
            "",
        ]
    )


def _entries(sized: Table | Keyed | Scratch, options: Collection[str]) -> int:
    option = "" if isinstance(sized, Table) else sized.option
    return sized.entries if not option or option in options else 1


def _field(metric: object) -> str:
    match metric:
        case Distribution(name=name):
            return f"struct cb_histogram {name}"
        case Table(name=name, entries=entries):
            return f"u64 {name}[{entries}]"
        case Counter(name=name):
            return f"u64 {name}"
    raise TypeError(f"{metric!r} has no field in the per-CPU struct")
