"""The command line: what it passes on, and how it says no."""

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from chainbench_agent.commands.doctor import Examination
from chainbench_agent.commands.main import main
from chainbench_agent.commands.probes_check import ProbesCheck
from chainbench_agent.errors import AgentError
from chainbench_agent.server import gunicorn_server
from chainbench_agent.settings import Settings


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(main, arguments)

    return invoke


@pytest.fixture
def served(monkeypatch):
    """The calls of gunicorn_server.serve(), as (settings, reload); none of them is made."""
    calls = []
    monkeypatch.setattr(gunicorn_server, "serve", lambda settings, reload: calls.append((settings, reload)))
    return calls


def test_serve_takes_every_setting(run, served, tmp_path):
    """From options and from the file that --config names; they can be read again."""
    config = tmp_path / "agent.toml"
    config.write_text('machine = "from the file"\nport = 1\n')
    result = run("serve", "--config", str(config), "--port", "9191", "--probes", "cpu,exec", "--backend", "mock",
                 "--sample-interval", "10")  # fmt: skip

    assert result.exit_code == 0, result.output
    ((settings, again),) = served
    assert again().model_dump() == settings.model_dump()
    assert (settings.port, settings.probes, settings.backend) == (9191, ("cpu", "exec"), "mock")
    assert (settings.machine, settings.sample_interval) == ("from the file", 10)


@pytest.mark.parametrize(
    ("said", "errors"), [([], True), (["--no-syscall-errors"], False), (["--syscall-errors"], True)]
)
def test_a_flag_takes_no_value(run, served, monkeypatch, said, errors):
    """It can be taken back where the environment sets it."""
    monkeypatch.setenv("CHAINBENCH_SYSCALL_ERRORS", "true")
    result = run("serve", *said)

    assert result.exit_code == 0, result.output
    ((settings, *_),) = served
    assert settings.syscall_errors is errors


def test_help_has_a_sentence_and_the_default_of_every_setting(run):
    text = " ".join(run("serve", "--help").output.split())

    for name, setting in Settings.model_fields.items():
        assert re.search(rf"--{name.replace('_', '-')}[ /]", text)
        assert setting.description in text
    assert "[default: 9090]" in text
    assert "[default: all]" in text


def test_a_wrong_setting_is_one_sentence(run, served):
    result = run("serve", "--port", "http")

    assert result.exit_code == 1
    assert result.output.startswith("Error: port: 'http': input should be a valid integer")
    assert result.output.count("\n") == 1
    assert served == []


def test_a_failure_is_a_sentence_not_a_traceback(run, monkeypatch):
    def fail():
        raise AgentError("the agent did not start")

    monkeypatch.setattr("chainbench_agent.commands.demo.run_demo", fail)
    result = run("demo")

    assert (result.exit_code, result.output) == (1, "Error: the agent did not start\n")


def test_demo_prints_the_table(run, monkeypatch):
    monkeypatch.setattr("chainbench_agent.commands.demo.run_demo", lambda: "the table")

    assert run("demo").output == "the table\n"


def test_as_a_module():
    version = [sys.executable, "-m", "chainbench_agent", "--version"]
    result = subprocess.run(version, capture_output=True, text=True, check=True)

    assert result.stdout.startswith("chainbench-agent, version ")


@pytest.fixture
def looked_in(monkeypatch):
    """The header caches that `doctor` and `probes check` were to use."""
    places = []
    monkeypatch.setattr(
        "chainbench_agent.commands.doctor.examine", lambda _, cache: places.append(cache) or Examination((), ())
    )
    monkeypatch.setattr(
        "chainbench_agent.commands.probes_check.check", lambda _, cache: places.append(cache) or ProbesCheck(())
    )
    return places


@pytest.mark.parametrize("command", [["doctor"], pytest.param(["probes", "check"], marks=pytest.mark.bpf)])
def test_where_the_agent_would_keep_headers(run, looked_in, monkeypatch, tmp_path, command):
    """The file says it, the environment wins over that, and the option over both."""
    (tmp_path / "agent.toml").write_text('header_cache = "/of/the/file"\n')
    monkeypatch.setenv("CHAINBENCH_CONFIG", str(tmp_path / "agent.toml"))
    run(*command)
    monkeypatch.setenv("CHAINBENCH_HEADER_CACHE", "/of/the/environment")
    run(*command)
    run(*command, "--header-cache", "/of/the/option")

    assert list(map(str, looked_in)) == ["/of/the/file", "/of/the/environment", "/of/the/option"]


def test_a_doctor_whose_agent_would_not_start(run, looked_in, monkeypatch):
    """It says what the agent would."""
    monkeypatch.setenv("CHAINBENCH_PORT", "http")
    result = run("doctor")

    assert result.exit_code == 1
    assert result.output.startswith("Error: port: 'http'")
    assert looked_in == []
