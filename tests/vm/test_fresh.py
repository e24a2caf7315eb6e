"""README's two commands in a new root file system of Debian, with nothing installed by hand.

The root file system has what README asks for and no more; kernel, processes and network are this machine's.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("fresh.sh")
SUITES = ("trixie",)
"""Debian 13; CI itself is Debian 12.  Others by CHAINBENCH_FRESH="bookworm trixie"."""
GIVEN = "apt,make,git,python3,ca-certificates"
SECONDS = 3600


def type_the_commands(name: str, results: Path) -> int:
    """The exit status of fresh.sh; what it printed is in `results`."""
    sys.path.append(str(REPO / "tests/deploy"))
    from test_image import pip_configuration

    private = ["unshare", "--mount", "--propagation", "private"]
    root = results / "root.tar"
    subprocess.run(
        [*private, "mmdebstrap", "--quiet", "--variant=apt", f"--include={GIVEN}", name, root],
        check=True, timeout=SECONDS, capture_output=True,
    )  # fmt: skip
    volumes = [option.removeprefix("--volume=").removesuffix(":ro") for option in pip_configuration(results)]
    subprocess.run(["git", "clone", "--quiet", REPO, results / "clone"], check=True)
    with (results / "output").open("wb") as output:
        return subprocess.run(
            [*private, "bash", SCRIPT, results, *volumes],
            check=False, timeout=SECONDS, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        ).returncode  # fmt: skip


@pytest.mark.fresh
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("name", os.environ.get("CHAINBENCH_FRESH", "").split() or SUITES)
def test_the_two_commands_of_readme_work(name, guests, tmp_path):
    """`make run` serves measured evidence, and `make test` passes: as root, and with skips as an ordinary user."""
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is missing: as root, `apt-get install mmdebstrap`.")
    for _, finished in guests.values():
        finished.exception()  # next to a guest, the tests would not have the processors that their measurements need
    status = type_the_commands(name, tmp_path)
    shutil.rmtree(tmp_path / "root")  # pytest would leave 3 GB of it behind
    output = (tmp_path / "output").read_text()

    assert status == 0, f"in a new {name}:\n{output[-20000:]}"
    assert re.search(r"^evidence: True ebpf \d+ execs$", output, re.MULTILINE), output
    by_root, by_user = re.findall(r"^.*\b(\d+ passed.*) in [\d.]+s", output, re.MULTILINE)
    assert not re.search("failed|error", by_root + by_user)
    reasons = set(re.findall(r"^SKIPPED \[\d+\] \S+ (.*)", output, re.MULTILINE))
    assert all(re.search(r"apt-get install|as root|boot a kernel|[Tt]his kernel", reason) for reason in reasons), (
        reasons
    )
