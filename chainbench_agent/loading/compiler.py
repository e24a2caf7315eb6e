"""The compiler: a short-lived child that makes an object of a unit's C text, and exits.

The only file of the package that imports bcc.  LLVM needs 75 MB to be imported and more to compile; it goes with the
child.  `compile_unit()` runs in the daemon, `main()` in the child; it is asked, and answers, in JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chainbench_agent.bpf.footprint import fdinfo
from chainbench_agent.bpf.libbpf import possible_cpus
from chainbench_agent.errors import LayoutError, LoaderError, SetupError
from chainbench_agent.headers.offset_checks import read_offset
from chainbench_agent.loading import objects
from chainbench_agent.loading.objects import MapShape, Object, with_maps

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
class UnitText:
    """What the child is asked to compile.  `offsets`: (function, "struct.member", offset) that must hold in it."""

    c_text: str
    header_tree: str
    functions: list[str]
    maps: list[str]
    offsets: list[tuple[str, str, int]]


def compiled(text: UnitText) -> Object:
    """The object of this text: a kept one, or a new one, which is kept.  Raises what `compile_unit` does."""
    place = objects.place_of(Path(text.header_tree), text, _CFLAGS, possible_cpus())
    kept = objects.read(place) if place else None
    if kept:
        return kept
    found = compile_unit(text)
    if place:
        objects.keep(place, found)
    return found


def compile_unit(text: UnitText) -> Object:
    """Compile in a child.

    Raises SetupError where BCC is missing, LoaderError with clang's own words if the unit does not compile, LayoutError
    if the generated code reads a member elsewhere than BTF says.
    """
    command = [sys.executable, "-P", "-m", __name__]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(text)).encode(), capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoaderError(f"the compiler did not finish within {_TIMEOUT_S} s") from None
    words = done.stderr.decode(errors="replace").strip()
    if done.returncode or not done.stdout:
        raise LoaderError(f"the compiler died: {words[-2000:] or done.returncode}")
    answer = json.loads(done.stdout)
    if "no_bcc" in answer:
        raise SetupError(answer["no_bcc"])
    if "fails" in answer:
        raise LoaderError(f"the BPF unit does not compile:\n{words}")
    if "wrong_offsets" in answer:
        wrong = "; ".join(answer["wrong_offsets"])
        raise LayoutError(f"the header tree disagrees with this kernel's BTF, so nothing was loaded: {wrong}")
    return Object.from_json(answer)


def main() -> None:
    """The child.  What clang says goes to descriptor 2; nothing but the answer may go to descriptor 1."""
    answers = os.dup(1)
    os.dup2(2, 1)
    answer = _answer(UnitText(**json.load(sys.stdin)))
    with os.fdopen(answers, "w") as file:
        json.dump(answer, file)


def _answer(text: UnitText) -> dict[str, Any]:
    try:
        import bcc  # noqa: PLC0415 - only here, see the top of the file

        bpf = bcc.BPF  # PyPI's bcc is another program
    except (ImportError, AttributeError) as error:
        return {"no_bcc": f"cannot import Debian's bcc ({error}); apt install python3-bpfcc"}
    # BCC looks for headers in the working directory first: in the tree, nothing can come before the tree.
    os.chdir(text.header_tree)
    os.environ["BCC_KERNEL_SOURCE"] = text.header_tree
    bpf._trace_autoload = lambda _self: None  # noqa: SLF001 - nothing is attached here; there is no public switch
    try:
        unit = bpf(text=text.c_text, cflags=_CFLAGS)
    except Exception:  # noqa: BLE001 - bcc raises nothing more precise
        return {"fails": True}
    wrong = [
        f"{member} at {got}, BTF says {offset}"
        for function, member, offset in text.offsets
        if (got := read_offset(unit.dump_func(function.encode()))) != offset
    ]
    if wrong:
        return {"wrong_offsets": wrong}
    tables = {name: unit[name.encode()].map_fd for name in text.maps}
    numbers = {fd: number for number, fd in enumerate(tables.values())}
    programs = {name: with_maps(unit.dump_func(name.encode()), numbers) for name in text.functions}
    return Object(programs, tuple(_shape(name, fd) for name, fd in tables.items()), bcc.__version__).as_json()


def _shape(name: str, fd: int) -> MapShape:
    """As BCC has made the map, of which the child's own copy goes with it."""
    info = fdinfo(fd)
    kind, key, value, entries = (int(info[f]) for f in ("map_type", "key_size", "value_size", "max_entries"))
    return MapShape(name, kind, key, value, entries, int(info["map_flags"], 16))


if __name__ == "__main__":
    main()
