"""Only probes and declarations know a module, or a map of one, by name: what is generic works for any module."""

import ast
import re
from pathlib import Path

import pytest

import chainbench_agent
from chainbench_agent.probes import CATALOG

PACKAGE = Path(chainbench_agent.__file__).parent
DECLARATIONS = ("probes", "catalog")

MODULES = {module.name for module in CATALOG} | {module.section_key for module in CATALOG}
MAPS = {f"{module.name}_{name}" for module in CATALOG for name in module.own_maps}
ANY = "|".join(sorted(MODULES))
NAMED = re.compile(rf"({ANY})([.:]\w.*)?|.*\bmodules? ({ANY})\b.*", re.DOTALL)
IMPORTED = re.compile(rf"chainbench_agent\.probes\.({ANY})(\..*)?")

ALLOWED = {
    ("collector/fake.py", r"exec|runqlat|cpu"): "a collector for tests, with a made-up status",
    (
        "export/formats/as_table.py",
        r"exec|cpu|runqlat|biolatency|syscalls",
    ): "the few figures that a newcomer looks for",
    ("settings/__init__.py", r"syscalls:errors"): "what --syscall-errors stands for",
    ("kernel/reading/proc_counters.py", r"cpu"): "a line of /proc/stat begins with it",
    ("kernel/targets/cpu_quotas.py", r"cpu(\.max|\.cfs_quota_us|\.stat)?"): "a controller of cgroups, and its files",
    ("evidence/cross_check.py", r"cpu\.stat"): "a file of that controller",
    (
        "compare/support.py",
        r"\w+(\.\w+)?",
    ): "the figures that may explain a line of the ledger, fixed before anything is compared",
    (
        "compare/formats/chainbench.py",
        r"biolatency|exec|offcpu|runqlat|syscalls?\w*",
    ): "the sections that readers of report.json expect",
}
"""(file, what it names) → why it is no module's name, or why it has to be there."""


def names_in(text):
    """Every module and map that a file names: by an import, or in a string that is no docstring."""
    tree = ast.parse(text)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported = (IMPORTED.fullmatch(f"{node.module}.{alias.name}") for alias in node.names)
            yield from (match[1] for match in imported if match)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield from [node.value] if node.value in MAPS or NAMED.fullmatch(node.value) else []


def found():
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        if not file.startswith(DECLARATIONS):
            yield from ((file, name) for name in names_in(path.read_text()))


def allows(exception, file, name):
    return exception[0] == file and re.fullmatch(exception[1], name)


def test_no_module_is_known_by_name():
    """A new module touches nothing outside of its own files."""
    unknown = {named for named in found() if not any(allows(exception, *named) for exception in ALLOWED)}
    assert unknown == set()


@pytest.mark.parametrize("exception", ALLOWED, ids=lambda exception: exception[0])
def test_every_exception_is_needed(exception):
    assert any(allows(exception, *named) for named in found())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('maps["offcpu_stacks"]', ["offcpu_stacks"]),
        ('sections.get("locks", {})', ["locks"]),
        ('check("memory.page_allocs")', ["memory.page_allocs"]),
        ('WHY = "this is known by the module offcpu only"', ["this is known by the module offcpu only"]),
        ("from chainbench_agent.probes.memory import COUNTERS", ["memory"]),
        ("from chainbench_agent.probes import cpu", ["cpu"]),
        ("from chainbench_agent.probes import CATALOG", []),
        ('"""What the module offcpu has."""\nx = 1\n"""As offcpu."""', []),
        ('text = "memory and locks"', []),
    ],
)
def test_a_name_is_found(text, names):
    """In each way in which code can know one."""
    assert list(names_in(text)) == names
