"""The whole comparison as JSON."""

from __future__ import annotations

import json

from chainbench_agent.compare.build import Compared
from chainbench_agent.compare.rendering import Format


def render(compared: Compared) -> str:
    return json.dumps(compared.comparison.as_json(), indent=2, ensure_ascii=False) + "\n"


FORMAT = Format("json", "application/json", "the whole comparison, for programs", render)
