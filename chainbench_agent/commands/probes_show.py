"""`chainbench-agent probes show`: the C text of the BPF unit that the agent compiles on this machine."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version

from chainbench_agent.loading.bpf_unit import prepare
from chainbench_agent.loading.event_records import EventOptions
from chainbench_agent.probes import CATALOG, HOOKS
from chainbench_agent.settings import Settings


def show(settings: Settings) -> str:
    """The text that an agent with these settings compiles, generated parts included; it compiles as it is.

    Raises InputError for an unknown module, SetupError where this kernel has no BTF.
    """
    chosen = settings.choose([name for module in CATALOG for name in module.names])
    modules = tuple(module for module in CATALOG if module.name in chosen)
    options = [name for name in chosen if ":" in name]
    events = EventOptions(settings.slow_io_ms * 1_000_000) if settings.events else None
    ready = prepare(modules, HOOKS, settings.header_cache, options, events)
    if ready.tree.parent != settings.header_cache:  # a temporary one
        shutil.rmtree(ready.tree, ignore_errors=True)
    agent = f"chainbench-agent {version('chainbench-agent')}"
    return f"// The BPF unit of {agent} for Linux {os.uname().release}: {', '.join(chosen)}\n\n{ready.text.c_text}"
