"""Boots a Debian kernel under QEMU, on this machine's own files.

By hand, to try something on another kernel; what follows `--` runs as root in the repository:

    .venv/bin/python tests/vm/guest.py 6.1 -- pytest -m bpf tests/kernel
    .venv/bin/python tests/vm/guest.py 6.1 -- bash -c 'uname -a; ls /sys/kernel/btf'

Its console is shown, and its exit status returned. In the guest are
- all files of this machine; what the guest changes stays with it, and what is changed here
  meanwhile may reach it or not; this repository and Python's own files are a copy, on disks,
- /results, shared with the host: a new directory in /tmp, which is not removed,
- /scratch, also TMPDIR: ext4 on a virtio disk, for true block I/O,
- two processors, 4 GB, loopback and no other network, no terminal and no udev.
Everything is emulated: the command starts after 6 to 8 s, and what needs 1 s here takes 10 to 20 s there.
"""

import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from debian_kernel import BINARIES, SERIES, obtain, release, run

REPO = Path(__file__).parents[2]
BOOT_SECONDS = 180  # 6 on an idle machine
ENDING = threading.Event()
"""Set when nobody waits for guests any more."""
COMMAND_SECONDS = int(os.environ.get("CHAINBENCH_VM_SECONDS") or 2400)


class GuestDied(Exception):  # noqa: N818 - a fact about the guest, not an error here
    """The guest did not end as it should; the sentence says what it did, and shows its console's end."""


def read_often() -> list[Path]:
    """Where Python looks for hundreds of small files at every start, most of whose time is 9p's."""
    found = {REPO, BINARIES.parent, *(Path(path) for path in sys.path if path.startswith("/") and Path(path).is_dir())}
    return sorted(path for path in found if found.isdisjoint(path.parents))


def disk_of(image: Path, directory: Path | None = None) -> Path:
    """An ext4 file system in `image`: a copy of a directory, or 1 GB of nothing."""
    sizes = [path.lstat().st_size for path in directory.rglob("*")] if directory else [1 << 29]
    with image.open("wb") as file:
        file.truncate((16 << 20) + 2 * sum(max(size, 4096) for size in sizes))  # sparse
    run("mke2fs", "-q", "-t", "ext4", "-i", "8192", *(("-d", directory) if directory else ()), image)
    return image


def disk(name: str, image: Path) -> list[str]:
    drive = f"if=none,id={name},file={image},format=raw,cache=unsafe"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}"]


def virtme(kernel: Path, results: Path, scratch: Path, copies: Mapping[Path, Path]) -> list[str]:
    # virtme-ng's CPU (max) is left as it is: nothing else measured was faster.
    # One thread of QEMU's for both processors: docs/decisions/0009-guests-in-one-thread.md.
    mounts = [f"copy{number}:{directory}" for number, directory in enumerate(copies)]
    guest = shlex.join(["bash", str(Path(__file__).with_name("guest.sh")), str(kernel), *mounts])
    host_files = "local,id=hostroot,path=/,security_model=none,readonly=on,multidevs=remap"
    return [
        f"{BINARIES}/virtme-run",
        *("--kimg", f"{kernel}/boot/vmlinuz-{release(kernel)}", "--mods", "auto"),
        *("--force-9p", "--disable-kvm", "--cpus", "2", "--memory", "4G"),
        *("--name", "localhost"),  # a name that the guest can resolve
        *("--overlay-rwdir", "/lib"),  # where virtme-ng's init shows the modules
        *("--show-boot-console", "--kopt", "loglevel=4", "--kopt", "oops=panic"),
        *("--script-sh", guest, "--qemu-opts"),  # and up to the end they are QEMU's own:
        *("-accel", "tcg,thread=single"),
        *("-global", "virtio-serial-pci.max_ports=2"),  # virtme-ng has six: QEMU would poll 64 queues of each
        *("-fsdev", host_files, "-device", "virtio-9p-pci,fsdev=hostroot,mount_tag=hostroot"),
        *("-fsdev", f"local,id=results,path={results},security_model=none"),
        *("-device", "virtio-9p-pci,fsdev=results,mount_tag=results"),
        *disk("scratch", scratch),
        *itertools.chain.from_iterable(disk(f"copy{number}", image) for number, image in enumerate(copies.values())),
    ]


@contextlib.contextmanager
def started(command: list[str], console: Path, show: BinaryIO | None) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in a process group that ends with the block; its output goes to the console file."""
    vm = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,  # not the file: QEMU would open it once more and write over its beginning
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    copier = threading.Thread(target=copy, args=(vm.stdout, console, show))
    copier.start()
    try:
        yield vm
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(vm.pid, signal.SIGKILL)
        vm.wait()
        copier.join()


def copy(output: BinaryIO, console: Path, show: BinaryIO | None) -> None:
    with output, console.open("wb", buffering=0) as file:
        for line in output:
            for target in filter(None, (file, show)):
                target.write(line.replace(b"\r", b""))
                target.flush()


def wait(vm: subprocess.Popen[bytes], results: Path) -> str:
    """Wait for the guest's end; return what it did instead, or an empty string."""
    start = time.monotonic()
    while vm.poll() is None:
        seconds = time.monotonic() - start
        if seconds > BOOT_SECONDS and not (results / "uname").exists():
            return f"did not boot in {BOOT_SECONDS} s"
        if ENDING.is_set():
            return "was not waited for"
        if seconds > COMMAND_SECONDS:
            return f"was still at work after {COMMAND_SECONDS} s (CHAINBENCH_VM_SECONDS)"
        time.sleep(0.1)
    return "" if (results / "status").exists() else "ended before its command did"


def boot(
    kernel: Path,
    results: Path,
    command: list[str],
    show: BinaryIO | None = None,
    more: Mapping[Path, Path] = MappingProxyType({}),
) -> int:
    """Run the command in a guest, which sees `results` as /results; return the command's exit status.

    `more`: where in the guest → a directory of this machine that it gets a copy of there.
    """
    script = f"cd {shlex.quote(str(REPO))}\nPATH={shlex.quote(str(BINARIES))}:$PATH\n{shlex.join(command)}\n"
    (results / "command").write_text(script)
    console = results / "console.log"
    with tempfile.TemporaryDirectory() as temporary:
        scratch = disk_of(Path(temporary) / "scratch.img")
        copies = {
            place: disk_of(Path(temporary) / f"copy{number}.img", directory)
            for number, (place, directory) in enumerate({**{path: path for path in read_often()}, **more}.items())
        }
        virtme_run = ["env", f"TMPDIR={temporary}", *virtme(kernel, results, scratch, copies)]  # it leaves files there
        with started(virtme_run, console, show) as vm:
            trouble = wait(vm, results)
    if trouble:
        raise GuestDied(f"The guest {trouble}. {tail(console)}")
    return int((results / "status").read_text())


def tail(console: Path, lines: int = 40) -> str:
    text = console.read_text(errors="replace").splitlines()
    return "\n".join(["The end of its console:", *text[-lines:]])


def main() -> int | str:
    match sys.argv[1:]:
        case [name, "--", *command] if name in SERIES and command:
            results = Path(tempfile.mkdtemp(prefix="chainbench-vm-"))
            status = boot(obtain(name), results, command, show=sys.stdout.buffer)
            sys.stdout.write(f"Exit status {status}; results are in {results}.\n")
            return status
    return f"usage: {sys.argv[0]} {'|'.join(SERIES)} -- COMMAND..."


if __name__ == "__main__":
    sys.exit(main())
