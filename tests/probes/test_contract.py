"""Checks in both directions that a module's declaration and its C file agree."""

import inspect
import re

import pytest
from c_text import UNIT, c_of, fields_of, functions, struct_of

from chainbench_agent.catalog import PERCPU_VALUE_LIMIT, Counter, Derived, FixedNames, HostNames, Keyed, Module, Table
from chainbench_agent.kernel import call_tables
from chainbench_agent.kernel.reading import index_names, map_decoding
from chainbench_agent.loading import process_records
from chainbench_agent.loading.event_records import events_h
from chainbench_agent.loading.includes import includes
from chainbench_agent.loading.unit_text import STATE_MACHINES, handlers, maps_of, module_text
from chainbench_agent.probes import CATALOG, DIRECTORY, FIELDS, HOOKS, blocked_time, cpu
from chainbench_agent.probes.hooks import VECTORS

WAITS = ("blocked_time", "wait_categories", "wait_functions", "wait_key", "wait_reasons")
SUPPORT = ("c_names", "hooks", "lock_hooks", "lock_order", *WAITS, "__init__")
"""Files of the package probes that are no module."""

HOOK = {hook.name: hook for hook in HOOKS}
each_module = pytest.mark.parametrize("module", CATALOG, ids=lambda module: module.name)


def test_every_module_is_a_pair():
    """A declaration for every C file, and a C file for every declaration."""
    c_files = {path.stem for path in DIRECTORY.glob("*.c")}

    assert {path.stem for path in DIRECTORY.glob("*.py")} - set(SUPPORT) == c_files
    assert [module.name for module in CATALOG] == sorted(c_files)


@each_module
def test_handlers_are_the_hooks_that_metrics_name(module):
    """A hook that no metric names has no handler; a metric names no hook that its C file does not handle.

    The rule is on the metrics' own `hooks`, reported or raw.  Derived metrics have none: theirs are their sources'.
    A raised hook is handled as any other, and needs the hooks that it is raised on only through `raised_on`.
    """
    handled = handlers(module_text(module.name), module.name)

    assert module.hooks <= HOOK.keys()
    assert handled == {HOOK[name].handled_as for name in module.hooks}


@each_module
def test_no_handler_of_another_name(module):
    """Every function is a handler of this module or a helper with its prefix: all share one name space."""
    defined = functions(c_of(module))

    assert {name for name in defined if not name.startswith(f"{module.name}_")} == set()
    on = {name for name in defined if "_on_" in name}
    assert on == {f"{module.name}_on_{HOOK[name].handled_as}" for name in module.hooks}


@each_module
def test_handlers_take_what_their_hook_offers(module):
    """The same number of parameters, with the same types, behind the event and the module's own values."""
    for hook in module.hooks:
        declared = re.search(rf"\b{module.name}_on_{HOOK[hook].handled_as}\(([^)]*)\)", c_of(module))[1]
        types = [re.sub(r"\s*\w+$", "", " ".join(param.split())) for param in declared.split(",")]
        expected = [re.sub(r"\s*\w+$", "", param) for param in HOOK[hook].params]
        same = {"u32": "unsigned int"}
        assert types[:2] == ["struct cb_event *", f"struct cb_{module.name} *"]
        assert [same.get(kind, kind) for kind in types[2:]] == [same.get(kind, kind) for kind in expected]


@each_module
def test_fields_are_declared_and_used(module):
    """Nothing is reported that is never counted, and nothing counted that is not declared."""
    used = set(re.findall(rf"\b{module.name}->(\w+)", c_of(module)))

    assert used == fields_of(module)


@each_module
def test_maps_are_declared_and_defined(module):
    """Each as MODULE_NAME, and fuse finds it, so that the loader is asked for it."""
    lines = re.findall(r"^BPF_\w+\(([^;]*)\);", c_of(module), re.MULTILINE)
    defined = {name for line in lines for name in re.findall(rf"(?<!struct )\b{module.name}_\w+", line)}

    assert defined == {f"{module.name}_{name}" for name in module.own_maps}
    assert defined <= set(UNIT.maps)


