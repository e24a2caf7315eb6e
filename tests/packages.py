"""The programs that tests start, and the Debian packages that have them.

`make test` installs what is missing where apt may (scripts/setup).  A test says what it needs by
`@pytest.mark.needs("fio")`, and is skipped with the remedy where that is missing (tests/conftest.py).
"""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

PACKAGES = {
    "bindfs": "bindfs",
    "cc": "gcc libc6-dev",
    "curl": "curl",
    "fio": "fio",
    "initdb": "postgresql",
    "iperf3": "iperf3",
    "losetup": "mount",
    "mke2fs": "e2fsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.xfs": "xfsprogs",
    "modprobe": "kmod",
    "mount": "mount",
    "openssl": "openssl",
    "promtool": "prometheus",
    "ps": "procps",
    "ss": "iproute2",
    "strace": "strace",
    "systemd-analyze": "systemd",
}


def find(program: str) -> Path | None:
    """The path of a program; None where it is not installed."""
    directories = [*os.environ.get("PATH", os.defpath).split(":"), "/usr/sbin", "/sbin"]  # a user's PATH lacks these
    directories += map(str, Path("/usr/lib/postgresql").glob("*/bin"))  # no PATH has this
    found = shutil.which(program, path=":".join(directories))
    # A link to initdb is resolved, as PostgreSQL's other programs are where it leads to.  Other links are not: kmod's
    # programs are links to one file, which acts by the name that it is called by.
    return Path(found).resolve() if found and program == "initdb" else Path(found) if found else None


def packages_of(programs: Iterable[str]) -> list[str]:
    """The packages of those programs that are not installed."""
    packages = (PACKAGES[program].split() for program in programs if not find(program))
    return list(dict.fromkeys(package for several in packages for package in several))


def remedy(*programs: str) -> str:
    """The sentence that says how to install those programs; empty where all are installed."""
    packages = packages_of(programs)
    missing = ", ".join(program for program in programs if not find(program))
    return f"{missing} is missing: as root, `apt-get install {' '.join(packages)}`." if packages else ""


def require(program: str) -> Path:
    """The path of a program; a test that lacks it is skipped, with the remedy."""
    import pytest

    return find(program) or pytest.skip(remedy(program))


if __name__ == "__main__":  # scripts/setup asks
    sys.stdout.writelines(f"{package}\n" for package in packages_of(PACKAGES))
