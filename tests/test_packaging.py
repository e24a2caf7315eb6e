import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")


class Wheel(NamedTuple):
    path: Path
    names: set[str]
    metadata: Message


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Built from a copy, as setuptools leaves its traces in the tree that it builds."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("chainbench_agent", "probes"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=NOT_SHIPPED)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", source],
        check=True,
    )
    (path,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        return Wheel(path, names, message_from_bytes(archive.read(metadata)))


def files(directory):
    """Every file below, but for what Python compiled."""
    found = (path for path in directory.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(directory) for path in found}


def test_every_file_is_in_the_wheel(wheel):
    """Files that are not Python, such as C and templates, are shipped without a list of them."""
    expected = {f"chainbench_agent/{path}" for path in files(ROOT / "chainbench_agent")}
    expected |= {f"chainbench_agent/probes/{path}" for path in files(ROOT / "probes")}

    assert {name for name in wheel.names if ".dist-info/" not in name} == expected


def test_the_wheel_is_typed(wheel):
    """Type checkers read the package's annotations (PEP 561)."""
    assert "chainbench_agent/py.typed" in wheel.names


def test_licences(wheel):
    """The agent is Apache-2.0, its probes GPL-2.0-only, and both texts ship."""
    info = next(name.split("/")[0] for name in wheel.names if ".dist-info/" in name)

    assert wheel.metadata["License-Expression"] == "Apache-2.0 AND GPL-2.0-only"
    assert wheel.metadata.get_all("License-File") == ["LICENSE", "probes/LICENSE"]
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/probes/LICENSE"} <= wheel.names
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "probes/LICENSE").read_text()


@pytest.mark.parametrize("path", sorted(ROOT.glob("probes/**/*.[ch]")), ids=lambda path: path.name)
def test_every_probe_names_its_licence(path):
    """The kernel asks each of its source files for an SPDX line, first of all."""
    assert path.read_text().splitlines()[0] == "// SPDX-License-Identifier: GPL-2.0-only"


def test_bcc_is_not_asked_of_pypi(wheel):
    """PyPI's `bcc` is another program; Debian's python3-bpfcc is ours."""
    assert not [need for need in wheel.metadata.get_all("Requires-Dist") if need.lower().startswith("bcc")]


def test_the_build_tool_is_pinned_once():
    """`make wheel` builds with the setuptools that pip would."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert set(project["build-system"]["requires"]) <= set(project["project"]["optional-dependencies"]["dev"])
