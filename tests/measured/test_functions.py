"""Hooks that are attached to kernel functions: their programs load, also without a tracepoint's before them."""

from dataclasses import replace

import pytest

from chainbench_agent.loading.bpf_unit import load_unit
from chainbench_agent.probes import CATALOG, HOOKS

pytestmark = pytest.mark.bpf

REFUSED = "Operation not permitted"  # by a kernel that allows no fentry


def without_tracepoints(hook):
    """The hook as on a kernel without its tracepoint, if there is another source."""
    functions = tuple(source for source in hook.sources if source.kind not in ("raw_tracepoint", "tp_btf", "perf"))
    return replace(hook, sources=functions, unless=None, stands_in_for=()) if functions else hook


def only_kprobes(hook):
    kprobes = tuple(source for source in hook.sources if source.kind in ("kprobe", "kretprobe"))
    return replace(hook, sources=kprobes, unless=None, stands_in_for=()) if kprobes else hook


@pytest.mark.parametrize("given", [without_tracepoints, only_kprobes])
def test_handlers_load_whoever_calls_them_first(given, cache_dir):
    """By itself BCC reads the kernel's memory only through a tracepoint's pointer."""
    unit = load_unit(CATALOG, map(given, HOOKS), cache_dir)
    unit.close()

    parts = {part.name for program in unit.unit.programs for part in program.parts if part.kind == "kprobe"}
    assert {name: why for name, why in unit.loaded.failed.items() if REFUSED not in why} == {}
    assert parts
    assert parts <= unit.loaded.programs.keys()
    assert unit.absent_modules == {}
