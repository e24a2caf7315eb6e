"""Who the agent is, as the kernel numbers it: what it does itself is no part of what it measures."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from chainbench_agent.bpf import libbpf
from chainbench_agent.loading.loader import MapFd
from chainbench_agent.loading.syscall_names import syscalls

_IDENTITY = struct.Struct("=IIQ")  # struct cb_identity of probes/identify.h


def identity_of(program: int, maps: Mapping[str, MapFd]) -> tuple[tuple[int, int], bool]:
    """Our own process, and its parent if that is gunicorn's master; whether it was seen in the call that it made.

    `program` is run once, here, and given back, also when that raises OSError.
    """
    try:
        libbpf.run_program(program)
    finally:
        os.close(program)
    tgid, parent, syscall = _IDENTITY.unpack(libbpf.lookup(maps["cb_identity"].fd, 0, _IDENTITY.size))
    master = Path("/proc/self/cmdline").read_bytes() == Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    return (tgid, parent if master else tgid), syscalls(os.uname().machine).get(syscall) == "bpf"
