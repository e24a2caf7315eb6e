"""docs/tour.md: its stations exist, they are few, and the data passes them in that order."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import chainbench_agent
from chainbench_agent.agent import build_agent
from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.probes import HOOKS, io
from chainbench_agent.settings import load_settings
from chainbench_agent.web.app import create_app

PACKAGE = Path(chainbench_agent.__file__).parent
PAGE = PACKAGE.parent / "docs" / "tour.md"
MOST = {"From the body of POST /start to cb_config": 14, "From fsync_latency_us in its handler to /metrics": 16}
LABELS = {"scenario": "tour", "impl": "python", "variant": "v", "commit": "c", "dataset": "d"}


def walks():
    """Heading → its stations, as (file, name)."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {
        heading: re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", text, re.MULTILINE)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_the_walks_are_short():
    """Each added station is one more file to open for whoever changes what passes there."""
    found = {heading: len(stations) for heading, stations in walks().items()}

    assert found.keys() == MOST.keys()
    assert all(0 < found[heading] <= most for heading, most in MOST.items()), found


@pytest.mark.parametrize(("file", "name"), [station for stations in walks().values() for station in stations])
def test_every_station_exists(file, name):
    """C functions too, which no profiler of Python sees."""
    text = (PACKAGE / file).read_text()
    *owners, function = name.split(".")

    assert all(re.search(rf"^class {owner}\b", text, re.MULTILINE) for owner in owners)
    assert re.search(rf"\bdef {function}\(|^static __always_inline \w+ {function}\(", text, re.MULTILINE)


class Passed:
    """Notes each function of the package that is entered, in any thread, in order."""

    def __init__(self):
        self.stations = []

    def __call__(self, frame, event, _argument):
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(f"{PACKAGE}/"):
            self.stations.append((path.removeprefix(f"{PACKAGE}/"), frame.f_code.co_qualname))

    def __enter__(self):
        threading.setprofile(self)
        sys.setprofile(self)
        return self

    def __exit__(self, *_raised):
        sys.setprofile(None)
        threading.setprofile(None)

    def missed(self, stations):
        """The first of the `stations` that was not entered after the one before; None if the walk was made."""
        rest = iter(self.stations)
        return next((station for station in stations if station not in rest), None)


@pytest.fixture
def client(tmp_path):
    """A client of an agent that measures with the module io."""
    settings = load_settings(store="none", machine="m")
    agent = build_agent(settings, lambda _: EbpfCollector([io.MODULE], HOOKS, tmp_path))
    yield create_app(agent.runs, agent.metrics, agent.default_selection).test_client()
    agent.close()


@pytest.fixture
def process(tmp_path):
    """A process that calls fsync once for each line that it is sent."""
    code = "import os, sys\nfor _ in sys.stdin: os.fsync(1)"
    with (tmp_path / "file").open("w") as file:
        started = subprocess.Popen([sys.executable, "-uc", code], stdin=subprocess.PIPE, stdout=file, text=True)
    with started:
        yield started
        started.kill()


@pytest.mark.bpf
def test_the_data_passes_the_stations_in_order(client, process):
    """A run of a process that calls fsync once."""
    start, figure = walks().values()
    with Passed() as passed:
        assert client.post("/start", json=LABELS | {"pid": process.pid}).status_code == 200
        assert passed.missed(start) is None
        process.communicate("\n")
        assert client.post("/stop").json["io"]["fsyncs"] == 1
        exposition = client.get("/metrics").text

    assert "chainbench_io_fsync_latency_seconds_count" in exposition
    assert passed.missed([station for station in figure if station[0].endswith(".py")]) is None
