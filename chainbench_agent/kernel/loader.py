"""The loader: a short-lived child that compiles and loads, hands over the descriptors, and exits.

The only file of the package that imports bcc.  LLVM needs 75 MB to be imported and more to compile; it goes with the
child.  `load()` runs in the daemon, `main()` in the child; a request and an answer in JSON pass between them over a
socket pair, the descriptors as SCM_RIGHTS.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from chainbench_agent.errors import LayoutError, LoaderError
from chainbench_agent.headers.offset_checks import read_offset

_FDS_PER_MESSAGE = 250  # the kernel's SCM_MAX_FD is 253
_TIMEOUT_S = 300  # LLVM needs a second, and a minute where a busy machine emulates another
_CFLAGS = [
    # BCC optimises what clang hands over, so clang need not as well, and nobody reads debugging information: this
    # halves the time.
    "-Xclang",
    "-disable-llvm-passes",
    "-g0",
    "-ffine-grained-bitfield-accesses",  # see headers/c_layout.py
    "-Werror=implicit-function-declaration",  # a misspelt call would load as a jump to nowhere
    "-Wno-unused-value",  # BCC's own macros
]


@dataclass(frozen=True, slots=True)
class Request:
    """What the child is asked to do.  `offsets`: (function, "struct.member", offset) that must hold first."""

    text: str
    header_tree: str
    programs: Sequence[tuple[str, str]]
    """(C function, kind as in spec.Kind)"""
    maps: list[str]
    offsets: list[tuple[str, str, int]]


@dataclass(frozen=True, slots=True)
class MapFd:
    """A loaded map.  `value_size` is that of one CPU's value, as declared."""

    fd: int
    key_size: int
    value_size: int
    entries: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Descriptors by name; `failed` says for each program that did not load what the kernel said."""

    programs: dict[str, int]
    maps: dict[str, MapFd]
    failed: dict[str, str]
    bcc_version: str


def load(request: Request) -> Loaded:
    """Compile and load in a child.

    Raises LayoutError if the generated code reads a member elsewhere than BTF says, LoaderError with clang's own words
    if the unit does not compile.
    """
    ours, theirs = socket.socketpair()
    environment = os.environ | {"BCC_KERNEL_SOURCE": request.header_tree}
    # BCC looks for headers in the working directory first: in the tree, nothing can come before the tree.
    command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
    with (
        ours,
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment, cwd=request.header_tree, stderr=stderr
        ) as child,
    ):
        theirs.close()
        ours.settimeout(_TIMEOUT_S)
        try:
            _send(ours, asdict(request))
            answer, fds = _receive(ours)
        except (OSError, ValueError):
            child.kill()
            child.wait()
            stderr.seek(0)
            words = stderr.read().decode(errors="replace").strip()[-2000:]
            raise LoaderError(f"the BPF loader died without an answer: {words or child.returncode}") from None
    return _loaded(answer, fds)


def _loaded(answer: dict[str, Any], fds: list[int]) -> Loaded:
    if "wrong_offsets" in answer:
        raise LayoutError(
            "the header tree disagrees with this kernel's BTF, so nothing was loaded: "
            + "; ".join(answer["wrong_offsets"])
        )
    if "error" in answer:
        raise LoaderError(answer["error"])
    names, maps = answer["programs"], answer["maps"]
    return Loaded(
        programs=dict(zip(names, fds, strict=False)),
        maps={name: MapFd(fd, *sizes) for (name, *sizes), fd in zip(maps, fds[len(names) :], strict=True)},
        failed=answer["failed"],
        bcc_version=answer["bcc_version"],
    )


def _send(channel: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    data = json.dumps(message | {"fds": len(fds)}).encode()
    channel.sendall(len(data).to_bytes(8, "little") + data)
    for start in range(0, len(fds), _FDS_PER_MESSAGE):
        socket.send_fds(channel, [b"\0"], fds[start : start + _FDS_PER_MESSAGE])


def _receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    def exactly(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = channel.recv(count - len(data))
            if not piece:
                raise OSError("closed")
            data += piece
        return bytes(data)

    message = json.loads(exactly(int.from_bytes(exactly(8), "little")))
    fds: list[int] = []
    while len(fds) < message["fds"]:
        data, received, _flags, _address = socket.recv_fds(channel, 1, _FDS_PER_MESSAGE)
        if not data:
            raise OSError("closed")
        fds += received
    return message, fds


def main(channel_fd: int) -> None:
    """The child: answer one request, then exit; the kernel keeps what the daemon now holds."""
    with socket.socket(fileno=channel_fd) as channel:
        message, _ = _receive(channel)
        del message["fds"]
        answer, fds = _compile_and_load(Request(**message))
        _send(channel, answer, fds)


def _compile_and_load(request: Request) -> tuple[dict[str, Any], tuple[int, ...]]:
    try:
        from bcc import BPF, __version__  # noqa: PLC0415 - only here, see the top of the file
    except ImportError as error:
        return {"error": f"cannot import Debian's bcc ({error}); apt install python3-bpfcc"}, ()
    # Attach nothing by name: each hook is attached by the daemon, one by one.
    BPF._trace_autoload = lambda _self: None  # noqa: SLF001 - there is no public switch
    with _Stderr() as words:
        try:
            unit = BPF(text=request.text, cflags=_CFLAGS)
        except Exception:  # noqa: BLE001 - bcc raises nothing more precise
            return {"error": f"the BPF unit does not compile:\n{words.read()}"}, ()
    wrong = [
        f"{member} at {got}, BTF says {offset}"
        for function, member, offset in request.offsets
        if (got := read_offset(unit.dump_func(function.encode()))) != offset
    ]
    if wrong:
        return {"wrong_offsets": wrong}, ()
    programs, failed = _load_programs(unit, request.programs)
    maps = [(name, unit[name.encode()]) for name in request.maps]
    answer = {
        "programs": list(programs),
        "failed": failed,
        "maps": [_sizes(name, table) for name, table in maps],
        "bcc_version": __version__,
    }
    return answer, (*programs.values(), *(table.map_fd for _, table in maps))


def _load_programs(unit: Any, wanted: Sequence[tuple[str, str]]) -> tuple[dict[str, int], dict[str, str]]:
    kinds = {
        "raw_tracepoint": unit.RAW_TRACEPOINT,
        "fentry": unit.TRACING,
        "fexit": unit.TRACING,
        "kprobe": unit.KPROBE,
        "kretprobe": unit.KPROBE,
        "perf": unit.PERF_EVENT,
    }
    programs: dict[str, int] = {}
    failed: dict[str, str] = {}
    for name, kind in wanted:
        with _Stderr() as words:
            try:
                programs[name] = unit.load_func(name.encode(), kinds[kind]).fd
            except Exception as error:  # noqa: BLE001 - bcc raises nothing more precise
                failed[name] = _verdict(words.read()) or str(error)
    return programs, failed


def _verdict(log: str) -> str:
    """The verifier's last words before its statistics: the ones that say why."""
    noise = ("processed ", "HINT:", "bpf: Failed to load program")
    lines = [line for line in log.splitlines() if line and not line.startswith(noise)]
    return lines[-1] if lines else log.strip().removeprefix("bpf: ")


def _sizes(name: str, table: Any) -> tuple[str, int, int, int]:
    import ctypes  # noqa: PLC0415 - only the child needs it

    # The leaf of a per-CPU table is an array of one value per CPU.
    leaf = getattr(table, "sLeaf", table.Leaf)
    return name, ctypes.sizeof(table.Key), ctypes.sizeof(leaf), int(table.max_entries)


class _Stderr:
    """What C code writes to descriptor 2: clang and the verifier explain themselves only there.

    The descriptor is a file of the daemon's, which reads the last words there if the child dies.
    """

    def __enter__(self) -> Self:
        self._start = os.lseek(2, 0, os.SEEK_END)
        return self

    def read(self) -> str:
        size = os.lseek(2, 0, os.SEEK_END) - self._start
        return os.pread(2, size, self._start).decode(errors="replace").strip()

    def __exit__(self, *_exception: object) -> None:
        os.lseek(2, 0, os.SEEK_END)


if __name__ == "__main__":
    main(int(sys.argv[1]))
