"""Which metrics may explain a line of the ledger.  Fixed beforehand, so that nobody finds one by looking at many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chainbench_agent.compare.ledger_lines import CHILDREN


@dataclass(frozen=True, slots=True)
class Support:
    """`path`: section and keys in the evidence.  A distribution also tells fewer events from slower ones."""

    path: str
    text: str
    distribution: bool = False


def _counts(*pairs: tuple[str, str]) -> tuple[Support, ...]:
    return tuple(Support(path, text) for path, text in pairs)


def _times(path: str, text: str) -> Support:
    return Support(path, text, distribution=True)


SUPPORT: Mapping[str, tuple[Support, ...]] = MappingProxyType(
    {
        "on_cpu": _counts(
            ("syscall_counts.total", "system calls"),
            ("memory.page_faults_minor", "minor page faults"),
            ("exec.exec_count", "programs started"),
            ("exec.forks", "forks"),
            ("memory.kmalloc_count", "kernel allocations"),
        ),
        "runnable": (
            _times("runqlat", "waits for a CPU"),
            *_counts(
                ("cpu.involuntary_switches", "involuntary switches"),
                ("cpu.cpu_migrations", "migrations"),
            ),
        ),
        "throttled": _counts(("cpu.throttle_events", "times the CPU quota was used up")),
        "disk": (
            _times("io.fsync_latency_us", "fsync"),
            _times("biolatency", "block requests"),
            *_counts(("io.page_cache_misses", "page-cache misses"), ("biolatency.bytes", "bytes of block requests")),
        ),
        "page_fault/memory": _counts(
            ("memory.page_faults_major", "major page faults"), ("memory.swap_in_pages", "pages swapped in")
        ),
        "network": (
            _times("network.tcp_rtt_us", "TCP round trips"),
            *_counts(
                ("network.tcp_bytes_sent", "TCP bytes sent"),
                ("network.tcp_bytes_received", "TCP bytes received"),
                ("network.tcp_connections", "TCP connections"),
                ("network.tcp_retransmissions", "TCP retransmissions"),
            ),
        ),
        "futex/lock": (
            _times("locks.futex_wait_us", "futex waits"),
            *_counts(("locks.futex_wakes", "futex wake-ups")),
        ),
        "kernel_lock": (
            _times("locks.mutex_wait_us", "waits for kernel mutexes"),
            _times("locks.rwsem_wait_us", "waits for kernel semaphores"),
        ),
        "wait_child": _counts(("exec.exec_count", "programs started"), ("exec.forks", "forks")),
        "pipe": _counts(("syscall_counts.read", "reads"), ("syscall_counts.write", "writes")),
        "sleep": _counts(("syscall_counts.clock_nanosleep", "sleeps"), ("syscall_counts.nanosleep", "sleeps")),
        "poll": _counts(("syscall_counts.epoll_wait", "epoll_wait"), ("syscall_counts.poll", "poll")),
    }
)
"""Line → at most six metrics, most telling first."""

_OF_CHILDREN = _counts(("exec.exec_count", "programs started"), ("exec.forks", "forks"))


def support_of(line: str) -> tuple[Support, ...]:
    return _OF_CHILDREN if line.startswith(CHILDREN) else SUPPORT.get(line, ())
