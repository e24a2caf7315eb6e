"""Translation of a cgroup's path from a runner's cgroup namespace into ours, where it may be another cgroup.

A path means what it means to the runner: it lies below a directory where the runner has the hierarchy mounted, or it
is relative to the root of the runner's cgroup namespace, as in /proc/self/cgroup.  If that root is not known, a path
that could mean two cgroups is refused.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from chainbench_agent.abi.kernel_text import bytes_of, text_of_path
from chainbench_agent.errors import InputError
from chainbench_agent.host import procfs
from chainbench_agent.host.pid_namespaces import namespace

PROC = Path("/proc")
_CLONE_NEWCGROUP = 0x02000000
_UP = ".."

NO_HIERARCHY_REMEDY = "send a pid instead"
NO_CGROUP_REMEDY = "/proc/PID/cgroup has the path of a process's cgroup"
AMBIGUOUS_CGROUP_REMEDY = "send a pid; or run the agent as root on the runner's machine, and connect to it directly"

Parts = tuple[str, ...]
"""The parts of a path in the hierarchy, from the root of our own cgroup namespace; ".." first if it lies above."""


class Cgroup(NamedTuple):
    directory: Path
    level: int
    """Its depth below the root of our own cgroup namespace."""
    path: str
    """Its path in our own cgroup namespace."""
    translated: bool
    """Whether the path that was sent is relative to another cgroup namespace."""


def cgroup2_mount() -> Path | None:
    """The directory where the version 2 hierarchy is mounted; None if it is not mounted."""
    mount = _mount()
    return mount.where if mount else None


def find_cgroup(path: str, caller: int | None) -> Cgroup:
    """The cgroup that the process `caller` calls `path`.  Raises InputError, with a remedy."""
    mount = _mount()
    if mount is None:
        raise InputError("cgroup", "no cgroup v2 hierarchy is mounted here", NO_HIERARCHY_REMEDY)
    spellings = {path, os.fsdecode(bytes_of(path))}
    meant = {names for spelling in spellings for names in _candidates(spelling, caller, mount)}
    found = {names: directory for names in meant if (directory := _directory(mount, names))}
    if not found:
        raise InputError("cgroup", f"there is no cgroup {path} below {mount.where}", NO_CGROUP_REMEDY)
    if len(found) > 1:
        raise InputError(
            "cgroup",
            f"{path} is the path of {len(found)} cgroups, in different cgroup namespaces, and the namespace of the "
            "runner is not known",
            AMBIGUOUS_CGROUP_REMEDY,
        )
    ((names, directory),) = found.items()
    own = _below((mount,), path)
    translated = names != (_join((), _parts(path)) if own is None else own)
    return Cgroup(directory, _level(names), text_of_path("/" + "/".join(names)), translated)


def _candidates(path: str, caller: int | None, ours: procfs.Mount) -> set[Parts]:
    """Every cgroup that `path` may mean, whether or not it exists."""
    space = namespace(caller, "cgroup") if caller is not None else ""
    if caller is None or not space:
        inside = _below((ours,), path)
        asked = _parts(path) if inside is None else inside
        return {_join(root, asked) for root in {(), *_possible_roots(None)}}
    inside = _below(_mounts(caller) or (ours,), path)
    if inside is not None:
        return {inside}
    if space == namespace("self", "cgroup"):
        return {_join((), _parts(path))}
    root = _root_of(caller, space)
    roots = [root] if root is not None else _possible_roots(caller)
    return {_join(root, _parts(path)) for root in roots}


def _mounts(process: int | str) -> tuple[procfs.Mount, ...]:
    with suppress(OSError):
        return tuple(mount for mount in procfs.mounts(PROC / str(process)) if mount.kind == "cgroup2")
    return ()


def _mount() -> procfs.Mount | None:
    """The mount of the hierarchy that shows most of it."""
    return min(_mounts("self"), key=lambda mount: _level(_parts(mount.root)), default=None)


def _below(mounts: Iterable[procfs.Mount], path: str) -> Parts | None:
    """The cgroup at a path of the file system; None if that is not below any of the mounts."""
    for mount in sorted(mounts, key=lambda mount: -len(mount.where.parts)):
        if Path(path).is_relative_to(mount.where):
            return _join(_parts(mount.root), Path(path).relative_to(mount.where).parts)
    return None


def _directory(mount: procfs.Mount, names: Parts) -> Path | None:
    """The directory of a cgroup; None if it does not exist or the mount does not show it."""
    root = _parts(mount.root)
    directory = mount.where.joinpath(*names[len(root) :])
    there = names[: len(root)] == root and _UP not in names[len(root) :] and (directory / "cgroup.procs").exists()
    return directory if there else None


def _parts(path: str) -> Parts:
    return tuple(name for name in path.split("/") if name not in ("", "."))


def _join(root: Parts, names: Iterable[str]) -> Parts:
    """The path `names` from `root` on, with each ".." resolved."""
    found = list(root)
    for name in names:
        if name == _UP and found and found[-1] != _UP:
            found.pop()
        elif name != ".":
            found.append(name)
    return tuple(found)


def own_level() -> int:
    """The depth of our own cgroup below the root of our cgroup namespace."""
    return _level(_path_of("self") or ())


def _level(names: Parts) -> int:
    return len(names) - 2 * names.count(_UP)


def _path_of(process: int | str) -> Parts | None:
    """The cgroup of a process; None if the process has ended, or has no cgroup."""
    with suppress(OSError):
        path = procfs.cgroup(PROC / str(process))
        return None if path is None else _parts(os.fsdecode(path))
    return None


def _possible_roots(client: int | None) -> set[Parts]:
    """The cgroups at which a client's cgroup namespace may begin: the cgroup of its process, and those above.

    A client that is not known may be in the cgroup namespace of any process that is not in ours.
    """
    ours = namespace("self", "cgroup")
    processes = _others(ours) if client is None else (client,)
    paths = {names for process in processes if (names := _path_of(process)) is not None}
    roots = {names[:length] for names in paths for length in range(len(names) + 1)}
    return roots if client is not None else roots - {()}


def _others(ours: str) -> Iterator[int]:
    """The processes that are in another cgroup namespace than ours."""
    for entry in os.listdir(PROC):  # noqa: PTH208 - Path objects cost more than the rest together
        if entry.isdigit() and namespace(entry, "cgroup") not in ("", ours):
            yield int(entry)


def _root_of(client: int, space: str) -> Parts | None:
    """The cgroup at which the client's cgroup namespace begins; None if that is not known.

    A process' path in our namespace is the root's followed by the path in its own namespace.  That does not hold for
    a process that was moved out of its namespace, but another process may still be inside.
    """
    ours = namespace("self", "cgroup")
    members = [client, *(process for process in _others(ours) if namespace(process, "cgroup") == space)]
    for process, inside in _seen_from(client, members):
        outside = _path_of(process)
        if outside is not None and len(outside) >= len(inside) and outside[len(outside) - len(inside) :] == inside:
            return outside[: len(outside) - len(inside)]
    return None


def _seen_from(client: int, processes: Iterable[int]) -> list[tuple[int, Parts]]:
    """The cgroups of processes, as paths in the client's cgroup namespace; empty if we may not enter it.

    A thread enters the namespace, for which the kernel requires CAP_SYS_ADMIN, and ends there.
    """
    found: list[tuple[int, Parts]] = []

    def look() -> None:
        with suppress(OSError):
            _enter_cgroup_namespace(client)
            seen = ((process, _path_of(process)) for process in processes)
            found.extend((process, names) for process, names in seen if names is not None)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found


def _enter_cgroup_namespace(process: int) -> None:
    fd = os.open(PROC / str(process) / "ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWCGROUP):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)
