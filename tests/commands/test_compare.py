"""The command against the real HTTP API, over a real store in which the runs are made up."""

import json
import random
import threading
from collections import Counter

import pytest
from click.testing import CliRunner
from made_up_runs import measured, sides
from werkzeug.serving import make_server

from chainbench_agent.collector.fake import FakeCollector
from chainbench_agent.commands.main import main
from chainbench_agent.compare.formats import FORMATS
from chainbench_agent.model.stored_run import StoredRun, Summary
from chainbench_agent.runs.archive import Archive
from chainbench_agent.runs.lifecycle import Runs
from chainbench_agent.settings import load_settings
from chainbench_agent.store import open_store
from chainbench_agent.web.access import Access
from chainbench_agent.web.app import create_app

WORD = "s3cret"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """10 runs each of `slow` and `fast`, which alternate, and of `same`; one that was interrupted."""
    store = open_store(load_settings(store="sqlite", state_dir=str(tmp_path_factory.mktemp("state"))))
    rng = random.Random(1)  # noqa: S311 - to be repeatable

    def side(variant, ms):
        def one(number):
            return measured(number, {"on_cpu": 10.0, "disk": ms * rng.lognormvariate(0, 0.02)}, variant=variant)

        return one

    runs = [run for side_ in sides(side("slow", 90.0), side("fast", 40.0)) for run in side_]
    runs += [side("same", 90.0)(number) for number in range(100, 110)]
    runs.append(measured(200, {"on_cpu": 1.0}, variant="cut", ended_by="shutdown"))
    for run in runs:
        evidence = run.evidence
        result = "interrupted" if evidence.run.ended_by == "shutdown" else "finished"
        store.save(StoredRun(Summary.of(evidence.run, result, "ebpf"), run.environment, evidence.as_json()))
    yield store
    store.close()


@pytest.fixture(scope="module")
def serving(store):
    """`serving(access)` → the URL of an agent with that store."""
    servers = []

    def serve(**access):
        app = create_app(Runs(FakeCollector(), "vm", archive=Archive(store)), lambda _: (b"", ""), **access)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def url(serving):
    return serving()


@pytest.fixture
def compare(url, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return lambda *arguments: CliRunner().invoke(main, ["compare", "--url", url, *arguments])


def test_labels_select_many_runs(compare):
    found = compare("variant:slow,impl:python", "variant:fast")

    assert found.exit_code == 0, found.output
    assert "10 + 10 runs in alternating pairs" in found.stdout
    assert "  FASTER " in found.stdout


def test_an_id_selects_one(compare):
    found = compare("run-0000", "run-0001")

    assert found.exit_code == 0
    assert "[too_few_runs]" in found.stdout


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_asked_for_and_is_in_the_help(compare, name):
    found = compare("variant:slow", "variant:fast", "--format", name)

    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout
    assert Counter(CliRunner().invoke(main, ["compare", "-h"]).output.replace(",", " ").replace(".", " ").split())[name]


def test_the_newest_runs_are_compared(compare):
    """`--limit` of each side, and no run that started before `--since`."""
    limited = json.loads(compare("variant:slow", "variant:fast", "--format", "json", "--limit", "3").stdout)
    since = json.loads(
        compare("variant:slow", "variant:fast", "--format", "json", "--since", "2026-01-01T00:00:12+00:00").stdout
    )

    assert limited["baseline"]["runs"] == ["run-0012", "run-0015", "run-0016", "run-0019"][-3:]
    assert since["baseline"]["runs"] == ["run-0012", "run-0015", "run-0016", "run-0019"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("variant:slow", "variant:fast"), 0),
        (("variant:fast", "variant:slow"), 1),
        (("variant:fast", "variant:slow", "--fail-if", "slower:200%"), 0),
        (("variant:slow", "variant:same"), 0),
        (("variant:slow", "variant:same", "--require-conclusive"), 3),
        (("variant:slow", "run-0200"), 2),
        (("variant:fast", "run-0200", "--allow-different"), 0),
    ],
)
def test_exit_codes(compare, arguments, code):
    found = compare(*arguments)

    assert found.exit_code == code, found.output
    assert found.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("variant:none", "variant:fast"), "baseline: no finished run has the labels variant:none"),
        (("variant:cut", "variant:fast"), "baseline: no finished run has the labels variant:cut"),
        (("variant:slow", "variant:slow"), "is on both sides"),
        (("variant:slow", "nothing"), "/runs/nothing: "),
        (("variant:slow", "variant:fast,colour:red"), "optimized: 'colour:red' is no label with a value"),
        (("variant:slow", "variant:a,variant:b"), "each once"),
        (("variant:slow", "variant:fast", "--format", "xml"), "there is no xml; choose among bmf, "),
        (("variant:slow", "variant:fast", "--fail-if", "faster"), "write slower:5%"),
        (("variant:slow", "variant:fast", "--since", "yesterday"), "'yesterday' is no time"),
        (("variant:slow", "variant:fast", "--token-file", "/nonexistent"), "cannot read /nonexistent"),
    ],
)
def test_what_cannot_be_compared_is_no_pass(compare, arguments, complaint):
    """Exit code 2 and a sentence on stderr; nothing on stdout that a program would read."""
    found = compare(*arguments)

    assert found.exit_code == 2
    assert complaint in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "unix:/nonexistent", "ftp://agent"])
def test_no_agent_is_no_pass(url):
    found = CliRunner().invoke(main, ["compare", "--url", url, "a", "b"])

    assert found.exit_code == 2
    assert url in found.stderr


def test_an_agent_with_a_token(serving, tmp_path):
    url = serving(access=Access(token=WORD.encode()))
    file = tmp_path / "token"
    file.write_text(f"{WORD}\n")
    command = ["compare", "--url", url, "variant:slow", "variant:fast"]

    assert CliRunner().invoke(main, command).exit_code == 2
    assert CliRunner().invoke(main, [*command, "--token-file", str(file)]).exit_code == 0


def test_a_workflow_of_github_gets_its_summary(compare, monkeypatch, tmp_path):
    """Appended to what other commands of the step wrote."""
    summary = tmp_path / "summary"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    found = compare("variant:slow", "variant:fast", "--format", "github")

    assert found.stdout.startswith("::notice ")
    assert summary.read_text().startswith("before\n### Faster: ")


def test_evidence_of_another_version_is_named(compare, store):
    run = measured(300, {"on_cpu": 1.0})
    evidence = {**run.evidence.as_json(), "target": {"kind": "planet"}}
    store.save(StoredRun(Summary.of(run.evidence.run, "finished", "ebpf"), {}, evidence))
    found = compare("variant:slow", "run-0300")

    assert found.exit_code == 2
    assert "optimized: the evidence of run run-0300 is of another version of the agent" in found.stderr
