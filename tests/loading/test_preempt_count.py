"""Where the preemption count lies."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from chainbench_agent.headers.btf import DEFAULT_PATH, Btf
from chainbench_agent.headers.btf_types import Kind, Section
from chainbench_agent.loading import preempt_count


class FakeBtf:
    """Per-CPU variables and struct members by name."""

    def __init__(self, variables, members):
        self.variables, self.members = variables, members

    def find(self, name, kind):
        if kind == Kind.DATASEC:
            return Section(1, kind, name, 0, tuple(enumerate(self.variables.values(), start=10)))
        ids = dict(zip(self.variables, range(10, 99), strict=False))
        return SimpleNamespace(id=ids[name]) if name in ids else None

    def member_offset(self, struct, member):
        return self.members.get(f"{struct}.{member}")


@pytest.mark.parametrize(
    ("variables", "members", "distance"),
    [
        ({"__preempt_count": 64, "runqueues": 4096}, {"cfs_rq.rq": 8}, 64 - 4096),
        ({"runqueues": 4096, "pcpu_hot": 8192}, {"cfs_rq.rq": 8, "pcpu_hot.preempt_count": 8}, 4096 + 8),
        ({"runqueues": 4096}, {"cfs_rq.rq": 8}, None),
        ({"__preempt_count": 64}, {"cfs_rq.rq": 8}, None),
        ({"__preempt_count": 64, "runqueues": 4096}, {}, None),
    ],
)
def test_distance(monkeypatch, tmp_path, variables, members, distance):
    """It is a variable of its own, or in a struct of the hottest ones; None if its place is unknown.

    BTF has it, or, without variables in BTF, the symbols, unless their addresses are hidden.
    """
    kallsyms = tmp_path / "kallsyms"
    monkeypatch.setattr(preempt_count, "KALLSYMS", kallsyms)

    kallsyms.write_text("")
    assert preempt_count.preempt_count(FakeBtf(variables, members)) == distance

    kallsyms.write_text("".join(f"{at:016x} A {name}\n{at + 9:016x} t x{name}\n" for name, at in variables.items()))
    assert preempt_count.preempt_count(FakeBtf({}, members)) == distance

    kallsyms.write_text("".join(f"{0:016x} A {name}\n" for name in variables))
    assert preempt_count.preempt_count(FakeBtf({}, members)) is None


@pytest.mark.bpf
def test_on_this_kernel():
    """As bpftool reads the same section, if the kernel has it; there is a place in any case."""
    assert preempt_count.lacking(Btf.load()) == ""
    dump = subprocess.run(
        ["bpftool", "-j", "btf", "dump", "file", DEFAULT_PATH, "format", "raw"], capture_output=True, check=True
    )
    types = json.loads(dump.stdout)["types"]
    names = {kind["id"]: kind["name"] for kind in types if kind["kind"] == "VAR"}
    sections = [kind for kind in types if kind["name"] == ".data..percpu"]
    if not sections:  # pahole 1.18 to 1.21 wrote none
        return
    (section,) = sections
    offsets = {names[variable["type_id"]]: variable["offset"] for variable in section["vars"]}
    count = offsets.get("__preempt_count")
    if count is None:
        count = offsets["pcpu_hot"] + Btf.load().member_offset("pcpu_hot", "preempt_count")

    assert preempt_count.preempt_count(Btf.load()) == count - offsets["runqueues"]
