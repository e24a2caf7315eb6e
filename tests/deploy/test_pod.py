"""The container of the page and the pod of the DaemonSet, checked without a cluster."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml
from daemon import LONG_S

from chainbench_agent.commands.main import main
from chainbench_agent.server.gunicorn_server import KILL_AFTER_S
from chainbench_agent.settings import Settings
from chainbench_agent.settings.environment_variables import ENV_PREFIX

REPO = Path(__file__).parents[2]
MANIFEST = (REPO / "deploy/kubernetes/chainbench-agent.yaml").read_text()
HEALTHY = REPO / "scripts/healthy.py"
UNITS = {"Mi": 1 << 20, "Gi": 1 << 30, "M": 1 << 20, "G": 1 << 30}
"""The units of Kubernetes and of systemd."""


@pytest.fixture
def objects():
    return {found["kind"]: found for found in yaml.safe_load_all(MANIFEST)}


@pytest.fixture
def pod(objects):
    return objects["DaemonSet"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    (container,) = pod["containers"]
    return container


@pytest.fixture
def mounts(pod, container):
    """Where it is mounted → the volume."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}


def image():
    """Instruction → arguments, of the image's last stage."""
    text = re.sub(r"\\\n\s*", " ", (REPO / "Dockerfile").read_text())
    return dict(re.findall(r"^([A-Z]+) (.*)$", text.rpartition("\nFROM ")[2], re.MULTILINE))


def variables():
    """The environment variables that the image sets."""
    return dict(pair.split("=") for pair in image()["ENV"].split())


def size(text):
    """In bytes."""
    number, unit = re.fullmatch(r"(\d+)([A-Z]i?)", text).groups()
    return int(number) * UNITS[unit]


@pytest.fixture
def settings(container, mounts, tmp_path):
    """The pod's, with its secret in a directory of this test: each token has the name of its key in it."""
    (place,) = (path for path, volume in mounts.items() if volume.get("secret"))
    for key in re.findall(r"--from-literal=([\w-]+)=", MANIFEST):
        file = tmp_path / key
        file.write_text(f"{key}-0123456789abcdef")
        file.chmod(0o400)
    values = {entry["name"]: entry.get("value", "node-1") for entry in container["env"]}
    return {
        name.removeprefix(ENV_PREFIX).lower(): value.replace(f"{place}/", f"{tmp_path}/")
        for name, value in values.items()
    }


def test_the_pod_requires_tokens(daemon, settings, objects):
    """An agent with its settings starts; the token of the ServiceMonitor can only read."""
    agent = daemon(**settings)
    (endpoint,) = objects["ServiceMonitor"]["spec"]["endpoints"]

    def answer(method, path, key):
        bearer = {"Authorization": f"Bearer {key}-0123456789abcdef"}
        return requests.request(method, agent.url + path, headers=bearer, timeout=LONG_S)

    scrapes = endpoint["authorization"]["credentials"]["key"]
    assert "chainbench_agent_info" in answer("GET", endpoint["path"], scrapes).text
    assert answer("POST", "/stop", scrapes).status_code == 403
    assert answer("POST", "/stop", "token").status_code == 409  # let in: no run is active
    assert answer("GET", "/status", "no").status_code == 401
    assert agent.get("/status").status_code == 401


def test_the_probes_of_the_pod_are_the_images_health_check(daemon, settings, container):
    """They run here with the pod's settings; test_image.py runs them in the image."""
    agent = daemon(**settings)
    environment = os.environ | {f"{ENV_PREFIX}{name.upper()}": value for name, value in settings.items()}
    environment[f"{ENV_PREFIX}PORT"] = str(agent.address[1])
    check = json.loads(image()["HEALTHCHECK"].partition("CMD ")[2])

    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"] == check
    assert f"scripts/{HEALTHY.name} {check[-1]}\n" in (REPO / "Dockerfile").read_text()
    subprocess.run([sys.executable, *check[1:-1], HEALTHY], env=environment, check=True)


