"""The service as it is installed: started, reloaded, crashed and stopped by systemd, in a guest."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from debian_kernel import Unavailable, obtain
from guest import REPO, GuestDied, boot, tail
from junit import verdicts

KERNEL = "6.1"
"""Of the Debian release whose systemd this is."""
STAGE = Path("/srv/stage")
NEEDS = ("systemctl", "journalctl", "bpftool")
MODULES = "exec,offcpu"
"""Enough to see each capability at work, and compiled in a third of the time."""
WATCHDOG_S = 60
"""Nobody wants to wait for three minutes."""


@pytest.fixture
def stage(tmp_path):
    """A directory with what `make install` installs."""
    environment = os.environ | {"DESTDIR": str(tmp_path), "PREFIX": "/usr/local", "SYSCONFDIR": "/etc"}
    subprocess.run([REPO / "scripts/install", "install"], check=True, env=environment, capture_output=True)
    unit = tmp_path / "usr/local/lib/systemd/system/chainbench-agent.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=3min", f"WatchdogSec={WATCHDOG_S}"))
    settings = tmp_path / "etc/chainbench-agent.env"
    settings.write_text(f"{settings.read_text()}\nCHAINBENCH_PROBES={MODULES}\n")
    return tmp_path


@pytest.mark.service
@pytest.mark.timeout(3600)
def test_the_service_does_what_it_should(stage, tmp_path_factory):
    """Each promise of running_service.py, on a real systemd."""
    if lacking := [tool for tool in NEEDS if not shutil.which(tool)]:
        pytest.skip(f"{', '.join(lacking)} not found: apt-get install systemd bpftool")
    results = tmp_path_factory.mktemp("service-")
    driver = [sys.executable, str(Path(__file__).with_name("running_service.py"))]
    script = Path(__file__).with_name("systemd.sh")
    try:
        status = boot(obtain(KERNEL), results, ["bash", str(script), str(STAGE), *driver], more={STAGE: stage})
    except Unavailable as reason:
        pytest.skip(str(reason))
    except GuestDied as reason:
        pytest.fail(str(reason), pytrace=False)

    told = "\n".join(path.read_text() for path in [results / "output"] if path.exists()) + tail(results / "console.log")
    assert (results / "junit.xml").exists(), f"pytest ended with status {status}. {told}"
    wrong = {name: text for name, text in verdicts((results / "junit.xml").read_text()).items() if text}
    assert not wrong, told
    assert status == 0, told
