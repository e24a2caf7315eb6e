"""Imports only point down: the picture of the architecture, as a test."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import chainbench_agent

PACKAGE = Path(chainbench_agent.__file__).parent

ROWS = (
    ({"client"}, {"abi", "catalog", "errors", "settings", "logs"}),
    ({"probes"},),
    ({"evidence"}, {"host"}),
    ({"model"},),
    ({"headers"}, {"bpf"}),
    ({"loading"},),
    ({"symbols"},),
    ({"kernel"}, {"export"}, {"store"}, {"compare"}),
    ({"collector"},),
    ({"runs"},),
    ({"agent"}, {"web"}),
    ({"server"},),
    ({"commands", "__main__"},),
)
"""From the bottom up.  Packages of one set may import each other; sets side by side do not know each other."""

NEVER = {
    "web": {"kernel", "store", "collector", "bpf", "loading", "headers", "symbols"},
    "runs": {"kernel", "bpf", "headers", "symbols"},
    "loading": {"evidence"},
}
"""Rows below that a package does not reach through to: what it needs of them is in `model`, or is passed to it."""

LONGEST_FILE = 250
LONGEST_FUNCTION = 40
TOO_LONG = frozenset()
"""Allowed exceptions: "loading/unit_text.py" or "loading/unit_text.py:fuse"."""

IMPURE = {
    "asyncio",
    "ctypes",
    "io",
    "logging",
    "mmap",
    "os",
    "pathlib",
    "random",
    "socket",
    "subprocess",
    "sys",
    "time",
}


def files(package):
    """(path as in the package, its box), without what setuptools or Python left."""
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if inside.name != "__init__.py" or len(inside.parts) > 1:
            yield path, inside.as_posix(), inside.parts[0].removesuffix(".py")


def imports(path, package="chainbench_agent"):
    """Every module that a file imports, anywhere in it: `from package import x` is package.x."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide where they point"
            yield from (f"{node.module}.{a.name}" for a in node.names) if node.module == package else (node.module,)


def place(box):
    """(row, set within the row); above all where the picture does not know it."""
    places = ((row, i) for row, sets in enumerate(ROWS) for i, boxes in enumerate(sets) if box in boxes)
    return next(places, (len(ROWS), 0))


def violations(package):
    """Each import that points up, sideways or where it must never, and each of bcc outside the compiler."""
    found = []
    for path, inside, box in files(package):
        for imported in imports(path):
            top, *rest = imported.split(".")
            if top == "bcc" and inside != "loading/compiler.py":
                found.append(f"{inside} imports bcc")
            if top != "chainbench_agent" or not rest:
                continue
            (row, here), (target, there) = place(box), place(rest[0])
            if target > row:
                found.append(f"{inside} imports {rest[0]} from above")
            elif target == row and here != there:
                found.append(f"{inside} imports {rest[0]} from beside")
            elif rest[0] in NEVER.get(box, ()):
                found.append(f"{inside} imports {rest[0]}, which {box} must not know")
    return found


def too_long(package):
    """Files, and functions by "file:name"."""
    found = set()
    for path, inside, _ in files(package):
        text = path.read_text()
        if len(text.splitlines()) > LONGEST_FILE:
            found.add(inside)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                found |= {f"{inside}:{node.name}"} if lines > LONGEST_FUNCTION else set()
    return found


def test_every_file_has_a_place():
    """A new file or directory must be put into the picture."""
    known = {box for row in ROWS for boxes in row for box in boxes}
    assert {box for _, _, box in files(PACKAGE)} <= known


def test_imports_point_down():
    """Also in functions, and under TYPE_CHECKING."""
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("evidence/build.py", "from chainbench_agent.kernel import libbpf", "imports kernel from above"),
        ("catalog/x.py", "import chainbench_agent.runs.lifecycle", "imports runs from above"),
        ("errors.py", "from chainbench_agent import web", "imports web from above"),
        ("client/x.py", "from chainbench_agent.errors import AgentError", "imports errors from beside"),
        ("runs/x.py", "def f():\n    from chainbench_agent.web.app import create_app", "imports web from above"),
        ("kernel/machine.py", "from chainbench_agent.export.series import x", "imports export from beside"),
        ("export/series.py", "from chainbench_agent.kernel import names", "imports kernel from beside"),
        ("kernel/machine.py", "import bcc", "imports bcc"),
        ("loading/bpf_unit.py", "from chainbench_agent.kernel import names", "imports kernel from above"),
        ("collector/ebpf.py", "def f():\n    from bcc.table import x", "imports bcc"),
        ("web/x.py", "from chainbench_agent.store.base import x", "imports store, which web must not know"),
        ("runs/x.py", "from chainbench_agent.kernel import x", "imports kernel, which runs must not know"),
        (
            "loading/x.py",
            "def f():\n    import chainbench_agent.evidence.x",
            "imports evidence, which loading must not know",
        ),
    ],
)
def test_a_violation_is_found(tmp_path, file, line, complaint):
    """Upward, sideways, bcc elsewhere: however it is written."""
    planted = tmp_path / file
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(line)

    assert violations(tmp_path) == [f"{file} {complaint}"]


def test_what_points_down_is_no_violation(tmp_path):
    """Neighbours in one box, rows below, and bcc in the compiler."""
    (tmp_path / "loading").mkdir()
    (tmp_path / "loading" / "compiler.py").write_text(
        "from bcc import BPF\nfrom chainbench_agent.bpf import libbpf\nfrom chainbench_agent.probes import CATALOG\n"
    )
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "lifecycle.py").write_text(
        "from chainbench_agent.runs.remembered import RememberedLabels\nimport chainbench_agent.evidence.model\n"
    )

    assert violations(tmp_path) == []


def test_bcc_is_imported_only_by_the_child():
    """Whoever imports the compiler's file, as the daemon does, has not imported bcc: that stands in a function."""
    compiler = ast.parse((PACKAGE / "loading/compiler.py").read_text())
    top = [ast.unparse(node) for node in compiler.body if isinstance(node, ast.Import | ast.ImportFrom)]

    assert not [line for line in top if "bcc" in line]
    assert "bcc" in set(imports(PACKAGE / "loading/compiler.py"))


def test_the_daemon_runs_without_bcc():
    """Every module of the package imported, and no LLVM in memory."""
    modules = [
        "chainbench_agent." + inside.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for _, inside, box in files(PACKAGE)
        if box != "__main__"
    ]
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\nprint('bcc' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


@pytest.mark.parametrize("box", ["abi", "catalog", "probes", "evidence", "model", "compare"])
def test_the_pure_rows_do_nothing(box):
    """No clock, no files, no processes: what they answer depends on what they are given."""
    used = {
        f"{inside}: {imported}"
        for path, inside, found in files(PACKAGE)
        for imported in imports(path)
        if found == box and imported.split(".")[0] in IMPURE
    }
    harmless = {"probes/__init__.py: pathlib", "abi/kernel_text.py: os"}  # os.fsencode

    assert used - harmless == set()


def test_files_and_functions_stay_short():
    """250 and 40 lines."""
    assert too_long(PACKAGE) == TOO_LONG


def test_a_long_one_is_found(tmp_path):
    (tmp_path / "errors.py").write_text("x = 1\n" * 251)
    (tmp_path / "runs.py").write_text("class A:\n    def f(self):\n" + "        x = 1\n" * 40)

    assert too_long(tmp_path) == {"errors.py", "runs.py:f"}