def test_the_pod_listens_for_its_probes_and_measures_or_fails(objects, container):
    """A pod must not answer with mock data."""
    port = int(variables()["CHAINBENCH_PORT"])
    command, *options = container["args"]

    assert port == Settings.model_fields["port"].default
    assert [one["containerPort"] for one in container["ports"]] == [port]
    assert [one["port"] for one in objects["Service"]["spec"]["ports"]] == [port]
    assert main.commands[command].make_context(command, options).params["backend"] == "ebpf"


def test_the_pod_sees_the_host_with_the_least_privileges(pod, container):
    """Targets are processes of other pods; the agent writes only to its own directories."""
    security = container["securityContext"]

    assert pod["hostPID"] is True
    assert pod["automountServiceAccountToken"] is False
    assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
    assert "privileged" not in security
    assert not pod.keys() & {"hostNetwork", "hostIPC"}


def test_the_pod_has_directories_to_write_and_runs_outlive_it(mounts):
    cache, state = (variables()[f"{ENV_PREFIX}{name}"] for name in ("HEADER_CACHE", "STATE_DIR"))

    assert "hostPath" in mounts[state]
    assert "emptyDir" in mounts[cache]
    assert mounts["/tmp"]["emptyDir"]["medium"] == "Memory"
    assert mounts["/sys/fs/cgroup"]["hostPath"]["path"] == "/sys/fs/cgroup"


def test_the_pod_has_the_limits_of_the_service_and_time_to_end_a_run(pod, container):
    unit = (REPO / "systemd/chainbench-agent.service").read_text()
    (limit,) = re.findall(r"^MemoryMax=(\w+)$", unit, re.MULTILINE)

    assert size(container["resources"]["limits"]["memory"]) == size(limit)
    assert pod["terminationGracePeriodSeconds"] > KILL_AFTER_S


def test_every_way_to_scrape_gives_the_job_that_the_alerts_ask_for(objects):
    prometheus = REPO / "deploy/prometheus"
    asked = set(re.findall(r'job="([^"]*)"', (prometheus / "alert_rules.yml").read_text()))
    (scrape,) = yaml.safe_load((prometheus / "prometheus.yml").read_text())["scrape_configs"]
    (endpoint,) = objects["ServiceMonitor"]["spec"]["endpoints"]
    (relabeled,) = (rule["replacement"] for rule in endpoint["relabelings"] if rule["targetLabel"] == "job")

    assert {scrape["job_name"], relabeled} == asked


def test_the_page_starts_the_container_with_what_it_needs_to_measure():
    """The capabilities are left to test_image.py; buildah has no networks, processes and volumes of its own."""
    lines = re.findall(r"docker run ((?:.*\\\n)*.*)", (REPO / "docs/operations.md").read_text())
    (line,) = (re.sub(r"\\\n\s*", "", line) for line in lines if "--cap-add" in line)
    volumes = dict(reversed(volume.split(":")[:2]) for volume in re.findall(r"-v (\S+)", line))

    assert re.findall(r"--(network|pid|cgroupns|user|cap-drop) (\w+)", line) == [
        ("network", "host"),
        ("pid", "host"),
        ("cgroupns", "host"),
        ("user", "0"),
        ("cap-drop", "ALL"),
    ]
    assert "--privileged" not in line
    assert set(volumes) == {
        "/sys/fs/cgroup",
        variables()[f"{ENV_PREFIX}HEADER_CACHE"],
        variables()[f"{ENV_PREFIX}STATE_DIR"],
    }


def test_the_image_does_not_contain_what_builds_it():
    """Its last stage begins with the same base as the building one, and takes only the agent from that."""
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", (REPO / "Dockerfile").read_text(), re.MULTILINE)
    names = [name for _, name in stages]

    assert names == ["runtime", "build", ""]
    assert [base for base, _ in stages[1:]] == ["runtime", "runtime"]
    assert re.search(r"^ARG BASE=\S+debian:\w+-slim$", (REPO / "Dockerfile").read_text(), re.MULTILINE)
