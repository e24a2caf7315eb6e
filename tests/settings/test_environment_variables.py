"""A variable with the prefix of settings is one of them, or the agent does not start."""

import re
from pathlib import Path

import pytest

from chainbench_agent.errors import InputError
from chainbench_agent.settings import Settings, load_settings
from chainbench_agent.settings.environment_variables import CONFIG, OF_THE_CHECKOUT


@pytest.fixture(autouse=True)
def no_file_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr("chainbench_agent.settings.DEFAULT_CONFIG", tmp_path / "default.toml")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("CHAINBENCH_PROT", ", perhaps CHAINBENCH_PORT is meant; the settings are CHAINBENCH_HOST, CHAINBENCH_PORT,"),
        ("chainbench_prot", ", perhaps CHAINBENCH_PORT is meant; the settings are CHAINBENCH_HOST, CHAINBENCH_PORT,"),
        ("CHAINBENCH_KEEP_RUN", ", perhaps CHAINBENCH_KEEP_RUNS is meant; "),
        ("CHAINBENCH_QQQ", "; the settings are CHAINBENCH_HOST, CHAINBENCH_PORT,"),
        ("CHAINBENCH_", "; the settings are CHAINBENCH_HOST, CHAINBENCH_PORT,"),
    ],
)
def test_a_variable_that_is_no_setting(monkeypatch, name, says):
    """It is refused, as in the file: if it were ignored, the agent would run with other settings than intended."""
    monkeypatch.setenv(name, "9")

    with pytest.raises(InputError) as caught:
        load_settings()

    assert caught.value.field == name
    assert str(caught.value).startswith(f"{name}: no such setting (in the environment){says}")


def test_variables_are_named_with_all_else_that_is_wrong(monkeypatch, tmp_path):
    for name in ("CHAINBENCH_PROT", "CHAINBENCH_HOSTS"):
        monkeypatch.setenv(name, "9")
    (tmp_path / "agent.toml").write_text("colour = 1")

    with pytest.raises(InputError) as caught:
        load_settings(str(tmp_path / "agent.toml"), port="x")

    fields = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert sorted(fields) == ["CHAINBENCH_HOSTS", "CHAINBENCH_PROT", "colour", "port"]


@pytest.mark.parametrize(
    "name",
    [
        *sorted(OF_THE_CHECKOUT),
        "CHAINBENCH_AGENT_SERVICE_HOST",
        "CHAINBENCH_AGENT_PORT",
        "CHAINBENCH_AGENT_PORT_9090_TCP",
        "CHAINBENCHMARK",
    ],
)
def test_variables_that_are_none_of_the_agents(monkeypatch, name):
    """Variables of the checkout, those that Kubernetes sets for the Service, and one with a similar beginning."""
    monkeypatch.setenv(name, "tcp://10.0.0.1:9090")

    assert load_settings().port == 9090


def test_an_empty_variable_that_is_no_setting(monkeypatch):
    """It counts as not set, as an empty setting does: a script may leave it so."""
    monkeypatch.setenv("CHAINBENCH_PROT", "")

    assert load_settings().port == 9090


def test_the_checkouts_own_variables_are_all_declared():
    """Agents start with every variable that the Makefile, scripts, tests and bench read."""
    repo, reads = Path(__file__).parents[2], re.compile(r"(?:environ\W+(?:get\W+)?|\$\{)(CHAINBENCH_[A-Z_]+)")
    files = [repo / "Makefile", *(repo / ".ci").glob("*")]
    files += [path for part in ("scripts", "bench", "tests") for path in (repo / part).rglob("*")]
    text = "".join(path.read_text() for path in files if path.is_file() and path.suffix in {"", ".py", ".sh"})
    read = set(reads.findall(text))

    assert read <= {*(f"CHAINBENCH_{name.upper()}" for name in Settings.model_fields), *OF_THE_CHECKOUT, CONFIG}
    assert read >= OF_THE_CHECKOUT