@each_module
def test_sizes_are_only_in_the_declaration(module):
    """C knows a size by its macro only; without one, an array is indexed by plain numbers that lie within it."""
    text = c_of(module)
    sized = {m.name: m.entries for m in (*module.metrics, *module.scratch) if hasattr(m, "entries")}
    macros = {name.lower() for name in re.findall(rf"\b{module.name.upper()}_(\w+)_ENTRIES\b", text)}

    assert macros <= sized.keys()
    scratch = {s.name for s in module.scratch if s.field}
    for name in sized.keys() - macros:
        indexes = re.findall(rf"->{name}\[(\w+)\]", text)
        if name in module.own_maps:
            assert sized[name] == 1
        elif name in scratch:  # indexed as another field, by what was clamped to that one's size
            assert sized[name] in {sized[known] for known in macros}
        else:
            places = [arg for hook in module.hooks for source in HOOK[hook].sources for arg in source.args]
            constants = [arg for arg in places if isinstance(arg, str) and arg.isdigit()]  # hooks pass `place` by these
            numbers = [number for index in indexes for number in (constants if index == "place" else [index])]
            assert numbers
            assert all(int(number) < sized[name] for number in numbers)


@each_module
def test_a_per_cpu_struct_fits(module):
    """The kernel refuses a larger one."""
    words = sum(map(map_decoding.words, module.per_cpu)) + sum(s.entries for s in module.scratch if s.field)
    assert words * process_records.WORD <= PERCPU_VALUE_LIMIT


def test_every_map_is_found():
    """Maps are found whichever macro defines them: one that fuse() misses would not be loaded."""
    defined = re.findall(r"^BPF_\w+\(([^;]*)\);$", UNIT.text, re.MULTILINE)

    assert len(defined) == len(UNIT.maps) == len(set(UNIT.maps))
    for arguments in defined:
        assert [name for name in UNIT.maps if re.search(rf"(^|,\s){name},", arguments)], arguments


def readers_of_the_clock(text):
    """The functions that read `ev->now_ns`, themselves or through a function that they call.

    Not cb_now(), which reads the clock itself where the event has no time, nor what comes behind cb_set_time().
    """
    bodies = functions(text)
    bodies = {name: body.partition("cb_set_time(")[0] for name, body in bodies.items()}
    found = {name for name, body in bodies.items() if "ev->now_ns" in body and name not in ("cb_now", "cb_set_time")}
    while more := {
        name for name, body in bodies.items() if name not in found and any(f"{reader}(" in body for reader in found)
    }:
        found |= more
    return found


def test_untimed_hooks_have_no_use_for_the_time():
    """Their `now_ns` is 0, so no handler may read it, not even through a helper or a hook that it raises."""
    readers = readers_of_the_clock(re.sub(r"//.*", "", UNIT.text))

    assert "cb_raise_sched_switch" in readers  # the search works
    assert "follow_on_sched_process_exit" in functions(UNIT.text)
    called = {f"{prefix}_{hook.name}" for hook in HOOKS if not hook.timed for prefix in ("cb_raise", "follow_on")}
    assert called & readers == set()


def test_the_clock_is_read_where_the_event_has_no_time():
    """The exception above is safe only because of this."""
    assert functions(UNIT.text)["cb_now"] == "\treturn ev->now_ns ? ev->now_ns : bpf_ktime_get_ns();\n"


def test_the_clock_is_found_behind_helpers():
    """A reader three calls away is one."""
    text = """
static __always_inline void a(struct cb_event *ev)
{
	use(ev->now_ns);
}
static __always_inline void b(struct cb_event *ev)
{
	a(ev);
}
int c(struct cb_event *ev)
{
	b(ev);
}
int d(struct cb_event *ev)
{
	return 0;
}
"""
    assert readers_of_the_clock(text) == {"a", "b", "c"}


def entries(module, name):
    (found,) = [m.entries for m in module.metrics if m.name == name]
    return found


def test_tables_have_a_name_for_every_index():
    """There is a name for each counter; vectors are in the order in which the hooks count them."""
    for table in (metric for module in CATALOG for metric in module.metrics if isinstance(metric, Table)):
        assert not isinstance(table.names, FixedNames) or len(table.names.names) == table.entries
    assert entries(cpu.MODULE, "softirqs") == len(index_names.SOFTIRQS)
    for index, vector in enumerate(VECTORS):
        assert HOOK[f"{vector}_entry"].sources[0].args == (str(index),)


def test_every_table_of_names_is_known():
    """Each table of names that a declaration takes from the host is one that the agent reads."""
    wanted = {m.names for module in CATALOG for m in module.metrics if isinstance(m, Table)}
    assert {names.table for names in wanted if isinstance(names, HostNames)} <= index_names.tables().keys()


@each_module
def test_host_tables_are_known(module):
    """The agent has something to fill each with, and C has room for a word at an index."""
    for declared in module.host_tables:
        assert declared.of in call_tables.TABLES
        assert re.search(rf"^BPF_ARRAY\({module.name}_{declared.name}, u32,", c_of(module), re.MULTILINE)


