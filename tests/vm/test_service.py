"""The installed service in a guest: systemd starts, scrapes, reloads, crashes and stops it."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from debian_kernel import SERIES, Unavailable, obtain
from ended import ended
from guest import COMMAND_SECONDS, REPO, boot, tail
from junit import verdicts

KERNEL = "6.1"
"""The Debian release whose systemd this is."""
STAGE = Path("/srv/stage")
NEEDS = {
    "systemctl": "systemd",
    "bpftool": "bpftool",
    "prometheus": "prometheus",
    "make": "make",
    "curl": "curl",
    "openssl": "openssl",
    "sysctl": "procps",
}


def in_guest(name: str, results: Path) -> int:
    """The driver's exit status.  `make install` stages here: in the guest it would take minutes, and a network."""
    if lacking := [package for tool, package in NEEDS.items() if not shutil.which(tool)]:
        raise Unavailable(f"The guest lacks what is missing here: `apt-get install {' '.join(lacking)}`, as root.")
    driver = [sys.executable, str(Path(__file__).with_name("running_service.py"))]
    script = Path(__file__).with_name("systemd.sh")
    with tempfile.TemporaryDirectory() as stage:
        environment = os.environ | {"DESTDIR": stage, "PREFIX": "/usr/local", "SYSCONFDIR": "/etc"}
        subprocess.run(["make", "-C", REPO, "install"], check=True, env=environment, capture_output=True)
        command = ["bash", str(script), str(STAGE), *driver]
        return boot(obtain(name), results, command, more={STAGE: Path(stage)})


@pytest.mark.service
@pytest.mark.timeout((len(SERIES) + 1) * COMMAND_SECONDS)
@pytest.mark.parametrize("name", [KERNEL])
def test_the_installed_service_keeps_its_promises(guest):
    """All tests of running_service.py and following_the_page.py pass, on a real systemd."""
    results, status = ended(*guest)
    told = "\n".join(path.read_text() for path in [results / "output"] if path.exists()) + tail(results / "console.log")
    assert (results / "junit.xml").exists(), f"pytest ended with status {status}. {told}"
    wrong = {name: text for name, text in verdicts((results / "junit.xml").read_text()).items() if text}
    assert not wrong, told
    assert status == 0, told
