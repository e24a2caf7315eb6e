"""The two backends behind one interface, and the choice between them."""

from __future__ import annotations

import ctypes
import gc
import logging

from chainbench_agent.collector.base import Collector
from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.collector.mock import MockCollector
from chainbench_agent.errors import SetupError
from chainbench_agent.kernel.preflight import needed_checks
from chainbench_agent.loading.event_records import Telling
from chainbench_agent.probes import CATALOG, HOOKS
from chainbench_agent.settings import Settings

log = logging.getLogger(__name__)


def open_collector(settings: Settings) -> Collector:
    """The collector that `settings.backend` asks for; `auto` falls back to mock data.

    Raises InputError for an unknown module, SetupError if `ebpf` is asked for and cannot be had.
    """
    chosen = settings.choose([name for module in CATALOG for name in module.names])
    modules = [module for module in CATALOG if module.name in chosen]
    options = [name for name in chosen if ":" in name]
    if settings.backend == "mock":
        return MockCollector("mock data was asked for", "start the agent with --backend auto", modules, options=options)
    reason, remedy = _lacking()
    if not reason:
        try:
            events = Telling(settings.slow_io_ms * 1_000_000) if settings.events else None
            collector = EbpfCollector(modules, HOOKS, settings.header_cache, options, events=events)
        except (SetupError, OSError) as error:
            reason, remedy = str(error), "see what `chainbench-agent doctor` says"
        else:
            _give_back_memory()
            return collector
    if settings.backend == "ebpf":
        raise SetupError(f"eBPF cannot run here: {reason}; {remedy}")
    log.warning("serving mock data, because eBPF cannot run here: %s; %s", reason, remedy)
    return MockCollector(reason, remedy, modules, options=options)


def _lacking() -> tuple[str, str]:
    """Reason and remedy of the first check that failed; empty if none did."""
    failed = next((check for check in needed_checks() if not check.ok), None)
    return (f"{failed.name}: {failed.found}", failed.remedy) if failed else ("", "")


def _give_back_memory() -> None:
    """Return what reading the BTF took (20 MB) to the kernel; the C library would hold it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