@each_module
def test_stacks_are_as_deep_as_declared(module):
    """`depth` addresses, and one more where the function is known that the innermost one called."""
    for stacks in module.stacks:
        ((_, code, count), *callee) = struct_of(f"{module.name}_frames")
        assert (code, count) == ("Q", stacks.depth)
        assert bool(callee) == stacks.with_callee


@each_module
def test_derived_metrics_are_what_derive_answers(module):
    """Each is computed from metrics of the module, and something computes it."""
    derived = [metric for metric in module.metrics if isinstance(metric, Derived)]
    known = {metric.name for metric in module.metrics}

    assert bool(derived) == bool(module.derive)
    for metric in derived:
        assert metric.of
        assert set(metric.of) <= known
    assert not [m for m in module.reported if isinstance(m, Keyed)], "a hash is reported through a derived metric"


@each_module
def test_raw_material_is_used(module):
    """A metric that is not reported is used: by a reported one, per process, or in the ledger."""
    raw = {metric.name for metric in module.metrics if not metric.reported}
    used = {metric.name for metric in module.per_process}  # in top_processes
    used |= {name for metric in module.reported if isinstance(metric, Derived) for name in metric.of}
    used |= {metric.squares for metric in module.reported if isinstance(metric, Counter)}
    if module.explain_waits:
        used |= set(re.findall(r'counts\["(\w+)"\]', inspect.getsource(blocked_time)))
    assert raw == used & raw


@pytest.mark.parametrize("owner", [*STATE_MACHINES, "follow"])
def test_support_files_take_what_their_hook_offers(owner):
    """Their handlers take the parameters of hooks that exist, as those of modules do."""
    text = re.sub(r"//.*", "", (DIRECTORY / "machines" / f"{owner}.h").read_text())
    found = handlers(text, owner)
    handled = [hook for hook in HOOKS if hook.handled_as in found]

    assert found
    assert found == {hook.handled_as for hook in handled}
    for hook in handled:
        declared = re.search(rf"\b{owner}_on_{hook.handled_as}\(([^)]*)\)", text)[1]
        types = [re.sub(r"\s*\w+$", "", " ".join(param.split())) for param in declared.split(",")]
        expected = [re.sub(r"\s*\w+$", "", param) for param in hook.params]
        same = {"u32": "unsigned int"}
        assert types[0] == "struct cb_event *"
        assert [same.get(kind, kind) for kind in types[1:]] == [same.get(kind, kind) for kind in expected]


@each_module
def test_counters_per_process_are_counted_per_process(module):
    """Exactly those that say so, each wherever the module itself counts it, by the same amount, and atomically."""
    text = " ".join(c_of(module).split())
    added = re.findall(rf"__sync_fetch_and_add\(&process->{module.name}_(\w+), (\w+)\)", text)
    own = [(name, amount or "1") for name, amount in re.findall(rf"\b{module.name}->(\w+)(?: \+= (\w+)|\+\+);", text)]
    own += re.findall(rf"__sync_fetch_and_add\(&{module.name}->(\w+), (\w+)\)", text)
    kept = {metric.name for metric in module.per_process}

    assert {name for name, _ in added} == kept
    assert sorted(added) == sorted((name, amount) for name, amount in own if name in kept)
    assert text.count("process->") == len(added), "nothing else of a record is a module's business"


def test_no_metric_needs_only_targeted_hooks():
    """They are not attached when the whole machine is measured, where each metric has a value as well."""
    targeted = {hook.name for hook in HOOKS if hook.targeted}

    assert targeted == {"block_split"}
    for module in CATALOG:
        for metric in module.metrics:
            assert not set(metric.hooks) or set(metric.hooks) - targeted


def callers(bodies, function):
    """The functions that call `function`, themselves or through others."""
    found = {name for name, body in bodies.items() if f"{function}(" in body}
    while more := {n for n, body in bodies.items() if n not in found and any(f"{f}(" in body for f in found)}:
        found |= more
    return found


