"""Translation of a pid from a runner's PID namespace into ours, where the same number may be another process.

A runner in a container sends its pid as it knows it.  The process at the other end of the connection shows which
namespace that is; if it is not known, a number that could mean two processes is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from struct import unpack

from chainbench_agent.errors import InputError
from chainbench_agent.host import procfs

PROC = Path("/proc")
Peer = tuple[str, int] | int
"""Address and port of a client; for a unix socket the client's pid, from the kernel (SO_PEERCRED)."""

NO_PROCESS_REMEDY = "send the pid of a running process, as the runner sees it"
NOT_IN_NAMESPACE_REMEDY = "send the pid that the runner sees, or a cgroup"
AMBIGUOUS_PID_REMEDY = "send the host's pid, or a cgroup"

RELAYS = frozenset({"docker-proxy", "rootlessport", "slirp4netns", "pasta", "pasta.avx2", "passt", "passt.avx2"})
"""Programs that forward a container's connections as their own, so that the connection does not show the runner."""

_ESTABLISHED = "01"


def local_pid(pid: int, caller: int | None) -> int:
    """The pid, in our own namespace, of the process that the process `caller` calls `pid`.

    Raises InputError if there is no such process, or if the number is ambiguous.
    """
    ours, theirs = namespace("self"), namespace(caller) if caller is not None else ""
    if theirs and theirs != ours:  # empty: the caller has ended, or we may not read it
        found = [number for number, space in _processes_called(pid) if space == theirs]
        if not found:
            raise InputError(
                "pid",
                f"there is no process {pid} in the PID namespace of the runner",
                NOT_IN_NAMESPACE_REMEDY,
            )
        return found[0]
    here = (PROC / str(pid)).exists()
    elsewhere = [] if theirs else [number for number, space in _processes_called(pid) if space != ours]
    if len(elsewhere) + here > 1:
        raise InputError(
            "pid",
            f"{pid} is the number of {len(elsewhere) + here} processes, in different PID namespaces, and the "
            "connection does not show which one the runner is in",
            AMBIGUOUS_PID_REMEDY,
        )
    if not here and not elsewhere:
        raise InputError("pid", f"there is no process {pid}", NO_PROCESS_REMEDY)
    return pid if here else elsewhere[0]


def client_process(peer: Peer | None) -> int | None:
    """The process that sent a request; None if that is not known, as behind a relay."""
    client = connection_owner(peer) if peer else None
    return None if client is None or _command_name_of(client) in RELAYS else client


def connection_owner(peer: Peer) -> int | None:
    """The process at the other end of a connection on this machine; None if that is not known."""
    if isinstance(peer, int):
        return peer
    inode = _socket_inode(peer)
    if inode is None:
        return None
    for directory in PROC.glob("[0-9]*/fd"):
        with suppress(OSError):
            for fd in os.listdir(directory):  # noqa: PTH208 - Path objects cost more than the rest together
                with suppress(OSError):
                    if os.readlink(directory / fd) == f"socket:[{inode}]":  # noqa: PTH115
                        return int(directory.parent.name)
    return None


def _socket_inode(peer: tuple[str, int]) -> int | None:
    """The inode of the client's socket: its local address and port are those of the peer."""
    local = {f"{address}:{peer[1]:04X}" for address in _procfs_forms(peer[0])}
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in procfs.lines(PROC / "net" / table)[1:]:
                fields = line.decode("ascii").split()
                if fields and fields[1] in local and fields[3] == _ESTABLISHED and int(fields[9]):
                    return int(fields[9])
    return None


def _procfs_forms(address: str) -> Iterator[str]:
    """An address as /proc/net/tcp and tcp6 write it: 32-bit words in the machine's order, IPv4 also mapped to IPv6."""
    try:
        ip = ip_address(address)
    except ValueError:
        return
    mapped = getattr(ip, "ipv4_mapped", None)
    for form in (ip, mapped, ip_address(b"\0" * 10 + b"\xff" * 2 + ip.packed) if ip.version == 4 else None):
        if form is not None:
            words = unpack(f"={len(form.packed) // 4}I", form.packed)
            yield "".join(f"{word:08X}" for word in words)


def _processes_called(pid: int) -> Iterator[tuple[int, str]]:
    """(pid in our namespace, their namespace) of the processes that namespaces below ours call `pid`."""
    for directory in PROC.glob("[0-9]*"):
        with suppress(OSError):
            here, *inside = map(int, procfs.status(directory)["NSpid"].split())
            if inside and inside[-1] == pid:
                yield here, namespace(directory.name)


def namespace(process: int | str, kind: str = "pid") -> str:
    """The name of one of a process' namespaces; empty if the process has ended, or we may not read it."""
    try:
        return os.readlink(f"{PROC}/{process}/ns/{kind}")  # noqa: PTH115 - called for every process
    except OSError:
        return ""


def _command_name_of(pid: int) -> str:
    try:
        return procfs.command_name(PROC / str(pid))
    except OSError:
        return ""
