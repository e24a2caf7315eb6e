"""The output formats of evidence, found by their files: a new file here with a FORMAT is a new format.

FORMATS["json"].render([evidence])
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from chainbench_agent.export.format import Format


def _formats() -> Mapping[str, Format]:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
    found: list[Format] = [import_module(f"{__name__}.{name}").FORMAT for name in names]
    return {form.name: form for form in found}


FORMATS = _formats()

__all__ = ["FORMATS"]
