"""Owners of requests that another layer submits again, and disks that take bios, compared with the disks' counters."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from disks import MIB, Disk, during, sh

pytestmark = pytest.mark.bpf

CGROUPS = Path("/sys/fs/cgroup")
SETUP = """
import fcntl, mmap, os, struct
fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT)
buffer = memoryview(mmap.mmap(-1, 1 << 20))
def read(size, at): assert os.preadv(fd, [buffer[:size]], at) == size
def write(size, at): assert os.pwritev(fd, [buffer[:size]], at) == size
def discard(size, at): fcntl.ioctl(fd, 0x1277, struct.pack("QQ", at, size))
"""


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.close()


@pytest.fixture
def small_io_group(disk):
    """The code with which a process joins a cgroup that may read 20 times a second from the disk."""
    number = Path(disk.path).stat().st_rdev
    number = f"{os.major(number)}:{os.minor(number)}"
    v1 = CGROUPS / "blkio"
    group = (v1 if v1.is_dir() else CGROUPS) / "chainbench-test-io"
    group.mkdir()
    if v1.is_dir():
        (group / "blkio.throttle.read_iops_device").write_text(f"{number} 20")
    else:
        with contextlib.suppress(OSError):  # it is on already
            (CGROUPS / "cgroup.subtree_control").write_text("+io")
        (group / "io.max").write_text(f"{number} riops=20")
    yield f"open('{group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
    group.rmdir()


class Zram(Disk):
    """A disk of compressed memory, which takes bios."""

    CONTROL = Path("/sys/class/zram-control")

    def __init__(self, size=32 * MIB):
        subprocess.run(["modprobe", "-q", "zram"], check=False)
        self.number = (self.CONTROL / "hot_add").read_text().strip()
        self.name = f"zram{self.number}"
        self.path = f"/dev/{self.name}"
        self.sysfs = Path("/sys/block", self.name)
        (self.sysfs / "disksize").write_text(str(size))

    def close(self):
        (self.CONTROL / "hot_remove").write_text(self.number)


@pytest.fixture
def zram():
    disk = Zram()
    yield disk
    disk.close()


READS = "for i in range(23): read(4096, i * 4096)"


def test_requests_that_a_limit_held_back(small_io_group, targeted, disk):
    """A kernel thread submits them, in the name of the target's cgroup: all 23 are the target's, and its process's."""
    one = targeted(READS, SETUP.format(path=disk.path) + small_io_group)
    evidence, device, counted = during(disk, one.run)

    assert device["count"] == device["reads"] == counted["reads"] == 23
    assert 0 < evidence["biolatency"]["attributed_by_cgroup"] <= 23
    (mine,) = (p for p in evidence["biolatency"]["top_processes"] if p["pid"] == one.process.pid)
    assert mine["requests"] == evidence["biolatency"]["count"]


def test_a_limit_that_others_share(small_io_group, targeted, disk):
    """A cgroup with somebody else in it does not tell: what a kernel thread submitted is unattributed, and says why."""
    setup = SETUP.format(path=disk.path) + small_io_group
    targeted("", setup)
    evidence, device, counted = during(disk, targeted(READS, setup).run)
    held_back = evidence["biolatency"]["unattributed_by_cause"]["shared_cgroup"]

    assert counted["reads"] == 23 == held_back + (device["count"] if device else 0)
    assert evidence["biolatency"]["attributed_by_cgroup"] == 0


@pytest.mark.usefixtures("noise")
def test_a_disk_that_takes_bios(targeted, zram):
    """53 writes, 23 reads of another size and 3 discards: as many bios, in the sums and with a depth of their own."""
    code = "for i in range(53): write(4096, i * 4096)\nfor i in range(23): read(8192, i * 8192)\n"
    code += "for i in range(3): discard(1 << 20, i << 20)"
    evidence, device, counted = during(zram, targeted(code, SETUP.format(path=zram.path)).run)
    whole = evidence["biolatency"]

    assert (counted["writes"], counted["reads"]) == (53, 23)  # it counts no discards
    assert (device["writes"], device["reads"], device["discards"], device["count"]) == (53, 23, 3, 79)
    assert device["bytes"] == device["read_bytes"] + device["write_bytes"] == 53 * 4096 + 23 * 8192
    assert device["discard_bytes"] == 3 * MIB
    assert (whole["count"], whole["bytes"], whole["discard_bytes"]) == (79, device["bytes"], 3 * MIB)
    assert "counted_below" not in device
    assert next(queue["max"] for queue in evidence["io"]["queue_depth"] if queue["device"] == zram.name) == 1
    assert "keys_full" not in evidence["loss"]["causes"]


def test_every_bio_of_the_machine(measure, python, zram):
    """Without a target as well."""
    code = SETUP.format(path=zram.path) + "for i in range(19): write(4096, i * 4096)"
    _, device, counted = during(zram, lambda: measure(lambda: python(code)))

    assert device["writes"] == counted["writes"] == 19
    assert device["count"] == counted["writes"] + counted["reads"]


def test_no_disk_is_unseen(targeted, disk, zram):
    """Both were at work, and both were seen."""
    code = "".join(SETUP.format(path=path) + "write(4096, 0)\n" for path in (disk.path, zram.path))
    evidence = targeted(code).run()

    assert not {disk.name, zram.name} & {found["device"] for found in evidence["biolatency"]["unseen_devices"]}


def mapped(kind, below):
    """A device mapper's disk: (its name, how it goes away)."""
    table = {
        "linear": f"linear {below} 0",
        "delay": f"delay {below} 0 3",
        "crypt": f"crypt aes-xts-plain64 {'00' * 64} 0 {below} 0",
    }[kind]
    name = f"chainbench-{kind}"
    subprocess.run(["modprobe", "-q", f"dm-{kind}"], check=False)
    sh("dmsetup", "create", name, "--noudevsync", "--table", f"0 65536 {table}")
    sh("dmsetup", "mknodes", name)
    return name


def device_mappers():
    """The device mappers that this kernel supports; without device mapper there are none."""
    subprocess.run(["modprobe", "-q", "dm_mod"], check=False)
    return ["linear", "delay", "crypt"] if Path("/sys/class/misc/device-mapper").exists() else []


if MAPPERS := device_mappers():

    @pytest.mark.parametrize("kind", MAPPERS)
    def test_a_disk_on_another(targeted, disk, kind):
        """Requests that pass through the threads of a device mapper belong to the target, and are counted once.

        Before v5.18 dm-crypt does not tell whose the encrypted
        pages are that it writes: these are unattributed then.
        """
        name = mapped(kind, disk.path)
        try:
            code = "for i in range(53): write(4096, i * 4096)\nfor i in range(23): read(8192, i * 8192)"
            evidence, below, counted = during(disk, targeted(code, SETUP.format(path=f"/dev/mapper/{name}")).run)
        finally:
            sh("dmsetup", "remove", "--noudevsync", name)
        (above,) = (d for d in evidence["biolatency"]["by_device"] if d["device"].startswith("dm-"))

        assert (above["writes"], above["reads"], above["counted_below"], above["stacked_on"]) == (53, 23, 76, disk.name)
        assert (below["reads"], counted["reads"], counted["writes"]) == (23, 23, 53)
        assert below["writes"] + evidence["biolatency"]["unattributed_by_cause"].get("other_kernel_thread", 0) >= 53
        assert below["writes"] == 53 or kind == "crypt"
        assert evidence["biolatency"]["count"] == below["count"]
