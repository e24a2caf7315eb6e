"""The report for users whose agent does not work."""

from dataclasses import replace

import pytest

from chainbench_agent.commands import doctor
from chainbench_agent.commands.doctor import Examination, examine, render
from chainbench_agent.errors import SetupError
from chainbench_agent.kernel.preflight import REMEDIES, Check
from chainbench_agent.model.status import CollectorStatus, ModuleStatus

KERNEL = Check("kernel", ok=True, found="Linux 6.1")
BTF = Check("btf", ok=True, found="10 types", needed=True)
KPROBES = Check("kprobes", ok=False, found="none")
UP = ModuleStatus(
    "runqlat", "up", sources={"histogram": "raw_tracepoint:a, raw_tracepoint:b", "p95": "raw_tracepoint:a"}
)
DEGRADED = ModuleStatus(
    "cpu",
    "degraded",
    sources={"interrupts": "raw_tracepoint:irq"},
    unavailable={"x": "no driver", "y": "no driver", "z": "no hook"},
)
DOWN = ModuleStatus("exec", "down", "no tracepoint")


@pytest.fixture
def machine(monkeypatch):
    """Sets the answers of the checks and the collector; `closed` counts how often the latter was closed."""

    class Machine:
        checks = (KERNEL, BTF)
        modules = (UP,)
        error = None
        opened = closed = 0

        def open(self, modules, hooks, cache_dir):
            del modules, hooks, cache_dir
            self.opened += 1
            if self.error:
                raise self.error
            return self

        def status(self):
            return CollectorStatus("ebpf", self.modules)

        def close(self):
            self.closed += 1

    machine = Machine()
    monkeypatch.setattr(doctor, "all_checks", lambda: list(machine.checks))
    monkeypatch.setattr(doctor, "EbpfCollector", machine.open)
    return machine


def test_all_is_well(machine, tmp_path):
    """Every module was really attached, and is detached again."""
    found = examine([], tmp_path)

    assert found == Examination((KERNEL, BTF), (UP,))
    assert found.healthy
    assert (machine.opened, machine.closed) == (1, 1)


def test_an_optional_check_fails(machine, tmp_path):
    """It is shown, and counts for nothing."""
    machine.checks = (KERNEL, BTF, KPROBES)

    assert examine([], tmp_path).healthy


def test_a_need_is_not_met(machine, tmp_path):
    """The first one says what is wrong; loading is not tried."""
    machine.checks = (KERNEL, replace(BTF, ok=False, found="missing"), replace(BTF, name="bcc", ok=False))

    found = examine([], tmp_path)

    assert (found.healthy, found.error, found.modules) == (False, "btf: missing", ())
    assert machine.opened == 0


@pytest.mark.parametrize("error", [SetupError("does not compile"), OSError(1, "does not compile")])
def test_nothing_loads(machine, tmp_path, error):
    machine.error = error

    found = examine([], tmp_path)

    assert not found.healthy
    assert "does not compile" in found.error


def test_it_is_closed_though_it_fails(machine, tmp_path):
    machine.status = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        examine([], tmp_path)

    assert machine.closed == 1


@pytest.mark.parametrize(("modules", "healthy"), [((UP, DEGRADED), True), ((UP, DOWN), False), ((), False)])
def test_healthy(modules, healthy):
    """A metric that this machine cannot offer does not count against it; a module does, and so does having none."""
    assert Examination((), modules).healthy == healthy


def test_as_json():
    """The verdict first, then everything that led to it, in plain types."""
    found = Examination((KPROBES,), (DOWN,), "broken").as_json()

    assert list(found) == ["healthy", "checks", "modules", "error"]
    assert found["healthy"] is False
    assert found["checks"] == (
        {"name": "kprobes", "ok": False, "found": "none", "remedy": REMEDIES["kprobes"], "needed": False},
    )
    assert found["modules"][0]["reason"] == "no tracepoint"


def test_render():
    """A line per check and module, the remedy below; sources once each, metrics without one by their reason."""
    assert render(Examination((KERNEL, KPROBES), (UP, DEGRADED, DOWN))) == (
        "This machine\n"
        "  ok  kernel          Linux 6.1\n"
        "  --  kprobes         none\n"
        f"                      → {REMEDIES['kprobes']}\n"
        "\n"
        "Modules\n"
        "  ok  runqlat         raw_tracepoint:a, raw_tracepoint:b\n"
        "  ok  cpu             raw_tracepoint:irq\n"
        "                      without x, y: no driver\n"
        "                      without z: no hook\n"
        "  --  exec            no tracepoint\n"
        "\n"
        "The agent would serve mock data or lack modules."
    )


def test_render_health():
    assert render(Examination((KERNEL,), (UP,))).endswith("\n\nAll modules measure.")


def test_render_an_error():
    """Instead of modules."""
    assert "  --  none: btf: missing\n" in render(Examination((KERNEL,), (), "btf: missing"))
