"""Sends a daemon requests that the API document allows, and many that it does not; schemathesis generates them."""

import json
import subprocess
import sys
from urllib.parse import quote

from chainbench_agent.model.stored_run import LABELS

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


def asked(agent, tmp_path, *options):
    """The calls that were made; what is wrong with the answers fails the test."""
    report = tmp_path / "report.ndjson"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{agent.url}/openapi.json", "--no-color"]
    common = [f"--checks={','.join(CHECKS)}", "--max-examples=30", "--seed=53", "--generation-database=none"]
    done = subprocess.run(
        [*command, *common, *options, "--report=ndjson", f"--report-ndjson-path={report}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return {
        recorder["label"]
        for line in report.read_text().splitlines()
        for event in json.loads(line).values()
        if isinstance(event, dict) and (recorder := event.get("recorder"))
    }


def test_no_5xx_and_no_undocumented_answer(daemon, tmp_path):
    """With made-up data, over the network, as any client would: also with bodies that are no JSON."""
    agent = daemon(
        "from chainbench_agent.collector import open_collector\n    return open_collector(settings)",
        backend="mock",
        store="sqlite",  # without one, GET /runs and those below it answer 503
        state_dir=tmp_path / "state",
    )
    calls = asked(agent, tmp_path)
    agent.post("/stop")  # when nothing is on, it has another answer
    only_stop = asked(agent, tmp_path, "--include-path=/stop")

    assert calls >= {
        "POST /start",
        "POST /stop",
        "POST /report",
        "GET /report",
        "GET /metrics",
        "GET /status",
        "GET /runs",
    }
    assert only_stop == {"POST /stop"}
    assert agent.get("/status").ok


def test_the_longest_query_is_answered(daemon, tmp_path):
    """All filters of `GET /runs`, each of 200 characters of 12 in the address: 14 kB in all."""
    agent = daemon(store="sqlite", state_dir=tmp_path / "state")
    query = "&".join(f"{name}={quote(chr(0x1F600) * 200)}" for name in LABELS)

    answer = agent.get(f"/runs?{query}")

    assert answer.json() == {"runs": [], "next": None}
