"""The evidence as the HTTP API answers it (docs/evidence.md); several runs are a list."""

from __future__ import annotations

import json
from collections.abc import Sequence

from chainbench_agent.evidence.model import Evidence
from chainbench_agent.export.format import Format


class Json:
    """See the top of this file."""

    name = "json"
    media_type = "application/json"

    def render(self, runs: Sequence[Evidence]) -> str:
        documents = [run.as_json() for run in runs]
        return json.dumps(documents[0] if len(documents) == 1 else documents, indent=2) + "\n"


FORMAT: Format = Json()
