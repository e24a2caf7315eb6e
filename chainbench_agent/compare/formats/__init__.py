"""The formats of a comparison: each is a file here with a FORMAT, and is found by its file."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from chainbench_agent.compare.rendering import Format


def _formats() -> dict[str, Format]:
    found = [import_module(f"{__name__}.{module.name}").FORMAT for module in iter_modules(__path__)]
    return {one.name: one for one in found}


FORMATS = MappingProxyType(_formats())
"""Name → format, in the order of their files' names."""
