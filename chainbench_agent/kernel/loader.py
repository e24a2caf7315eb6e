"""The loader: a short-lived child that compiles and loads, hands over the descriptors, and exits.

The only file of the package that imports bcc.  LLVM needs 75 MB to be imported and more to compile; it goes with the
child.  `load()` runs in the daemon, `main()` in the child; a request and an answer in JSON pass between them over a
socket pair, the descriptors as SCM_RIGHTS.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from chainbench_agent.errors import LayoutError, LoaderError, SetupError
from chainbench_agent.headers.offset_checks import read_offset
from chainbench_agent.kernel.channel import receive, send

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
    """Compile and load in a child; raises what `Loader.load` does."""
    with Loader() as loader:
        return loader.load(request)


class Loader:
    """A child for one request.  It imports BCC at once, while the request is still being made."""

    def __enter__(self) -> Self:
        self._ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # closed at exit
        command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
        with theirs:
            self._child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=self._stderr)
        self._ours.settimeout(_TIMEOUT_S)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ours.close()  # a child that was not asked sees this and ends
        self._child.wait()
        self._stderr.close()

    def load(self, request: Request) -> Loaded:
        """Raises SetupError where BCC is missing, LoaderError with clang's own words if the unit does not compile.

        LayoutError if the generated code reads a member elsewhere than BTF says.
        """
        try:
            send(self._ours, asdict(request))
            answer, fds = receive(self._ours)
        except (OSError, ValueError):
            self._child.kill()
            self._child.wait()
            self._stderr.seek(0)
            words = self._stderr.read().decode(errors="replace").strip()[-2000:]
            raise LoaderError(f"the BPF loader died without an answer: {words or self._child.returncode}") from None
        return _loaded(answer, fds)


def _loaded(answer: dict[str, Any], fds: list[int]) -> Loaded:
    if "wrong_offsets" in answer:
        raise LayoutError(
            "the header tree disagrees with this kernel's BTF, so nothing was loaded: "
            + "; ".join(answer["wrong_offsets"])
        )
    if "no_bcc" in answer:
        raise SetupError(answer["no_bcc"])
    if "error" in answer:
        raise LoaderError(answer["error"])
    names, maps = answer["programs"], answer["maps"]
    return Loaded(
        programs=dict(zip(names, fds, strict=False)),
        maps={name: MapFd(fd, *sizes) for (name, *sizes), fd in zip(maps, fds[len(names) :], strict=True)},
        failed=answer["failed"],
        bcc_version=answer["bcc_version"],
    )


def main(channel_fd: int) -> None:
    """The child: answer one request, then exit; the kernel keeps what the daemon now holds."""
    with socket.socket(fileno=channel_fd) as channel:
        try:
            import bcc  # noqa: PLC0415 - only here, see the top of the file

            bcc.BPF  # noqa: B018 - PyPI's bcc is another program
        except (ImportError, AttributeError) as error:
            receive(channel)
            send(channel, {"no_bcc": f"cannot import Debian's bcc ({error}); apt install python3-bpfcc"})
            return
        try:
            message, _ = receive(channel)
        except OSError:
            return  # nobody asks
        del message["fds"]
        answer, fds = _compile_and_load(Request(**message))
        send(channel, answer, fds)


def _compile_and_load(request: Request) -> tuple[dict[str, Any], tuple[int, ...]]:
    from bcc import BPF, __version__  # noqa: PLC0415 - only here, see the top of the file

    # BCC looks for headers in the working directory first: in the tree, nothing can come before the tree.
    os.chdir(request.header_tree)
    os.environ["BCC_KERNEL_SOURCE"] = request.header_tree
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
        "uprobe": unit.KPROBE,
        "uretprobe": unit.KPROBE,
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
