"""The unit in systemd/ and its settings, as far as they can be checked without starting it (tests/vm does)."""

import configparser
import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from chainbench_agent.server import gunicorn_server
from chainbench_agent.server.systemd_notify import BEATS
from chainbench_agent.settings import Settings
from chainbench_agent.settings.environment_variables import ENV_PREFIX

REPO = Path(__file__).parents[2]
UNIT = REPO / "systemd/chainbench-agent.service"
SETTINGS = REPO / "systemd/chainbench-agent.env"
MOST_EXPOSURE = 2.5
OF_THE_UNIT = {"header_cache": "/var/cache/chainbench-agent"}
"""Settings that the unit makes itself, as systemd creates the directory: %C is /var/cache."""
LEFT_OPEN = {
    "AmbientCapabilities": "it is no root",
    "CapabilityBoundingSet_CAP_BPF": "it loads programs",
    "CapabilityBoundingSet_CAP_SYSLOG": "names of functions",
    "SystemCallFilter_privileged": "bpf(2)",
    "SystemCallFilter_debug": "perf_event_open(2)",
    "ProtectKernelLogs": "takes CAP_SYSLOG away",
    "ProtectKernelTunables": "hides /proc/kallsyms; ReadOnlyPaths does the same",
    "ProtectProc": "targets are processes of others",
    "ProcSubset": "/proc/vmstat is evidence",
    "PrivateUsers": "capabilities in it are none outside",
    "PrivateNetwork": "it is called from outside",
    "RestrictAddressFamilies_AF_INET_INET6": "it is called from outside",
    "RestrictAddressFamilies_AF_UNIX": "the socket, and sd_notify",
    "IPAddressDeny": "where it is called from is a setting",
    "NotifyAccess": "its worker is a child, and speaks for both",
    "DeviceAllow": "the clock's, to read; a part of ProtectClock",
    "RootDirectoryOrRootImage": "Debian's Python and BCC are its own",
}
"""Settings that `systemd-analyze security` would still restrict → why the unit does not."""

needs_systemd = pytest.mark.needs("systemd-analyze")


def unit():
    """Section → key → values, in order."""
    found = configparser.RawConfigParser(strict=False, dict_type=Repeated)
    found.optionxform = str
    found.read(UNIT)
    return found


class Repeated(dict):
    """A key may come several times; the last one counts here."""


@needs_systemd
def test_the_service_is_hardly_exposed():
    """By the scale of systemd-analyze, on which 0 is nothing and 10 is all that a root process may do."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", UNIT], capture_output=True, text=True, check=True
    )

    exposure = float(re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)[1])

    assert exposure <= MOST_EXPOSURE, done.stdout


@needs_systemd
def test_every_restriction_that_is_possible_is_set():
    """Each by itself, as the sum on that scale has room for one that gets lost."""
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--json=short", UNIT],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    still = {row["json_field"] for row in json.loads(found) if float(row["exposure"] or 0)}
    assert still == set(LEFT_OPEN)
    assert unit()["Service"]["ProtectSystem"] == "strict"  # on that scale no better than `full`


def seconds(span):
    """A time as systemd understands it."""
    shown = subprocess.run(["systemd-analyze", "timespan", span], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"μs: (\d+)", shown)[1]) / 1e6


@needs_systemd
def test_the_time_limits_suffice_for_the_agent():
    """The limits of systemd are longer than the agent's own, and than it takes to end and store a run."""
    service = unit()["Service"]

    assert seconds(service["WatchdogSec"]) > gunicorn_server.LOOP_S * BEATS / (BEATS - 1)
    assert seconds(service["TimeoutStopSec"]) > gunicorn_server.KILL_AFTER_S
    assert seconds(service["TimeoutStartSec"]) >= gunicorn_server.BUILD_S
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"].split() == ["1", "2", "3"]
    assert re.fullmatch(r"[1-9]\d*[MG]", service["MemoryMax"])
    assert int(service["TasksMax"]) > 0
    assert service["LimitMEMLOCK"] == "infinity"  # the guest of tests/vm is too new to need it, Linux 5.10 is not


@needs_systemd
def test_systemd_understands_every_line(tmp_path):
    """Systemd ignores a key that it does not know, which would then protect nothing."""
    placed = tmp_path / UNIT.name
    placed.write_text(UNIT.read_text().replace("/usr/local/bin/chainbench-agent", "/bin/true"))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", placed], capture_output=True, text=True, check=False
    )

    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


