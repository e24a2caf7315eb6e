"""The series that /metrics has of these runs.  As there, the last of several runs with the same labels counts."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from chainbench_agent.evidence.model import Evidence
from chainbench_agent.export.families import Families, identity, run_samples
from chainbench_agent.export.format import Format
from chainbench_agent.export.series import catalog_families
from chainbench_agent.probes import CATALOG


class Prometheus:
    """See the top of this file."""

    name = "prometheus"
    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def render(self, runs: Sequence[Evidence]) -> str:
        families = catalog_families(CATALOG)
        merged: dict[str, Metric] = {}
        for run in {identity(run): run for run in runs}.values():
            for metric in run_samples(families, run):
                merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type)).samples.extend(
                    metric.samples
                )
        return generate_latest(Families(merged.values())).decode()


FORMAT: Format = Prometheus()
