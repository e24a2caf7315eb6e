"""Checks what this machine offers for eBPF collection, each by a try, with a remedy for each check that fails."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from chainbench_agent.bpf import libbpf, perf_events
from chainbench_agent.errors import SetupError
from chainbench_agent.headers.btf import DEFAULT_PATH, Btf
from chainbench_agent.headers.btf_types import Kind as BtfKind
from chainbench_agent.host import procfs
from chainbench_agent.loading.loader import Wanted, load
from chainbench_agent.loading.objects import Object
from chainbench_agent.symbols.kernel_symbols import KernelSymbols

CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_SYSLOG": 34, "CAP_PERFMON": 38, "CAP_BPF": 39}
_CPU_CYCLES = 0  # PERF_COUNT_HW_CPU_CYCLES

REMEDIES = {
    "capabilities": "run as root, or with CAP_BPF and CAP_PERFMON (systemd: AmbientCapabilities=)",
    "btf": "boot a kernel built with CONFIG_DEBUG_INFO_BTF (Debian's are, since 5.10)",
    "bcc": "apt install python3-bpfcc, and create the virtual environment with --system-site-packages",
    "libbpf": "apt install libbpf1",
    "kprobes": "boot a kernel with CONFIG_KPROBE_EVENTS; docs/support.md lists the metrics that need it",
    "fentry": "boot a kernel that allows BPF trampolines; docs/support.md lists the metrics that need it",
    "perf events": (
        "run with CAP_PERFMON, and give a virtual machine a virtual PMU; "
        "without PMU counters, memory has no cache and TLB misses"
    ),
    "kernel symbols": (
        "run with CAP_SYSLOG and kernel.kptr_restrict below 2; until then waits have no kernel functions as reasons"
    ),
}
"""Name of each check that can fail → what to do then."""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check.  `needed`: the agent measures nothing without it."""

    name: str
    ok: bool
    found: str
    remedy: str = field(init=False)
    """From REMEDIES if the check failed, otherwise empty."""
    needed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "remedy", "" if self.ok else REMEDIES[self.name])


def needed_checks() -> list[Check]:
    """The checks that every start makes: only needed ones, and cheap.  The likeliest to fail come first."""
    return [_privileges(), _btf(), _bcc_found(), _libbpf()]


def all_checks() -> list[Check]:
    """The checks that `chainbench-agent doctor` makes."""
    optional: list[Callable[[], Check]] = [_headers, _kprobes, _fentry, _tracefs, _pmu, _symbols]
    needed = [_privileges(), _btf(), _bcc(), _libbpf()]
    return [_kernel(), *needed, *(check() for check in optional)]


def _kernel() -> Check:
    uname = os.uname()
    return Check("kernel", ok=True, found=f"{uname.sysname} {uname.release} {uname.machine}")


def capabilities() -> frozenset[str]:
    """The capabilities of CAPABILITIES that this process has."""
    effective = int(procfs.status("/proc/self")["CapEff"], 16)
    return frozenset(name for name, bit in CAPABILITIES.items() if effective >> bit & 1)


def _privileges() -> Check:
    held = capabilities()
    enough = "CAP_SYS_ADMIN" in held or {"CAP_BPF", "CAP_PERFMON"} <= held
    return Check(
        "capabilities",
        ok=enough,
        found=", ".join(sorted(held)) or "none of " + ", ".join(CAPABILITIES),
        needed=True,
    )


def _btf() -> Check:
    try:
        digest = Btf.load().digest
    except (SetupError, OSError) as error:
        return Check("btf", ok=False, found=str(error), needed=True)
    return Check("btf", ok=True, found=f"{DEFAULT_PATH}, {digest[:16]}", needed=True)


def _bcc_found() -> Check:
    """Whether bcc is installed.  The compiler imports it later, and reports if it does not work."""
    if spec := find_spec("bcc"):
        return Check("bcc", ok=True, found=spec.origin or "bcc", needed=True)
    return Check("bcc", ok=False, found="Python has no module bcc", needed=True)


def _bcc() -> Check:
    """Whether bcc can be imported, tried in another process because of its LLVM."""
    code = "import bcc; bcc.BPF; print(bcc.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Check("bcc", ok=True, found=f"Debian's bcc {done.stdout.strip()}", needed=True)
    found = done.stderr.strip().splitlines()[-1]
    return Check("bcc", ok=False, found=found, needed=True)


def _libbpf() -> Check:
    try:
        found = libbpf.library_name()
    except OSError as error:
        return Check("libbpf", ok=False, found=str(error), needed=True)
    return Check("libbpf", ok=True, found=found, needed=True)


def _headers() -> Check:
    build = Path("/lib/modules") / os.uname().release / "build"
    found = f"{build}" if build.exists() else "none installed"
    return Check("kernel headers", ok=True, found=f"{found} (not needed: declarations come from BTF)")


def _kprobes() -> Check:
    if Path("/sys/bus/event_source/devices/kprobe/type").exists():
        return Check("kprobes", ok=True, found="perf event source kprobe")
    return Check("kprobes", ok=False, found="this kernel has no kprobes")


def _fentry() -> Check:
    """Whether an fentry program loads: BTF without support for trampolines is possible."""
    try:
        function = Btf.load().find("vfs_read", BtfKind.FUNC)
        wanted = Wanted("cb_try_fentry", "fentry", function.id if function else 0)
        loaded = load(Object({wanted.name: libbpf.RETURN_0}, (), ""), [wanted])
    except (SetupError, OSError) as error:
        return Check("fentry", ok=False, found=str(error).splitlines()[0])
    for fd in loaded.programs.values():
        os.close(fd)
    why = "".join(loaded.failed.values())
    return Check("fentry", ok=not why, found=why or "a program on vfs_read loads")


def _tracefs() -> Check:
    mounted = os.path.ismount("/sys/kernel/tracing")
    found = "/sys/kernel/tracing" if mounted else "not mounted (not needed: raw tracepoints go without)"
    return Check("tracefs", ok=True, found=found)


def _pmu() -> Check:
    """Whether a counter of the CPU cycles of this process can be opened."""
    try:
        os.close(perf_events.open_event(perf_events.HARDWARE, _CPU_CYCLES, cpu=-1, pid=0))
    except OSError as error:
        if not error.errno:
            return Check("perf events", ok=True, found=f"not tried on {os.uname().machine}")
        missing = error.errno == errno.ENOENT
        found = "this CPU offers no PMU counters" if missing else os.strerror(error.errno)
        return Check("perf events", ok=False, found=found)
    return Check("perf events", ok=True, found="PMU counters work")


def _symbols() -> Check:
    if not KernelSymbols.load().hidden:
        return Check("kernel symbols", ok=True, found="/proc/kallsyms shows addresses")
    return Check("kernel symbols", ok=False, found="/proc/kallsyms hides addresses")
