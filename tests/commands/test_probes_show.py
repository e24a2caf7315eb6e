"""The C text that is compiled can be looked at, and compiles as it is printed."""

import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from chainbench_agent.commands.main import main
from chainbench_agent.loading.bpf_unit import prepare
from chainbench_agent.loading.compiler import compile_unit
from chainbench_agent.probes import CATALOG, HOOKS

NAMES = tuple(name for module in CATALOG for name in module.names)


@pytest.fixture
def show(tmp_path):
    """`show(NAME, …)` → what the command prints."""

    def invoke(*names):
        result = CliRunner().invoke(main, ["probes", "show", *names, "--header-cache", str(tmp_path)])
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


def test_no_such_module():
    """The names that there are come along."""
    result = CliRunner().invoke(main, ["probes", "show", "sycalls"])

    assert result.exit_code == 1
    assert "there is no module sycalls" in result.output
    assert "locks:order" in result.output


@pytest.mark.portable
@pytest.mark.bpf
@pytest.mark.parametrize("names", [("exec",), NAMES], ids=["exec", "all"])
def test_it_compiles_as_printed(show, tmp_path, names):
    """To the same instructions and maps as those that the agent loads."""
    modules = tuple(module for module in CATALOG if module.name in names)
    options = [name for name in names if ":" in name]
    text = prepare(modules, HOOKS, tmp_path, options, None).text

    assert compile_unit(replace(text, c_text=show(*names))) == compile_unit(text)


@pytest.mark.portable
@pytest.mark.bpf
def test_it_shows_what_stands_in_no_file(show):
    """The parts that are written for a unit, each under its name; of the other modules nothing."""
    text = show("exec")

    for part in ("struct cb_process {", "struct cb_exec {", "#define CB_TASKS ", "void cb_raise_sched_process_exec("):
        assert part in text
    assert "biolatency" not in text
    written = re.findall(r"^// ==== generated/(.*)", text, re.MULTILINE)
    assert written == [
        *("sizes.h", "process.h", "event_kinds.h", "events.h", "exec.h", "raised.h", "hooks.h", "programs.c"),
        "offset_checks.c",
    ]


@pytest.mark.portable
@pytest.mark.bpf
def test_it_shows_what_the_agent_is_configured_with(show, monkeypatch):
    """Modules, options and events of the environment, where no module is named."""
    monkeypatch.setenv("CHAINBENCH_PROBES", "runqlat,exec")
    monkeypatch.setenv("CHAINBENCH_EVENTS", "true")
    text = show()

    assert text.startswith("// The BPF unit of chainbench-agent ")
    assert re.findall(r"^// ==== (\w+\.c)$", text, re.MULTILINE) == ["exec.c", "runqlat.c"]
    assert "BPF_RINGBUF_OUTPUT(" in text
