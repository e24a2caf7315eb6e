"""The names that indexes have on this host."""

import os

import pytest

from chainbench_agent.kernel.reading import index_names

# Captured: a virtual machine with two CPUs (x86-64), and a small board (arm64).
INTERRUPTS_X86 = """\
           CPU0       CPU1
  0:        127          0  IR-IO-APIC    2-edge      timer
  8:          0          1   IO-APIC   8-edge      rtc0
 16:         12          0   IO-APIC  16-fasteoi   ehci_hcd:usb1, i801_smbus
 24:          0      31337  PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0
 25:          0          0  PCI-MSIX-0000:00:03.0   2-edge      virtio2-output.0
NMI:          0          0   Non-maskable interrupts
LOC:     812345     745210   Local timer interrupts
ERR:          0
"""
INTERRUPTS_ARM64 = """\
           CPU0       CPU1       CPU2       CPU3
 11:    1482211    1394010    1389722    1377801     GICv2  30 Level     arch_timer
 14:       2151          0          0          0     GICv2  65 Level     fe00b880.mailbox
IPI0:     27160      41022      39817      36455       Rescheduling interrupts
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            INTERRUPTS_X86,
            {
                0: "0:timer",
                8: "8:rtc0",
                16: "16:i801_smbus",
                24: "24:virtio2-input.0",
                25: "25:virtio2-output.0",
            },
        ),
        (INTERRUPTS_ARM64, {11: "11:arch_timer", 14: "14:fe00b880.mailbox"}),
        ("", {}),
    ],
    ids=["x86", "arm64", "empty"],
)
def test_interrupts(monkeypatch, tmp_path, text, found):
    """Number and device; lines that are no device's are left out."""
    (tmp_path / "interrupts").write_text(text)
    monkeypatch.setattr(index_names, "INTERRUPTS", tmp_path / "interrupts")

    assert index_names.interrupts() == found


def test_cstates(monkeypatch, tmp_path):
    """As the driver calls them."""
    for number, name in enumerate(("POLL", "C1", "C1E", "C6")):
        (tmp_path / f"state{number}").mkdir()
        (tmp_path / f"state{number}" / "name").write_text(f"{name}\n")
    monkeypatch.setattr(index_names, "CPUIDLE", tmp_path)

    assert index_names.cstates() == {0: "POLL", 1: "C1", 2: "C1E", 3: "C6", index_names.UNKNOWN_STATE: "unknown"}


def test_cstates_without_a_driver(monkeypatch, tmp_path):
    """The two that the kernel's own idle loop reports."""
    monkeypatch.setattr(index_names, "CPUIDLE", tmp_path / "none")

    assert index_names.cstates() == {0: "POLL", 1: "idle", index_names.UNKNOWN_STATE: "unknown"}


@pytest.fixture
def disks(tmp_path, monkeypatch):
    """`disks({"8:0": "sda"}, sda="[none] bfq")` makes what /sys/dev/block shows."""
    links = tmp_path / "dev"
    links.mkdir()
    monkeypatch.setattr(index_names, "BLOCK_DEVICES", links)

    def make(numbers, **schedulers):
        for number, name in numbers.items():
            queue = tmp_path / "devices" / name / "queue"
            queue.mkdir(parents=True)
            (links / number).symlink_to(f"../devices/{name}")
            if name in schedulers:
                (queue / "scheduler").write_text(schedulers[name] + "\n")

    return make


def test_block_devices(disks):
    """By number, as the kernel writes it in 12 and 20 bits; a slash cannot stand in a file's name."""
    disks({"8:0": "sda", "8:16": "sdb", "259:300": "nvme0n1", "104:0": "cciss!c0d0", "7:1048575": "loop9"})

    assert index_names.block_devices() == {
        0x800000: "sda",
        0x800010: "sdb",
        0x1030012C: "nvme0n1",
        0x6800000: "cciss/c0d0",
        0x7FFFFF: "loop9",
    }


def test_schedulers(disks):
    """The one in brackets, or the only one; a partition has none."""
    disks(
        {"8:0": "sda", "8:1": "sda1", "8:16": "sdb", "8:32": "sdc"},
        sda="none [mq-deadline] kyber",
        sdb="[none] ",
        sdc="none",
    )

    assert index_names.schedulers() == {0x800000: "mq-deadline", 0x800010: "none", 0x800020: "none"}


def test_without_block_devices(disks):
    """Nothing, not an error."""
    disks({})
    assert index_names.block_devices() == index_names.schedulers() == {}


def test_all_tables(monkeypatch):
    """Names of this machine's system calls, and i386's for 32-bit programs."""
    monkeypatch.setattr(os, "uname", lambda: type("Uname", (), {"machine": "aarch64"}))

    found = index_names.tables()

    assert found["calls"][98] == found["calls_32bit"][240] == "futex"
    assert found["softirqs"][3] == "NET_RX"
