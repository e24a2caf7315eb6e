"""Memory of a target on a busy machine, compared with getrusage, /proc/vmstat and known sizes."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from emulation import EMULATED
from workloads import TOUCH, eater

from chainbench_agent.bpf.perf_events import HARDWARE, SOFTWARE, online_cpus
from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.loading import pmu_events
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.probes import HOOKS, cpu, memory

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("noise")]


def faults(one, run):
    """`run()`, and how many faults getrusage says the process took meanwhile: (minor, major)."""
    before = Path(f"/proc/{one.process.pid}/stat").read_text().rpartition(")")[2].split()
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    evidence = run()
    all_ = resource.getrusage(resource.RUSAGE_CHILDREN)
    return evidence, (
        all_.ru_minflt - others.ru_minflt - int(before[7]),
        all_.ru_majflt - others.ru_majflt - int(before[9]),
    )


def test_page_faults_are_those_of_getrusage(targeted, tmp_path):
    """16,381 new pages and 503 pages from the disk."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(503 * 4096))
    code = f"""
import os
{TOUCH}
fd = os.open({str(path)!r}, os.O_RDONLY)
os.fsync(fd)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
file = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
file.madvise(mmap.MADV_RANDOM)
for i in range(503): file[i * 4096]
touch(16381)
"""
    one = targeted(code)

    evidence, (minor, major) = faults(one, one.run)

    found = evidence["memory"]
    assert (found["page_faults_minor"], found["page_faults_major"]) == (minor, major)
    assert minor >= 16381
    assert major >= 503
    process = found["top_processes"][0]
    assert process["pid"] == one.process.pid
    assert (process["page_faults_minor"], process["page_faults_major"]) == (minor, major)


def test_kernel_memory(targeted):
    """1,009 new rings for a pipe, of 32 and of 16 buffers of 40 bytes in turn: each is got once, and one is freed.

    When a slab is new, the kernel gets memory to note in whom its objects are charged to: then both are done again.
    """
    code = "for i in range({}): fcntl.fcntl(0, 1031, 65536 << (1 - i % 2))\nos._exit(0)"
    expected = {"kmalloc_count": 1009, "kmalloc_bytes": 505 * 32 * 40 + 504 * 16 * 40, "kfree_count": 1009}
    for _ in range(11):
        nothing, rings = (targeted(code.format(n), "import fcntl, os").run()["memory"] for n in (0, 1009))
        grown = {key: rings[key] - nothing[key] for key in expected}
        if grown == expected:
            break

    assert grown == expected


def test_pages(targeted):
    """16,381 pages touched are as many allocated, and the page tables for them.

    To unmap them, the kernel takes up to 19 pages to note them in (MAX_GATHER_BATCH_COUNT); the slabs grow a little.
    """
    code = TOUCH + (
        "def tables(): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmPTE'))\n"
        "before = tables(); m = touch({}); print((tables() - before) // 4)"
    )
    none, some = targeted(code.format(1)), targeted(code.format(16381 + 1))

    evidences = some.run(), none.run()
    grown = evidences[0]["memory"]["page_allocs"] - evidences[1]["memory"]["page_allocs"]
    tables = int(some.output) - int(none.output)
    skipped = sum(evidence["loss"]["causes"].get("programs_skipped", 0) for evidence in evidences)  # on kernel 7.2

    assert -skipped <= grown - 16381 - tables <= 19 + 13 + skipped


def test_pages_of_the_machine_are_almost_those_of_vmstat(measure):
    """For the whole machine, /proc/vmstat also counts the agent's own pages and those that are allocated in bulk."""
    evidence = measure(lambda: subprocess.run([sys.executable, "-c", f"bytearray({65537 * 4096})"], check=True))

    check = evidence["cross_check"]["memory.page_allocs"]
    assert check["ebpf"] == evidence["memory"]["page_allocs"] > 65537
    assert check["ebpf"] <= check["kernel"] < 1.3 * check["ebpf"]


def test_interrupts_do_not_count_for_the_target(targeted):
    """A second of computing allocates nothing, although others' memory is freed in interrupts of that second.

    The start and the end of a process differ by a few, depending on the file system.
    """
    code = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"
    nothing, second = (targeted(code.format(seconds)).run()["memory"] for seconds in (0, 1))

    assert abs(sum(second[key] - nothing[key] for key in ("kmalloc_count", "kfree_count"))) < 20


def vmstat(name):
    return int(dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())[name])


def test_oom_kills_are_counted_where_they_happen(targeted, measure, python, small_group):
    """One in the target, and one elsewhere, which counts only for the whole machine."""
    before = vmstat("oom_kill")
    assert targeted(eater(small_group)).run()["memory"]["oom_kills"] == 1
    assert vmstat("oom_kill") - before == 1

    idle = targeted("import time; time.sleep(2)")
    other = subprocess.Popen([sys.executable, "-c", eater(small_group)])
    assert idle.run()["memory"]["oom_kills"] == 0
    assert other.wait() == 0
    assert vmstat("oom_kill") - before == 2

    assert measure(lambda: python(eater(small_group)))["memory"]["oom_kills"] == 1


