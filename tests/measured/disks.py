"""A loop device as a disk for one test."""

import subprocess
from pathlib import Path

from packages import require

MIB = 1 << 20


def sh(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Disk:
    """A loop device.  Its requests also show on the disk below it, as those of a kernel thread."""

    def __init__(self, file, size=32 * MIB):
        with file.open("wb") as image:
            image.write(bytes(size))
        self.path = sh(str(require("losetup")), "--find", "--show", str(file))
        self.name = Path(self.path).name
        self.sysfs = Path("/sys/block", self.name)

    def stat(self):
        """The kernel's counters: Documentation/block/stat.rst."""
        fields = list(map(int, (self.sysfs / "stat").read_text().split()))
        names = {"reads": 0, "read_sectors": 2, "writes": 4, "write_sectors": 6, "discards": 11, "discard_sectors": 13}
        return {name: fields[i] for name, i in names.items()} | {"flushes": fields[15]}

    def in_flight(self):
        return sum(map(int, (self.sysfs / "inflight").read_text().split()))

    def use(self, scheduler):
        """Selects a scheduler; False if this kernel does not offer it."""
        subprocess.run([require("modprobe"), "-q", scheduler], check=False)
        offered = (self.sysfs / "queue/scheduler").read_text().replace("[", "").replace("]", "").split()
        if scheduler in offered:
            (self.sysfs / "queue/scheduler").write_text(scheduler)
        return scheduler in offered

    def close(self):
        self.use("none")
        sh("losetup", "--detach", self.path)


def during(disk, run):
    """The evidence of `run()`, the part of it for this disk, and the requests that the disk counted meanwhile."""
    before = disk.stat()
    evidence = run()
    counted = {name: count - before[name] for name, count in disk.stat().items()}
    found = [device for device in evidence["biolatency"]["by_device"] if device["device"] == disk.name]
    return evidence, found[0] if found else None, counted
