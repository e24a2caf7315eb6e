"""What a pid means: in a PID namespace the same number is another process.

A runner in a container names its pid as it knows it.  The process at the other end of the connection tells which
namespace that is; without it, a number that could mean two processes is refused.
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
"""Address and port of a client; of one on a unix socket its pid, which the kernel has told (SO_PEERCRED)."""

RELAYS = frozenset({"docker-proxy", "rootlessport", "slirp4netns", "pasta", "pasta.avx2", "passt", "passt.avx2"})
"""Commands that make a container's connections as if they were their own: theirs tells nothing of the runner."""

_ESTABLISHED = "01"


def local_pid(pid: int, caller: int | None) -> int:
    """The number, in our own namespace, of the process that the process `caller` calls `pid`.

    Raises InputError if there is no such process, or if the number is ambiguous.
    """
    ours, theirs = namespace("self"), namespace(caller) if caller is not None else ""
    if theirs and theirs != ours:  # empty: the caller has ended, or may not be looked at
        found = [number for number, space in _called(pid) if space == theirs]
        if not found:
            raise InputError(
                "pid",
                f"there is no process {pid} in the PID namespace of the runner",
                "send the pid that the runner sees, or a cgroup",
            )
        return found[0]
    here = (PROC / str(pid)).exists()
    elsewhere = [] if theirs else [number for number, space in _called(pid) if space != ours]
    if len(elsewhere) + here > 1:
        raise InputError(
            "pid",
            f"{pid} is the number of {len(elsewhere) + here} processes, in different PID namespaces, and the runner's "
            "own could not be told from its connection",
            "send the host's pid, or a cgroup",
        )
    if not here and not elsewhere:
        raise InputError(
            "pid", f"there is no process {pid}", "send the pid of a running process, as the runner sees it"
        )
    return pid if here else elsewhere[0]


def client_process(peer: Peer | None) -> int | None:
    """The process whose words a request has; None if it cannot be told, as behind a relay."""
    client = connection_owner(peer) if peer else None
    return None if client is None or _command(client) in RELAYS else client


def connection_owner(peer: Peer) -> int | None:
    """The process at the other end of a connection on this machine; None if it cannot be told."""
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
    """The client's socket is the one whose own address and port are the peer's."""
    local = {f"{address}:{peer[1]:04X}" for address in _spellings(peer[0])}
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in procfs.lines(PROC / "net" / table)[1:]:
                fields = line.decode("ascii").split()
                if fields and fields[1] in local and fields[3] == _ESTABLISHED and int(fields[9]):
                    return int(fields[9])
    return None


def _spellings(address: str) -> Iterator[str]:
    """An address as /proc/net/tcp and tcp6 write it: 32-bit words in the machine's order, an IPv4 one mapped too."""
    try:
        ip = ip_address(address)
    except ValueError:
        return
    mapped = getattr(ip, "ipv4_mapped", None)
    for form in (ip, mapped, ip_address(b"\0" * 10 + b"\xff" * 2 + ip.packed) if ip.version == 4 else None):
        if form is not None:
            words = unpack(f"={len(form.packed) // 4}I", form.packed)
            yield "".join(f"{word:08X}" for word in words)


def _called(pid: int) -> Iterator[tuple[int, str]]:
    """(number here, namespace) of the processes in namespaces below ours whose own number is `pid`."""
    for directory in PROC.glob("[0-9]*"):
        with suppress(OSError):
            here, *inside = map(int, procfs.status(directory)["NSpid"].split())
            if inside and inside[-1] == pid:
                yield here, namespace(directory.name)


def namespace(process: int | str, kind: str = "pid") -> str:
    """The name of one of a process' namespaces; empty if it is gone, or not ours to look at."""
    try:
        return os.readlink(f"{PROC}/{process}/ns/{kind}")  # noqa: PTH115 - asked of every process there is
    except OSError:
        return ""


def _command(pid: int) -> str:
    try:
        return procfs.command_name(PROC / str(pid))
    except OSError:
        return ""
