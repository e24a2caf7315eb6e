"""Finds the agent's own pids as the kernel numbers them, so that its own work is not measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.bpf import libbpf
from chainbench_agent.errors import InputError
from chainbench_agent.evidence.model import Target
from chainbench_agent.host.syscall_names import syscalls
from chainbench_agent.kernel.targets.cgroups import own_level
from chainbench_agent.loading.loader import MapFd

_IDENTITY = CStruct(tgid="I", parent_tgid="I", syscall="Q", cgroup_level="I", pad="4x")  # of probes/identify.h


class Identity(NamedTuple):
    processes: tuple[int, int]
    """Our own process, and its parent if that is gunicorn's master; else ours again."""
    cgroup_level: int
    """How far below the hierarchy's root our cgroup namespace begins."""
    called_bpf: bool
    """Whether the kernel side saw us in the call that we made: it knows where registers are saved."""

    def must_see(self, target: Target) -> None:
        """Raises InputError where /proc has other numbers than BPF programs see, so that no target could be found."""
        if target.kind != "machine" and self.processes[0] != os.getpid():
            raise InputError(
                target.kind,
                "the agent runs in a PID namespace in which processes have other numbers than for BPF programs",
                "start the agent in the host's PID namespace (docker run --pid host), or measure the machine",
            )


def identity_of(program: int, maps: Mapping[str, MapFd]) -> Identity:
    """`program` is run once, here, and given back, also when that raises OSError."""
    try:
        libbpf.run_program(program)
    finally:
        os.close(program)
    tgid, parent, syscall, level = _IDENTITY.unpack(libbpf.lookup(maps["cb_identity"].fd, 0, _IDENTITY.size))
    master = Path("/proc/self/cmdline").read_bytes() == Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    return Identity(
        (tgid, parent if master else tgid),
        level - own_level(),
        syscalls(os.uname().machine).get(syscall) == "bpf",
    )
