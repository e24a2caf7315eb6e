"""The Dockerfile, built and run without a Docker daemon: by buildah, on a base that mmdebstrap makes."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from chainbench_agent.client import Agent, UnreachableError
from chainbench_agent.commands.own_agent import free_port

REPO = Path(__file__).parents[2]
NEEDS = ("buildah", "mmdebstrap")
BASE, IMAGE = "localhost/debian-base", "localhost/chainbench-agent"
CAPABILITIES = {"SYSLOG": 34, "PERFMON": 38, "BPF": 39}
BUILDAHS_OWN = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
"""The capabilities that buildah gives to root by default; it does not know ALL."""
LABELS = dict.fromkeys(("scenario", "impl", "variant", "commit", "dataset"), "x")
LONG_S = 300

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]


def parsed(dockerfile):
    """Instruction → arguments, the last one of each."""
    text = re.sub(r"\\\n\s*", " ", (REPO / dockerfile).read_text())
    return dict(re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE))


class Buildah:
    """With storage of its own, and with mounts that only it sees: what it leaves behind cannot reach this machine's."""

    def __init__(self, directory):
        storage = ["--root", directory / "root", "--runroot", directory / "run", "--storage-driver", "vfs"]
        self.command = ["unshare", "--mount", "--propagation", "private", "buildah", *map(str, storage)]

    def __call__(self, *arguments):
        done = subprocess.run([*self.command, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"buildah {arguments}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()


def pip_configuration(directory):
    """Where this machine's pip finds packages, as volumes: indexes that are directories come along, and the file."""
    listed = subprocess.run(
        ["/usr/bin/python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))
    places = {Path(path) for value in found.values() for path in re.findall(r"(?:file://)?(/[^\s']+)", value)}
    places = {path.parent if path.name == "simple" else path for path in places}  # with the files that an index lists
    if "cert" in found:
        shutil.copy(found["cert"], directory / "certificates.pem")
        found["cert"] = "/etc/pip-certificates.pem"
    config = directory / "pip.conf"
    config.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in found.items()))
    volumes = {config: "/etc/pip.conf", directory / "certificates.pem": "/etc/pip-certificates.pem"}
    volumes |= {path: path for path in places if path.exists() and not path.is_relative_to("/etc/ssl")}
    return [f"--volume={here}:{there}:ro" for here, there in volumes.items() if here.exists()]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """With the image built."""
    if lacking := [tool for tool in NEEDS if not shutil.which(tool)]:
        pytest.skip(f"apt-get install {' '.join(lacking)}")
    if os.geteuid():
        pytest.skip("to make a base image, root is needed")
    directory = tmp_path_factory.mktemp("buildah")
    base = directory / "base.tar"
    suite = re.search(r"debian:(\w+)-slim", (REPO / "Dockerfile").read_text())[1]
    private = ["unshare", "--mount", "--propagation", "private"]
    subprocess.run([*private, "mmdebstrap", "--quiet", "--variant=minbase", suite, base], check=True)
    buildah = Buildah(directory)
    container = buildah("from", "scratch")
    buildah("add", container, base, "/")
    buildah("commit", "--rm", container, BASE)
    volumes = pip_configuration(directory)
    buildah(
        "build", "--isolation=chroot", "--format=docker", f"--build-arg=BASE={BASE}", *volumes, "--tag", IMAGE, REPO
    )
    yield buildah
    buildah("rm", "--all")
    shutil.rmtree(directory, ignore_errors=True)  # gigabytes


class Container:
    """The image's own command, with the network and the processes of this machine, at a free port."""

    def __init__(self, buildah, log, *options, security=()):
        port = free_port()
        self.client = Agent(f"http://127.0.0.1:{port}", timeout=LONG_S)
        container = buildah("from", *security, IMAGE)
        image = parsed("Dockerfile")
        self.command = [*json.loads(image["ENTRYPOINT"]), *json.loads(image["CMD"])]
        self.port = f"CHAINBENCH_PORT={port}"
        run = [*buildah.command, "run", "--isolation=chroot", f"--env={self.port}", *options, container, "--"]
        self.health = [*run, *json.loads(image["HEALTHCHECK"].partition("CMD ")[2])]
        with log.open("w") as output:
            self.process = subprocess.Popen([*run, *self.command], stdout=output, stderr=output, start_new_session=True)
        deadline = time.monotonic() + LONG_S
        while not self.answers():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)

    def answers(self):
        try:
            return self.client.status()
        except UnreachableError:
            return None

    def evidence(self):
        """The evidence of a run with this process as target, which starts 53 programs."""
        with self.client.collect(LABELS, pid=os.getpid()) as run:
            for _ in range(53):
                subprocess.run(["/bin/true"], check=True)
        assert "not_kept" not in run.evidence
        return run.evidence

    def healthy(self):
        return subprocess.run(self.health, capture_output=True, check=False, timeout=LONG_S).returncode == 0

    def end(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(LONG_S)


@pytest.fixture
def start(buildah, tmp_path):
    containers = []

    def started(*options, **others):
        containers.append(Container(buildah, tmp_path / "log", *options, **others))
        return containers[-1]

    yield started
    for container in containers:
        container.end()


def test_as_it_is_it_makes_numbers_up_without_being_root(start):
    """And says so; the health check passes while it serves, and fails when it does not."""
    container = start()

    evidence = container.evidence()

    assert (evidence["source"], evidence["available"]) == ("mock", False)
    worker = container.client.status()["agent"]["pid"]
    assert "Uid:\t65532\t" in Path(f"/proc/{worker}/status").read_text()
    assert container.healthy()
    container.end()
    assert not container.healthy()


def test_with_three_capabilities_it_measures(start):
    """With the capabilities of the documented command line, and no others of root."""
    page = (REPO / "docs/operations.md").read_text()
    lines = re.findall(r"docker run ((?:.*\\\n)*.*)", page)
    (line,) = (line for line in lines if "--cap-add" in line)
    added = re.findall(r"--cap-add (\w+)", line)
    dropped = [f"--cap-drop=CAP_{name}" for name in BUILDAHS_OWN]
    security = [f"--security-opt={option}" for option in re.findall(r"--security-opt (\S+)", line)]
    container = start("--user=0", *dropped, *(f"--cap-add=CAP_{name}" for name in added), security=security)
    worker = container.client.status()["agent"]["pid"]
    held = re.search(r"CapEff:\s+(\w+)", Path(f"/proc/{worker}/status").read_text())[1]

    evidence = container.evidence()

    assert "--cap-drop ALL" in line
    assert int(held, 16) == sum(1 << CAPABILITIES[name] for name in added)

    assert evidence["source"] == "ebpf", evidence["reason"]
    assert evidence["exec"]["exec_count"] == 53
