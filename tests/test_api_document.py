"""What the API document allows, and much that it does not, is asked of a daemon: schemathesis makes it up."""

import json
import subprocess
import sys

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


def test_no_5xx_and_no_undocumented_answer(daemon, tmp_path):
    """With made-up data, over the network, as any client would: also with bodies that are no JSON."""
    agent = daemon(
        "from chainbench_agent.collector import open_collector\n    return open_collector(settings)", backend="mock"
    )
    report = tmp_path / "report.ndjson"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{agent.url}/openapi.json", "--no-color"]
    options = [f"--checks={','.join(CHECKS)}", "--max-examples=30", "--seed=53", "--generation-database=none"]
    done = subprocess.run(
        [*command, *options, "--report=ndjson", f"--report-ndjson-path={report}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    asked = {
        recorder["label"]
        for line in report.read_text().splitlines()
        for event in json.loads(line).values()
        if isinstance(event, dict) and (recorder := event.get("recorder"))
    }
    assert {"POST /start", "POST /stop", "POST /report", "GET /metrics"} <= asked
    assert "made a mistake" not in done.stdout
    assert agent.get("/status").ok
