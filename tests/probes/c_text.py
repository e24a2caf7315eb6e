"""Reads the unit's C as text: functions, structs, constants.  No compiler is needed for that."""

import re
import struct

from user_space import fused

from chainbench_agent.loading.unit_text import module_text

UNIT = fused()


def c_of(module):
    """The module's C without its comments."""
    return re.sub(r"//.*", "", module_text(module.name))


def fields_of(module):
    """The names of the members of a module's per-CPU struct."""
    return {metric.name for metric in module.per_cpu} | {scratch.name for scratch in module.scratch if scratch.field}


def functions(text):
    """Name → body, of every function of a C text."""
    found = re.findall(
        r"^(?:static __always_inline )?[\w *]+?\n?\b(\w+)\([^;{]*\)\n\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL
    )
    return dict(found)


def struct_of(name):
    """(member, struct code, count) of a C struct in the unit: its members are plain numbers or arrays of them."""
    body = re.search(rf"^struct {name} \{{\n(.*?)^\}};", UNIT.text, re.MULTILINE | re.DOTALL)[1]
    codes = {"u64": "Q", "u32": "I", "u16": "H", "s32": "i", "u8": "B", "char": "s"}
    # bit-fields that share a byte are one member, by the name of the first
    body = re.sub(r"^\t(u8 \w+) : \d+;.*\n(?:\tu8 \w+ : \d+;.*\n)+", r"\t\1;\n", body, flags=re.MULTILINE)
    members = re.findall(r"^\t(\w+) (\w+)(?:\[(\w+)\])?;", body, re.MULTILINE)
    return [(member, codes[kind], constant(size) if size else 0) for kind, member, size in members]


def format_of(name):
    """The struct as Python's module `struct` writes it; its C layout must have no gaps."""
    written = ""
    for member, code, count in struct_of(name):
        written += (
            f"{count or 1}{'x' if member == 'pad' else code}" if member == "pad" or code == "s" else code * (count or 1)
        )
        assert struct.calcsize("@" + written) == struct.calcsize("=" + written), f"{name}.{member} is not aligned"
    assert struct.calcsize(f"@{written}0Q") == struct.calcsize("=" + written), f"{name} ends in a gap"
    return "=" + written


def constant(name):
    """A number, a #define of the unit, or an expression of such."""
    if name.isdigit():
        return int(name)
    text = re.search(rf"^#define {name} (.*?)(?:\s*//.*)?$", UNIT.text, re.MULTILINE)[1]
    text = re.sub(r"\b[A-Z_]{3,}\b", lambda inner: str(constant(inner[0])), text)
    text = re.sub(r"(?<=\d)ULL\b", "", text)
    return eval(text, {"__builtins__": {}})  # noqa: S307 - our own C constants


def format_before(name, member):
    """The part of the format that lies before a member."""
    members = [found for found, _, _ in struct_of(name)]
    codes = format_of(name).removeprefix("=")
    return "=" + codes[: members.index(member)]
