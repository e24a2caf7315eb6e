import random

import pytest

from chainbench_agent.compare.build import compare
from chainbench_agent.compare.formats import FORMATS


@pytest.fixture
def compared(made):
    """A comparison of 10 + 10 runs: `after` of 100 ms of disk; `order` as in conftest.sides."""

    def build(after=10.0, order="ABBA", sections=None, **run):
        rng = random.Random(1)

        def side(disk, fsyncs):
            def one(i):
                fsync = {"io": {"fsync_latency_us": made.distribution(fsyncs, disk / fsyncs * 1e3)}}
                lines = {"on_cpu": 40.0 + rng.random(), "disk": disk * rng.lognormvariate(0, 0.03), "pipe": 0.5}
                return made.run(i, lines, sections=fsync | (sections or {}), **run)

            return one

        return compare(*made.sides(side(100.0, 120), side(after, 120 if after == 100 else 1), order))

    return build


@pytest.fixture
def rendered(compared):
    """`rendered(format, ...)`: its text for a comparison as `compared` makes it."""
    return lambda name, *args, **options: FORMATS[name].render(compared(*args, **options))
