"""The commands of docs/operations.md that can be run without changing /etc."""

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from operations_page import block

REPO = Path(__file__).parents[2]


@pytest.mark.needs("promtool")
def test_the_page_configures_debians_prometheus(tmp_path):
    """All its files are installed and readable by its user, and the port is set."""
    etc = tmp_path / "etc"
    shutil.copytree("/etc/prometheus", etc / "prometheus")
    (etc / "default").mkdir()
    shutil.copy("/etc/default/prometheus", etc / "default")
    page = block("apt-get install prometheus")
    typed = re.findall(r"^sudo ((?:install|sed) .* )(/etc/(?:default/)?prometheus/?)$", page, re.MULTILINE)
    assert len(typed) == 2

    for command, place in typed:
        subprocess.run(["bash", "-c", f"{command} {tmp_path}{place}"], check=True, cwd=REPO)

    arguments = re.findall(r"^ARGS=(.*)$", (etc / "default/prometheus").read_text(), re.MULTILINE)
    assert arguments == ['"--web.listen-address=127.0.0.1:9091"']
    subprocess.run(["promtool", "check", "config", etc / "prometheus/prometheus.yml"], check=True)
    assert stat.S_IMODE((etc / "prometheus/prometheus.yml").stat().st_mode) & stat.S_IROTH


def test_the_page_makes_prometheus_send_the_token(tmp_path):
    """The command removes the comment sign only from that job's own line."""
    page = block("systemctl reload prometheus")
    config = Path(shutil.copy(REPO / "deploy/prometheus/prometheus.yml", tmp_path))
    before = yaml.safe_load(config.read_text())
    (command,) = re.findall(r"^sudo (sed .*) /etc/prometheus/prometheus\.yml$", page, re.MULTILINE)

    subprocess.run(["bash", "-c", f"{command} {config}"], check=True)

    after = yaml.safe_load(config.read_text())
    file = after["scrape_configs"][0].pop("authorization")["credentials_file"]
    assert f" {file}\n" in page
    assert after == before
