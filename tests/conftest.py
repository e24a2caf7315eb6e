"""A test that lacks what it needs is skipped, with the remedy; in CI, which installs it all, that is a failure."""

import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the tests here import the files next to them

from packages import remedy, require

REQUIRED = os.environ.get("CHAINBENCH_REQUIRE_BPF") == "1"
REPO = Path(__file__).parents[1]
BTF = Path("/sys/kernel/btf/vmlinux")
TRACEFS = Path("/sys/kernel/tracing/events")
CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39


def prefer_a_disk() -> None:
    """Debian 13 keeps /tmp in memory, where nothing can be read directly, or from a disk into the page cache."""
    in_memory = re.search(r"^\S+ /tmp tmpfs ", Path("/proc/self/mounts").read_text(), re.MULTILINE)
    if in_memory and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = tempfile.tempdir = "/var/tmp"


prefer_a_disk()


def capabilities() -> set[int]:
    mask = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1]
    return {bit for bit in range(64) if int(mask, 16) >> bit & 1}


@functools.cache
def why_not_bpf() -> str | None:
    if not (CAP_SYS_ADMIN in capabilities() or {CAP_BPF, CAP_PERFMON} <= capabilities()):
        return "This user may not load eBPF programs: run `make test` as root."
    if not BTF.exists():
        return f"{BTF} is missing: boot a kernel built with CONFIG_DEBUG_INFO_BTF=y."
    try_bcc = [sys.executable, "-c", "from bcc import BPF"]  # in a child: it brings LLVM along
    bcc = subprocess.run(try_bcc, capture_output=True, text=True, check=False)
    if bcc.returncode:
        error = bcc.stderr.strip().rpartition("\n")[2]
        return f"BCC cannot be imported ({error}): as root, `apt-get install python3-bpfcc`."
    return None


def why_not_mount() -> str | None:
    if CAP_SYS_ADMIN not in capabilities():
        return "This user may not mount file systems: run `make test` as root."
    return remedy("mount")


def readable_by_others() -> bool:
    """Whether a test that starts the agent as another user can do so."""
    return all(directory.stat().st_mode & 0o005 == 0o005 for directory in (REPO, *REPO.parents))


@pytest.fixture(autouse=True, scope="session")
def no_state_outside(tmp_path_factory):
    """No agent of a test keeps its runs where this machine's own agent does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHAINBENCH_STORE", "none")
        patch.setenv("CHAINBENCH_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_runtest_setup(item):
    if item.get_closest_marker("bpf") and (reason := why_not_bpf()):
        pytest.skip(reason)
    needed = [program for marker in item.iter_markers("needs") for program in marker.args]
    if reason := remedy(*needed):
        pytest.skip(reason)
    if item.get_closest_marker("mount") and (reason := why_not_mount()):
        pytest.skip(reason)
    if item.get_closest_marker("tracefs") and not TRACEFS.is_dir():
        pytest.skip("There is no tracefs: as root, `mount -t tracefs tracefs /sys/kernel/tracing`.")
    if item.get_closest_marker("other_user") and not readable_by_others():
        pytest.skip(f"Other users may not read {REPO}: clone the repository to a directory that they may, as /srv.")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: nothing makes a skip of it again
def pytest_runtest_makereport():
    """Fail a test that was skipped, however that came; an expected failure did run."""
    report = yield
    if REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"Skipped, though CHAINBENCH_REQUIRE_BPF=1: {report.longrepr[2]}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report():
    """Fail a file that skips itself as a whole: nobody knows which tests it hides."""
    report = yield
    if REQUIRED and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"Skipped as a whole, though CHAINBENCH_REQUIRE_BPF=1: {report.longrepr[2]}"
    return report


@pytest.fixture
def daemon(tmp_path):
    """`daemon(opening, **settings)` starts one (tests/daemon.py)."""
    from daemon import Daemon

    daemons = []

    def start(opening="return FakeCollector()", **options):
        daemons.append(Daemon(tmp_path, opening, **options))
        return daemons[-1]

    yield start
    for one in daemons:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


@pytest.fixture(scope="session")
def strict():
    """`strict(schema)`: the same JSON Schema, with no key allowed that it does not name."""

    def closed(schema):
        if isinstance(schema, list):
            return [closed(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        more = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
        return more | {key: closed(one) for key, one in schema.items()}

    return closed


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for localhost and 127.0.0.1, signed by itself, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    kind = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    new = [require("openssl"), "req", *kind]
    subprocess.run([*new, "-subj", "/CN=a", "-addext", names, "-keyout", key, "-out", cert], check=True, stderr=-3)
    return cert, key


@pytest.fixture
def agent(daemon, tmp_path):
    """A daemon with a store, as an agent has one."""
    agent = daemon(store="sqlite", state_dir=tmp_path / "state")
    agent.until(lambda: agent.url)
    return agent