def test_every_setting_is_in_the_environment_file_with_its_default():
    """As a comment."""
    lines = re.findall(rf"^#{ENV_PREFIX}(\w+)=(.*)$", SETTINGS.read_text(), re.MULTILINE)

    shown = {name.lower(): value for name, value in lines}
    assert len(shown) == len(lines)
    assert set(shown) - {"config"} == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        general = "" if field.default_factory or default is None else str(default)
        assert shown[name] == OF_THE_UNIT.get(name, general), name
        assert f"# {field.description}" in SETTINGS.read_text()
    assert re.findall(r"^[^#\n].*", SETTINGS.read_text(), re.MULTILINE) == []


def test_settings_of_the_unit_exist_and_are_those_of_the_environment_file():
    """The file would override them."""
    variables = re.findall(rf"^Environment={ENV_PREFIX}(\w+)=(.*)", UNIT.read_text(), re.MULTILINE)

    assert {name.lower(): value.replace("%C", "/var/cache") for name, value in variables} == OF_THE_UNIT


def test_the_page_installs_the_tokens_as_the_unit_says():
    """The lines are those in the comment of the unit; Prometheus' file is the one that its job names."""
    page = (REPO / "docs/operations.md").read_text()
    lines = re.findall(r"^#   ((?:LoadCredential|Environment)=.*token.*)$", UNIT.read_text(), re.MULTILINE)
    assert len(lines) == 3
    assert "\n    ".join(("    [Service]", *lines)) in page

    (job,) = re.findall(r"credentials_file: (\S+)", (REPO / "deploy/prometheus/prometheus.yml").read_text())
    assert f"/etc/chainbench-agent.read-token {job}\n" in page


def test_capabilities_are_bounded_by_what_is_given_and_each_has_its_reason():
    service = unit()["Service"]
    given = service["AmbientCapabilities"].split()

    assert service["CapabilityBoundingSet"].split() == given
    for capability in given:
        assert re.search(rf"^# {capability}  +\w", UNIT.read_text(), re.MULTILINE), capability


@pytest.fixture
def stage(tmp_path):
    """Installs into a directory; answers it, and all files that are there."""

    def run(what):
        environment = os.environ | {"DESTDIR": str(tmp_path), "PREFIX": "/opt/agent", "SYSCONFDIR": "/etc/opt"}
        subprocess.run([REPO / "scripts/install", what], check=True, env=environment, capture_output=True)
        return {"/" + str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}

    return run


def test_install_uses_the_prefix_and_uninstall_leaves_the_settings(stage, tmp_path):
    """The unit and the command name the prefix, and nothing names the stage."""
    files = stage("install")

    unit_text = (tmp_path / "opt/agent/lib/systemd/system/chainbench-agent.service").read_text()
    assert "ExecStart=/opt/agent/bin/chainbench-agent serve\n" in unit_text
    assert "EnvironmentFile=-/etc/opt/chainbench-agent.env\n" in unit_text
    assert "/usr/local" not in unit_text
    assert "/opt/agent/bin/chainbench-agent" in files
    venv = tmp_path / "opt/agent/lib/chainbench-agent"
    texts = [path for path in (*(venv / "bin").iterdir(), venv / "pyvenv.cfg") if not path.is_symlink()]
    assert not [path for path in texts if str(tmp_path) in path.read_text()]
    works = [venv / "bin/python", "-m", "chainbench_agent", "--version"]
    assert subprocess.run(works, capture_output=True, text=True, check=True, cwd="/").stdout.startswith(
        "chainbench-agent"
    )
    probes = venv / "lib" / next((venv / "lib").iterdir()).name / "site-packages/chainbench_agent/probes"
    assert {path.name for path in probes.glob("*.c")} == {path.name for path in (REPO / "probes").glob("*.c")}

    settings = tmp_path / "etc/opt/chainbench-agent.env"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o640  # it may hold the password of a data base
    settings.write_text("CHAINBENCH_PORT=1\n")
    stage("install")
    assert settings.read_text() == "CHAINBENCH_PORT=1\n"

    made_later = [tmp_path / "var" / name for name in ("cache/chainbench-agent", "cache/chainbench_agent", "lib/kept")]
    for directory in made_later:
        directory.mkdir(parents=True)
        (directory / "file").touch()
    assert stage("uninstall") == {"/etc/opt/chainbench-agent.env", "/var/lib/kept/file"}
