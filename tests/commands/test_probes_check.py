"""`probes check`: the units that it compiles and loads, and its report of them."""

import json
import shutil
import subprocess
from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner

from chainbench_agent.bpf.footprint import ProgramSize
from chainbench_agent.catalog import fentry, raw_tracepoint
from chainbench_agent.commands import probes_check
from chainbench_agent.commands.main import main
from chainbench_agent.commands.probes_check import UnitCheck, check, render
from chainbench_agent.errors import LoaderError
from chainbench_agent.kernel import preflight
from chainbench_agent.kernel.preflight import Check
from chainbench_agent.loading import unit_text
from chainbench_agent.loading.bpf_unit import PID_MAX
from chainbench_agent.loading.loader import Loaded, MapFd
from chainbench_agent.loading.unit_text import Program, Unit
from chainbench_agent.probes import CATALOG, DIRECTORY

SYSCALLS, EXEC = (next(m for m in CATALOG if m.name == name) for name in ("syscalls", "exec"))
WAKE = Program("kfunc__wake", "sched_wakeup", fentry("wake"))
WAKE_TOO = Program("cb_sched_wakeup_1", "sched_wakeup", raw_tracepoint("wake"))
ENTER = Program("cb_sys_enter_0", "sys_enter", raw_tracepoint("sys_enter"))


@dataclass
class FakeUnit:
    """A loaded unit; `closed` says whether it was given back."""

    modules: tuple
    programs: tuple = (WAKE, WAKE_TOO, ENTER)
    failed: dict = field(default_factory=dict)
    absent_hooks: dict = field(default_factory=dict)
    absent_modules: dict = field(default_factory=dict)
    closed: bool = False

    @property
    def unit(self):
        return Unit("", self.programs, ())

    @property
    def loaded(self):
        fds = {p.name: 7 for p in self.programs if p.name not in self.failed} | {"cb_identify": 8}
        return Loaded(fds, {"cb_tasks": MapFd(9, 4, 104, 65536)}, self.failed, "0.26.0")

    def close(self):
        self.closed = True


@pytest.fixture
def kernel(monkeypatch):
    """Sets the result of loading; `units` are those that were loaded."""

    class Kernel:
        def __init__(self):
            self.said = {}
            self.units = []
            self.error = None

        def load(self, modules, _hooks, _cache_dir, options):
            if self.error:
                raise self.error
            assert set(options) == {name for module in modules for name in module.names}
            self.units.append(FakeUnit(modules, **self.said))
            return self.units[-1]

    kernel = Kernel()
    monkeypatch.setattr(probes_check, "load_unit", kernel.load)
    monkeypatch.setattr(probes_check, "program_size", lambda fd: ProgramSize(fd * 100, fd * 1000, None, 16))
    monkeypatch.setattr(probes_check, "map_bytes", lambda _fd: 6656 * 1024)
    return kernel


def test_each_module_by_itself_and_then_all(kernel, tmp_path):
    """All modules load together in the agent, which needs a test of its own; every unit is closed."""
    found = check([SYSCALLS, EXEC], tmp_path)

    assert found.ok
    assert [unit.name for unit in found.units] == ["syscalls", "exec", "all"]
    assert [unit.modules for unit in kernel.units] == [(SYSCALLS,), (EXEC,), (SYSCALLS, EXEC)]
    assert all(unit.closed for unit in kernel.units)
    assert found.units[0].programs["raw_tracepoint:sys_enter"] == ProgramSize(700, 7000, None, 16)
    assert found.units[0].programs["cb_identify"] == ProgramSize(800, 8000, None, 16)
    assert found.units[0].maps == {"cb_tasks": 6656 * 1024}


def test_one_source_of_a_hook_is_enough(kernel, tmp_path):
    """The refusal of the better source is reported."""
    kernel.said = {"failed": {"kfunc__wake": "Operation not permitted"}}
    (unit,) = check([SYSCALLS], tmp_path).units

    assert unit.ok
    assert unit.refused == {"fentry:wake": "Operation not permitted"}


def test_a_hook_without_a_program_is_a_failure(kernel, tmp_path):
    kernel.said = {"failed": {"kfunc__wake": "no", "cb_sched_wakeup_1": "R1 invalid mem access"}}
    found = check([SYSCALLS], tmp_path)

    assert not found.ok
    assert found.units[0].failed == ("sched_wakeup",)
    assert "  --  sched_wakeup: no program of it loads\n" in render(found)


