"""The manifests in deploy/kubernetes, checked with the schemas of Kubernetes and of the Prometheus operator."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from cloudcoil.models.kubernetes.apps.v1 import DaemonSet
from cloudcoil.models.kubernetes.core.v1 import Service
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor

from chainbench_agent.settings import Settings
from chainbench_agent.settings.environment_variables import ENV_PREFIX

REPO = Path(__file__).parents[2]
MANIFEST = REPO / "deploy/kubernetes/chainbench-agent.yaml"
SCHEMAS = {"DaemonSet": DaemonSet, "Service": Service, "ServiceMonitor": ServiceMonitor}


@pytest.fixture
def objects():
    return {found["kind"]: found for found in yaml.safe_load_all(MANIFEST.read_text())}


def understood(found):
    """An object as the schema understands it, without keys that it does not know."""
    return SCHEMAS[found["kind"]].model_validate(found).model_dump(mode="json", by_alias=True, exclude_unset=True)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_schemas_know_every_key(objects, kind):
    """Types and required keys, and no key that would be ignored."""
    assert understood(objects[kind]) == objects[kind]


def test_a_misspelt_key_is_found(objects):
    container = objects["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]
    container["imagePullPolcy"] = "Always"

    assert understood(objects["DaemonSet"]) != objects["DaemonSet"]


def test_daemonset_service_and_monitor_select_each_other(objects):
    pods = objects["DaemonSet"]["spec"]["template"]
    labels = pods["metadata"]["labels"].items()
    (container,) = pods["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}

    assert objects["DaemonSet"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert objects["Service"]["spec"]["selector"].items() <= labels
    assert {port["targetPort"] for port in objects["Service"]["spec"]["ports"]} <= ports
    monitor = objects["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= objects["Service"]["metadata"]["labels"].items()
    assert {end["port"] for end in monitor["endpoints"]} <= {
        port["name"] for port in objects["Service"]["spec"]["ports"]
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pods["spec"]["volumes"]}


def test_image_and_page_have_the_version_of_the_package():
    """The page builds the image that the nodes run."""
    version = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    for text in (MANIFEST.read_text(), (REPO / "docs/operations.md").read_text()):
        assert set(re.findall(r"chainbench-agent:(\d[\w.]*)", text)) == {version}


def test_it_has_the_capabilities_of_the_systemd_unit_and_settings_that_exist(objects):
    (container,) = objects["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    unit = (REPO / "systemd/chainbench-agent.service").read_text()
    given = re.search(r"^AmbientCapabilities=(.*)", unit, re.MULTILINE)[1].split()

    added = container["securityContext"]["capabilities"]
    assert added["drop"] == ["ALL"]
    assert [f"CAP_{name}" for name in added["add"]] == given
    assert {e["name"].removeprefix(ENV_PREFIX).lower() for e in container["env"]} <= set(Settings.model_fields)


def test_service_links_are_disabled(objects):
    """Kubernetes would set CHAINBENCH_PORT for a service called chainbench, and unknown settings for others."""
    assert objects["DaemonSet"]["spec"]["template"]["spec"]["enableServiceLinks"] is False