def test_raised_hooks_are_raised_and_need_what_raises_them():
    """One state machine raises each hook without sources, in handlers of hooks that it needs, and of no others.

    It may need more: a block request's end is worth nothing without its issue.  The hooks that follow the target are
    attached in each run.
    """
    always = handlers((DIRECTORY / "machines/follow.h").read_text(), "follow")
    machines = {
        name: functions(re.sub(r"//.*", "", (DIRECTORY / "machines" / f"{name}.h").read_text()))
        for name in STATE_MACHINES
    }
    for hook in HOOKS:
        assert bool(hook.sources) != bool(hook.raised_on)
        raisers = {name: callers(bodies, f"cb_raise_{hook.name}") for name, bodies in machines.items()}
        directly = {
            (machine, caller.removeprefix(f"{machine}_on_"))
            for machine, found in raisers.items()
            for caller in found
            if caller.startswith(f"{machine}_on_")
        }
        raised_on = {HOOK[name].handled_as for name in hook.raised_on}
        assert {on for _, on in directly} <= raised_on | always
        assert len({machine for machine, _ in directly}) == bool(hook.raised_on)
        directly = {(machine, on) for machine, on in directly if on in raised_on or on not in always}
        for machine, _ in directly:
            assert raised_on <= handlers((DIRECTORY / "machines" / f"{machine}.h").read_text(), machine)


AGENTS_C = {
    path.relative_to(DIRECTORY).as_posix(): path.read_text()
    for path in sorted(DIRECTORY.rglob("*.[ch]"))
    if path.parent.name != "plain"
}
"""File → text, of all files that the agent compiles."""
WRITTEN = {"generated/events.h": events_h(emitted=True)}
"""The one file that is written for a unit and includes another."""


def defined_in(text):
    """The functions, macros, types and maps of a C file."""
    text = re.sub(r"//.*", "", text)
    return (
        {*functions(text), *maps_of(text)}
        | set(re.findall(r"^#define (\w+)", text, re.MULTILINE))
        | {f"{kind} {name}" for kind, name in re.findall(r"^(struct|enum) (\w+) \{", text, re.MULTILINE)}
    )


def all_included(name):
    """The files of probes/ that a file includes, itself or through others."""
    found, left = set(), [name]
    while left:
        for included in includes((AGENTS_C | WRITTEN).get(left.pop(), "")):
            if included not in found:
                found.add(included)
                left.append(included)
    return found


@pytest.mark.parametrize("name", AGENTS_C)
def test_a_file_includes_what_it_uses(name):
    """Everything that a file uses is in the files that it includes."""
    text = re.sub(r"//.*", "", AGENTS_C[name])
    used = set(re.findall(r"\b(?:struct |enum )?\w+", text))
    reachable = all_included(name) | {name}
    own = defined_in(AGENTS_C[name])

    missing = {
        (other, word) for other, found in DEFINED.items() if other not in reachable for word in found & used - own
    }
    assert missing == set()


DEFINED = {name: defined_in(text) for name, text in AGENTS_C.items()}


@pytest.mark.parametrize("name", AGENTS_C)
def test_includes_come_first(name):
    """Before them stand comments only, and `#pragma once` in a header: the unit has them whole before this file."""
    begin = AGENTS_C[name].rpartition('#include "')[0]

    left = re.sub(r'//.*|#pragma once|#include "[^"]*"', "", begin)
    assert left.split() == []
    assert ("#pragma once" in begin) == name.endswith(".h")


def test_members_of_some_kernels_are_declared():
    """CB_HAS_<NAME> in C is a key of FIELDS, and each is asked for."""
    asked = {name for path in DIRECTORY.rglob("*.[ch]") for name in re.findall(r"\bCB_HAS_(\w+)", path.read_text())}
    assert asked == FIELDS.keys()


def test_names_are_unique():
    """Hooks, modules and sections: each is a key of something."""
    for found in ([hook.name for hook in HOOKS], [m.name for m in CATALOG], [m.section_key for m in CATALOG]):
        assert len(found) == len(set(found))
    for module in CATALOG:
        own = [metric.name for metric in module.metrics]
        assert len(own) == len(set(own))


@pytest.mark.parametrize("path", sorted(DIRECTORY.rglob("*.[ch]")), ids=lambda path: path.name)
def test_the_licence_is_the_kernels(path):
    """Some BPF helpers are for GPL programs only."""
    assert path.read_text().splitlines()[0] == "// SPDX-License-Identifier: GPL-2.0-only"


def test_a_module_says_what_it_asks():
    assert all(isinstance(m, Module) and m.question.endswith("?") for m in CATALOG)
    assert all(metric.help.endswith(".") for m in CATALOG for metric in m.metrics)


@each_module
def test_options_are_those_of_its_hooks(module):
    """A module declares what its hooks belong to, and no hook belongs to another module's option."""
    of_hooks = {HOOK[name].option for name in module.hooks} - {""}

    assert of_hooks == {name for name in module.names if ":" in name}
