"""Debian's kernels, fetched with apt from the mirrors that this machine uses anyway.

A kernel is unpacked below ~/.cache/chainbench/vm (or CHAINBENCH_VM_CACHE), and looked for only once:
to get a newer one, remove its directory there. Nothing of the machine's own is changed.
"""

import fcntl
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

CACHE = Path(os.environ.get("CHAINBENCH_VM_CACHE") or Path.home() / ".cache/chainbench/vm")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
BINARIES = Path(sys.executable).parent  # of the virtual environment


class Series(NamedTuple):
    suite: str
    image: str
    """Regular expression for the name of the package with the kernel; the one with the highest numbers is taken."""
    rest: tuple[str, ...] = ()
    """Prefixes of the other packages that this kernel consists of; the rest of their names is the image's."""
    security: bool = True
    """Whether there is another suite with security updates for it."""


SERIES = {
    "5.10": Series("bullseye", r"linux-image-5\.10\.0-\d+-amd64"),
    "6.1": Series("bookworm", r"linux-image-6\.1\.0-\d+-amd64"),
    "6.12": Series("trixie", r"linux-image-6\.12\.\d+\+deb13-amd64"),
    # Unstable moves on: when its mirrors have a newer kernel only, enter its number here and run `make support`.
    "7.2": Series(
        "sid", r"linux-binary-7\.2\.\d+\+deb14-amd64", rest=("linux-base-", "linux-modules-"), security=False
    ),
}

NEEDED = {
    "apt-get": "apt",
    "depmod": "kmod",
    "dpkg": "dpkg",
    "busybox": "busybox-static",
    "file": "file",
    "mke2fs": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86",
}


class Unavailable(Exception):  # noqa: N818 - it is a fact about this machine, not an error
    """A kernel cannot be had or booted on this machine; the sentence says what would change that."""


def require_tools() -> None:
    if platform.machine() != "x86_64":
        raise Unavailable(f"Debian's amd64 kernels are booted on x86-64 only, this is {platform.machine()}.")
    packages = [package for tool, package in NEEDED.items() if not tool_path(tool)]
    if packages:
        raise Unavailable(f"To boot a kernel, `apt-get install {' '.join(packages)}` is needed, as root.")
    if not (BINARIES / "virtme-run").exists():
        raise Unavailable(f"virtme-ng is not installed beside {sys.executable}: run `make setup`.")


def tool_path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def sources(targets: Iterable[str], codename: str, suite: str, *, security: bool = True) -> str:
    """Turn the targets 'URI suite component' of this machine, which is a `codename`, into another suite's."""
    own = {codename: suite} | ({f"{codename}-security": f"{suite}-security"} if security else {})
    wanted = {
        (uri, own[theirs])
        for uri, theirs, component in (target.split() for target in targets)
        if component == "main" and theirs in own and "debian" in uri
    }
    if not wanted or not KEYRING.exists():
        raise Unavailable("Debian's kernels come from a Debian mirror, and apt has none configured here.")
    return "\n".join(f"deb [arch=amd64 signed-by={KEYRING}] {uri} {name} main" for uri, name in sorted(wanted))


def newest(packages: Iterable[str], image: str) -> str:
    matching = [package for package in packages if re.fullmatch(image, package)]
    if not matching:
        raise Unavailable(f"The mirror has no package whose name matches {image}.")
    return max(matching, key=lambda package: [int(digits) for digits in re.findall(r"\d+", package)])


def packages_of(series: Series, image: str) -> list[str]:
    """Returns the names of the image's package and of the others that this kernel consists of."""
    version = re.sub(r"^linux-[a-z]+-", "", image)
    return [image, *(f"{prefix}{version}" for prefix in series.rest)]


def run(tool: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    command = [tool_path(tool) or tool, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"`{shlex.join(command)}` failed:\n{done.stderr.strip()}")
    return done.stdout


def download(series: Series, world: Path) -> list[Path]:
    """Fetch the kernel with lists, cache and sources of its own, so that the machine's stay as they are."""
    listing = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)")
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    for directory in ("lists/partial", "cache/archives/partial"):
        (world / directory).mkdir(parents=True)
    listed = sources(listing.splitlines(), codename, series.suite, security=series.security)
    (world / "debian.list").write_text(listed)
    settings = {
        "Dir::Etc::sourcelist": world / "debian.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": world / "lists",
        "Dir::Cache": world / "cache",
        "APT::Sandbox::User": "root",  # user _apt may not write here
        "APT::Update::Error-Mode": "any",
    }
    options = [f"--option={name}={value}" for name, value in settings.items()]
    run("apt-get", *options, "-qq", "update")
    image = newest(run("apt-cache", *options, "pkgnames", "linux-").split(), series.image)
    run("apt-get", *options, "-qq", "download", *packages_of(series, image), cwd=world)
    return list(world.glob("*.deb"))


def arrange(unpacked: Path) -> None:
    """Put what the packages have where a kernel's files were at all times: boot/ and lib/modules/."""
    if not (unpacked / "lib").exists():  # Debian's packages use /usr/lib since trixie
        (unpacked / "lib").symlink_to("usr/lib")
    (unpacked / "boot").mkdir(exist_ok=True)
    for modules in unpacked.glob("lib/modules/*"):  # since forky the kernel and its configuration lie there
        for name in ("vmlinuz", "config"):
            if (modules / name).exists():
                shutil.copy(modules / name, unpacked / "boot" / f"{name}-{modules.name}")


def obtain(name: str) -> Path:
    """Return the directory with the kernel's boot/ and lib/modules/, unpacked at the first call."""
    require_tools()
    kernel = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kernel.exists():
            packages = download(SERIES[name], Path(temporary))
            unpacked = Path(temporary) / "unpacked"
            for package in packages:
                run("dpkg", "-x", package, unpacked)
            arrange(unpacked)
            run("depmod", "--basedir", unpacked, release(unpacked))
            unpacked.rename(kernel)
    return kernel


def release(kernel: Path) -> str:
    """Return what `uname -r` will say."""
    return next(kernel.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
