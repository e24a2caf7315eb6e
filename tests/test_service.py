"""systemd/: the unit and its settings, as far as they can be judged without starting them (tests/vm does)."""

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

REPO = Path(__file__).parents[1]
UNIT = REPO / "systemd/chainbench-agent.service"
SETTINGS = REPO / "systemd/chainbench-agent.env"
MOST_EXPOSURE = 2.5
OF_THE_UNIT = {"header_cache": "/var/cache/chainbench-agent"}
"""What the unit sets, because systemd makes the directory: %C is /var/cache."""
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
"""What systemd would still close → why the unit does not."""

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
def test_it_is_hardly_exposed():
    """By systemd's own scale, on which 0 is nothing and 10 everything that a root process may do."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", UNIT], capture_output=True, text=True, check=True
    )

    exposure = float(re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)[1])

    assert exposure <= MOST_EXPOSURE, done.stdout


@needs_systemd
def test_all_that_can_be_closed_is():
    """By the same scale, one by one: the sum has room for a protection that gets lost."""
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
    """What systemd takes a time for."""
    shown = subprocess.run(["systemd-analyze", "timespan", span], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"μs: (\d+)", shown)[1]) / 1e6


@needs_systemd
def test_it_is_watched_limited_and_given_its_time():
    """For longer than the agent itself takes a silence for none, and than a run takes to be ended and kept."""
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
    """A key that it does not know would be passed over, and protect nothing."""
    placed = tmp_path / UNIT.name
    placed.write_text(UNIT.read_text().replace("/usr/local/bin/chainbench-agent", "/bin/true"))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", placed], capture_output=True, text=True, check=False
    )

    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


def test_every_setting_is_in_the_environment_file_with_its_default():
    """As comments: what is not set there keeps its default."""
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


def test_what_the_unit_sets_exists():
    """And is what the environment file says; that file would win."""
    variables = re.findall(rf"^Environment={ENV_PREFIX}(\w+)=(.*)", UNIT.read_text(), re.MULTILINE)

    assert {name.lower(): value.replace("%C", "/var/cache") for name, value in variables} == OF_THE_UNIT


def test_the_page_hands_the_tokens_over_as_the_unit_says():
    """The lines are those that the unit has as a comment, and Prometheus' file is the one that its job names."""
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


def test_install_and_uninstall(stage, tmp_path):
    """The unit and the command name the prefix, nothing names the stage; what is uninstalled leaves its settings."""
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
    installed, ours = ({path.relative_to(top) for path in top.rglob("*.[ch]")} for top in (probes, REPO / "probes"))
    assert installed == ours

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