def test_what_a_kernel_never_had_is_no_failure(kernel, tmp_path):
    """Only of hooks that these modules need."""
    kernel.said = {"absent_hooks": {"sys_enter": "no such tracepoint", "cpu_idle": "no such tracepoint"}}
    (unit,) = check([SYSCALLS], tmp_path).units

    assert unit.ok
    assert unit.absent == {"sys_enter": "no such tracepoint"}


@pytest.mark.parametrize("alone", [True, False])
def test_what_does_not_compile_is_a_failure(kernel, tmp_path, alone):
    """A module that is loaded by itself raises an error; among others, it is left out."""
    if alone:
        kernel.error = LoaderError("unit.c:7: error")
    else:
        kernel.said = {"absent_modules": {"exec": "unit.c:7: error"}}
    found = check([SYSCALLS], tmp_path)

    assert not found.ok
    assert "unit.c:7: error" in render(found)


def test_render():
    """Shows instructions, machine code and maps; verified instructions and stack where the kernel reports them."""
    sizes = {"raw_tracepoint:a": ProgramSize(12, 80, 34, 24), "raw_tracepoint:b": ProgramSize(5, 0, None, None)}
    unit = UnitCheck("cpu", 1.25, programs=sizes, maps={"x": 4096, "y": 1536}, absent={"c": "no such tracepoint"})

    assert render(probes_check.ProbesCheck((unit,))) == (
        "cpu: 2 programs, 2 maps of 6 KiB, 1.25 s\n"
        "  ok  raw_tracepoint:a                             12 instructions, 34 verified, stack 24, 80 bytes\n"
        "  ok  raw_tracepoint:b                             5 instructions, not compiled to machine code\n"
        "      c: not on this kernel: no such tracepoint\n"
        "  KiB x 4, y 2\n"
        "\n"
        "Everything loads. 1.25 s"
    )


def test_no_such_module():
    """The names that there are come along."""
    result = CliRunner().invoke(main, ["probes", "check", "sycalls"])

    assert result.exit_code == 1
    assert result.output.startswith("Error: there is no module sycalls; there are biolatency, ")


def test_what_nothing_loads_without(monkeypatch):
    """It is what is said, with the remedy: not what the compiler makes of it."""
    lacking = Check("capabilities", ok=False, found="none of CAP_BPF", needed=True)
    monkeypatch.setattr(preflight, "needed_checks", lambda: [Check("btf", ok=True, found="there"), lacking])

    result = CliRunner().invoke(main, ["probes", "check", "exec"])

    assert result.exit_code == 1
    assert result.output == f"Error: capabilities: none of CAP_BPF; {lacking.remedy}\n"


def invoke(*arguments):
    return CliRunner().invoke(main, ["probes", "check", *arguments])


@pytest.mark.portable
@pytest.mark.bpf
def test_on_this_kernel(tmp_path):
    """Two modules load, each by itself and together; nothing is attached."""
    before = links()
    result = invoke("exec", "syscalls", "--json", "--header-cache", str(tmp_path))

    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert [unit["name"] for unit in found["units"]] == ["exec", "syscalls", "all"]
    for unit in found["units"]:
        assert all(size["instructions"] > 2 for size in unit["programs"].values())
        # a key of four bytes at least, which every program looks up, and what the kernel allows
        assert all(8 <= size["stack_bytes"] <= 512 for size in unit["programs"].values())
        assert unit["maps"]["cb_tasks"] >= min(65536, int(PID_MAX.read_text())) * 104
    assert links() == before


def links():
    return subprocess.run(["bpftool", "-j", "link", "show"], capture_output=True, text=True, check=True).stdout


@pytest.mark.portable
@pytest.mark.bpf
def test_a_program_that_the_verifier_refuses(tmp_path, monkeypatch):
    """It reads a map's value without asking whether there is one: the verifier's words, and exit status 1."""
    probes = shutil.copytree(DIRECTORY, tmp_path / "probes")
    text = (probes / "syscalls.c").read_text()
    careless = (
        "\tint far = 9;\n\tstruct cb_config *none = cb_config.lookup(&far);\n\tsyscalls->unknown_calls += none->run;\n"
    )
    begin = text.index("{", text.index("syscalls_on_sys_enter")) + 2
    (probes / "syscalls.c").write_text(text[:begin] + careless + text[begin:])
    monkeypatch.setattr(unit_text, "DIRECTORY", probes)
    result = invoke("syscalls", "--header-cache", str(tmp_path))

    assert result.exit_code == 1
    assert "sys_enter: no program of it loads" in result.output
    assert "invalid mem access" in result.output
