"""What a cgroup's path means: in a cgroup namespace the same path is another cgroup, as a pid is in a PID namespace.

A path is what it is to the runner that sends it: below a place where the runner has the hierarchy mounted, or as its
own /proc/self/cgroup has it, which begins at the root of its cgroup namespace.  Where that root cannot be told, a path
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

Names = tuple[str, ...]
"""A path in the hierarchy, from the root of our own cgroup namespace on; it begins with ".." where it is above that."""


class Cgroup(NamedTuple):
    directory: Path
    level: int
    """How far below the root of our own cgroup namespace it is."""
    path: str
    """In our own cgroup namespace."""
    translated: bool
    """Whether the path that was sent is one of another cgroup namespace."""


def cgroup2_mount() -> Path | None:
    """Where the version 2 hierarchy is mounted."""
    mount = _mount()
    return mount.where if mount else None


def find_cgroup(path: str, caller: int | None) -> Cgroup:
    """The cgroup that the process `caller` calls `path`.  Raises InputError, saying what to do."""
    mount = _mount()
    if mount is None:
        raise InputError("cgroup", "no cgroup v2 hierarchy is mounted here", "send a pid instead")
    spellings = {path, os.fsdecode(bytes_of(path))}
    meant = {names for spelling in spellings for names in _meanings(spelling, caller, mount)}
    found = {names: place for names in meant if (place := _place(mount, names))}
    if not found:
        raise InputError(
            "cgroup",
            f"there is no cgroup {path} below {mount.where}",
            "/proc/PID/cgroup has the path of a process's cgroup",
        )
    if len(found) > 1:
        raise InputError(
            "cgroup",
            f"{path} is the path of {len(found)} cgroups, in different cgroup namespaces, and the runner's own could "
            "not be told",
            "send a pid; or run the agent as root on the runner's machine, and connect to it directly",
        )
    ((names, directory),) = found.items()
    own = _below((mount,), path)
    translated = names != (_walk((), _names(path)) if own is None else own)
    return Cgroup(directory, _level(names), text_of_path("/" + "/".join(names)), translated)


def _meanings(path: str, caller: int | None, ours: procfs.Mount) -> set[Names]:
    """Every cgroup that `path` may be, whether or not there is one."""
    space = namespace(caller, "cgroup") if caller is not None else ""
    if caller is None or not space:
        inside = _below((ours,), path)
        asked = _names(path) if inside is None else inside
        return {_walk(root, asked) for root in {(), *_possible_roots(None)}}
    inside = _below(_mounts(caller) or (ours,), path)
    if inside is not None:
        return {inside}
    if space == namespace("self", "cgroup"):
        return {_walk((), _names(path))}
    root = _root_of(caller, space)
    roots = [root] if root is not None else _possible_roots(caller)
    return {_walk(root, _names(path)) for root in roots}


def _mounts(process: int | str) -> tuple[procfs.Mount, ...]:
    with suppress(OSError):
        return tuple(mount for mount in procfs.mounts(PROC / str(process)) if mount.kind == "cgroup2")
    return ()


def _mount() -> procfs.Mount | None:
    """The one that shows most; the first of them."""
    return min(_mounts("self"), key=lambda mount: _level(_names(mount.root)), default=None)


def _below(mounts: Iterable[procfs.Mount], path: str) -> Names | None:
    """What a path of the file system is in the hierarchy; None if it is below none of the mounts."""
    for mount in sorted(mounts, key=lambda mount: -len(mount.where.parts)):
        if Path(path).is_relative_to(mount.where):
            return _walk(_names(mount.root), Path(path).relative_to(mount.where).parts)
    return None


def _place(mount: procfs.Mount, names: Names) -> Path | None:
    """Where a cgroup is, if there is one and the mount shows it."""
    root = _names(mount.root)
    directory = mount.where.joinpath(*names[len(root) :])
    there = names[: len(root)] == root and _UP not in names[len(root) :] and (directory / "cgroup.procs").exists()
    return directory if there else None


def _names(path: str) -> Names:
    return tuple(name for name in path.split("/") if name not in ("", "."))


def _walk(root: Names, names: Iterable[str]) -> Names:
    """From `root` on, where ".." is a step up."""
    found = list(root)
    for name in names:
        if name == _UP and found and found[-1] != _UP:
            found.pop()
        elif name != ".":
            found.append(name)
    return tuple(found)


def own_level() -> int:
    """How far below the root of our cgroup namespace our own cgroup is."""
    return _level(_path_of("self") or ())


def _level(names: Names) -> int:
    return len(names) - 2 * names.count(_UP)


def _path_of(process: int | str) -> Names | None:
    """A process' own cgroup; None if it is gone, or has none."""
    with suppress(OSError):
        path = procfs.cgroup(PROC / str(process))
        return None if path is None else _names(os.fsdecode(path))
    return None


def _possible_roots(client: int | None) -> set[Names]:
    """Where the cgroup namespace of a client may begin: at the cgroup of a process of it, or above.

    Of a client that is not known, this may be the namespace of any process that has another than ours.
    """
    ours = namespace("self", "cgroup")
    processes = _others(ours) if client is None else (client,)
    paths = {names for process in processes if (names := _path_of(process)) is not None}
    roots = {names[:length] for names in paths for length in range(len(names) + 1)}
    return roots if client is not None else roots - {()}


def _others(ours: str) -> Iterator[int]:
    """The processes that have another cgroup namespace than ours."""
    for entry in os.listdir(PROC):  # noqa: PTH208 - Path objects cost more than the rest together
        if entry.isdigit() and namespace(entry, "cgroup") not in ("", ours):
            yield int(entry)


def _root_of(client: int, space: str) -> Names | None:
    """Where the client's cgroup namespace begins; None if that cannot be told.

    It is what a process' path has more in our namespace than in its own.  Of a process that was moved out of its
    namespace that cannot be said, but another one may still be inside.
    """
    ours = namespace("self", "cgroup")
    members = [client, *(process for process in _others(ours) if namespace(process, "cgroup") == space)]
    for process, inside in _seen_from(client, members):
        outside = _path_of(process)
        if outside is not None and len(outside) >= len(inside) and outside[len(outside) - len(inside) :] == inside:
            return outside[: len(outside) - len(inside)]
    return None


def _seen_from(client: int, processes: Iterable[int]) -> list[tuple[int, Names]]:
    """The cgroups of processes as the client's cgroup namespace has them; none if we may not enter it.

    A thread of ours goes there, which the kernel allows for CAP_SYS_ADMIN, and ends there.
    """
    found: list[tuple[int, Names]] = []

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