@pytest.fixture
def swap():
    """A compressed RAM disk to swap to, which the kernel may have as a module."""
    subprocess.run(["modprobe", "zram"], check=False)
    number = Path("/sys/class/zram-control/hot_add").read_text().strip()
    Path(f"/sys/block/zram{number}/disksize").write_text(str(128 << 20))
    subprocess.run(["mkswap", f"/dev/zram{number}"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["swapon", f"/dev/zram{number}"], check=True)
    yield
    subprocess.run(["swapoff", f"/dev/zram{number}"], check=True)
    Path("/sys/class/zram-control/hot_remove").write_text(number)


@pytest.mark.usefixtures("swap")
def test_swapped_pages_are_those_of_vmstat(targeted, small_group):
    """64 MB in a group of 24 MB, touched twice."""
    code = f"import os\n{TOUCH}\n{small_group}m = touch(16381)\nfor i in range(16381): m[i * 4096]"
    one = targeted(code)
    before = vmstat("pswpin"), vmstat("pswpout")

    found = one.run()["memory"]

    after = vmstat("pswpin"), vmstat("pswpout")
    assert (found["swap_in_pages"], found["swap_out_pages"]) == (after[0] - before[0], after[1] - before[1])
    assert found["swap_out_pages"] >= 8000
    assert found["swap_in_pages"] >= 8000
    assert found["scope"] == dict.fromkeys(
        ("swap_in_pages", "swap_out_pages", "zswap_in_pages", "zswap_out_pages"), "machine"
    )


STAND_IN = {
    "cache_references": pmu_events.Event("minor-faults", SOFTWARE, 5),
    "cache_misses": pmu_events.Event("major-faults", SOFTWARE, 6),
    "l1d_misses": pmu_events.Event("cpu-clock", SOFTWARE, 0),
    "dtlb_misses": pmu_events.Event("no-such-event", HARDWARE, 999),
}
"""Events of the kernel's own that every machine has, in the place of those of the CPU."""


@pytest.fixture
def standing_in(monkeypatch, cache_dir):
    monkeypatch.setattr(pmu_events, "event_of", STAND_IN.get)
    collector = EbpfCollector([cpu.MODULE, memory.MODULE], HOOKS, cache_dir)
    yield collector
    collector.close()


@pytest.fixture
def counting(standing_in, targeted):
    """`counting(code)` → a target of the collector whose counters are those of STAND_IN."""

    def start(code):
        one = targeted(code)
        one.collector = standing_in
        return one

    return start


def test_the_counters_of_a_target(counting):
    """Read at switches, minor faults are exactly as many as program runs at each of them; so is the CPU's clock."""
    threads = "import threading, time\ndef work():\n for _ in range(23): touch(101); time.sleep(0.001)\n"
    code = TOUCH + threads + "all_ = [threading.Thread(target=work) for _ in range(7)]\nfor t in all_: t.start()"

    evidence = counting(code).run_seen()

    found = evidence["memory"]
    assert found["cache_references"] == found["page_faults_minor"] >= 7 * 23 * 101
    assert found["cache_misses"] == found["page_faults_major"]
    assert found["cache_hits"] == found["cache_references"] - found["cache_misses"]
    # that clock stands still from a tick on that comes late, as an emulator's do
    exactly = 0.25 if EMULATED else 0.02
    assert found["l1d_misses"] / 1e6 == pytest.approx(evidence["cpu"]["on_cpu_ms"], rel=exactly)
    assert found["multiplexed"] == {}
    assert found["sources"]["cache_hits"].startswith(
        "perf:minor-faults, perf:major-faults, raw_tracepoint:sched_switch"
    )
    assert "dtlb_misses" not in found
    assert "no-such-event" in found["unavailable"]["dtlb_misses"]


def test_the_counters_of_the_machine(standing_in, python, run):
    """All CPUs: their clocks say as much as the time that they were read over, which is within the run."""
    standing_in.start(RunRequest())
    python(TOUCH + "touch(1009)")
    standing_in.stop()

    found = standing_in.evidence(run).as_json()["memory"]
    ns = standing_in._last.at_ns - standing_in._first.at_ns
    enabled_ns = standing_in._last.modules["memory"]["counters"][len(memory.COUNTERS) + 2]
    assert found["page_faults_minor"] >= 1009
    assert found["cache_references"] >= 1009
    assert found["l1d_misses"] == pytest.approx(enabled_ns, rel=0.001)
    assert 0.5 * ns * len(online_cpus()) <= enabled_ns <= ns * len(online_cpus())
