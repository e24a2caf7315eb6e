"""Cuts the threads of processes that were moved into or out of the target's cgroup, at the time of the move.

The kernel side cuts the leader immediately, and another thread when it next does something (probes/task.h,
cb_follow()).  Threads that did nothing until the run ended are cut here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from chainbench_agent.abi.c_struct import CStruct
from chainbench_agent.bpf import libbpf
from chainbench_agent.evidence.sample import OpenInterval, ProcThread, TaskState, Thread
from chainbench_agent.evidence.thread_accounts import LINE_OF_STATE
from chainbench_agent.host import procfs
from chainbench_agent.kernel.targets import members
from chainbench_agent.loading.loader import MapFd

_MOVE = CStruct(last_ns="Q", before_ns="Q")  # struct cb_move of probes/target.h
_CUT = CStruct(begin_ns="Q", since_ns="Q", tid="I", tgid="I", wait="I", state="I")  # struct cb_cut of probes/task.h


@dataclass(frozen=True, slots=True)
class Moves:
    """The moves that the kernel side has seen in this run."""

    last_ns: Mapping[int, int] = field(default_factory=dict)
    """Process → when it was last moved into the target or out of it."""
    before_ns: Mapping[int, int] = field(default_factory=dict)
    """Process → when it was moved the time before, if it was."""
    cuts: tuple[OpenInterval, ...] = ()
    """The open intervals of threads that left, with the time at which they left."""

    def after(self, process: int, since_ns: int) -> int:
        """When `process` was last moved, if that was after `since_ns`; else `since_ns`."""
        return max(self.last_ns.get(process, 0), since_ns)


def read_moves(maps: Mapping[str, MapFd]) -> Moves:
    return decode(*(_items(maps[name]) for name in ("cb_moves", "cb_cuts")))


def decode(moved: Mapping[bytes, bytes], cut: Mapping[bytes, bytes]) -> Moves:
    times = {int.from_bytes(key, "little"): _MOVE.unpack(value) for key, value in moved.items()}
    return Moves(
        {pid: last_ns for pid, (last_ns, _) in times.items()},
        {pid: before_ns for pid, (_, before_ns) in times.items() if before_ns},
        tuple(_cut(key, int.from_bytes(value, "little")) for key, value in cut.items()),
    )


def _cut(key: bytes, until_ns: int) -> OpenInterval:
    begin_ns, since_ns, tid, tgid, wait, state = _CUT.unpack(key)
    thread = Thread(tid, tgid, "", begin_ns)
    return OpenInterval(TaskState(state), since_ns, wait, kernel_thread=False, thread=thread, until_ns=until_ns)


def cut_left_threads(
    tasks: Iterable[OpenInterval], inside: Collection[int], moved: Moves
) -> tuple[list[OpenInterval], list[OpenInterval]]:
    """(`tasks` with those that were moved out of the cgroup ended at that time, the intervals that were cut).

    A task was moved out if it lives and is not `inside`.  If the time is not known, it counts until the task left its
    CPU.
    """
    found, cuts = [], []
    for task in tasks:
        until_ns = moved.after(task.thread.pid, task.since_ns)
        unknown = until_ns == task.since_ns and task.state in (TaskState.RUNNING, TaskState.UNSEEN)
        if task.tid in inside or unknown or not (members.PROC / str(task.tid)).exists():
            found.append(task)
            continue
        found.append(_ended(task, until_ns))
        if until_ns > task.since_ns:
            cuts.append(replace(task, until_ns=until_ns))
    return found, cuts


def _ended(task: OpenInterval, until_ns: int) -> OpenInterval:
    account = task.account
    if line := LINE_OF_STATE.get(task.state):
        account = replace(account, **{line: getattr(account, line) + until_ns - task.since_ns})
    return replace(task, state=TaskState.FREE, since_ns=until_ns, account=account)


def count_unseen_threads(moved: Moves, off_cpu_since: Mapping[int, int], seen: Collection[int]) -> int:
    """How many threads no hook has seen between two moves.  The kernel side counts those that it saw later.

    `off_cpu_since`: thread → since when it is off the CPU, for threads in `seen`.
    """
    count = 0
    for process, before_ns in moved.before_ns.items():
        with suppress(OSError):
            threads = set(map(int, os.listdir(f"{members.PROC}/{process}/task")))  # noqa: PTH208
            count += sum(tid not in seen or off_cpu_since.get(tid, before_ns) < before_ns for tid in threads)
    return count


def seeded_threads_moved_out(maps: Mapping[str, MapFd], inside: Collection[int], moved: Moves) -> dict[int, int]:
    """Thread → process, of threads that were in the cgroup when the run began and were moved out with their process."""
    if not moved.last_ns:
        return {}
    table, found = maps["cb_seeded"], {}
    for tid in (int.from_bytes(key, "little") for key in libbpf.keys(table.fd, table.key_size)):
        if tid not in inside:
            with suppress(OSError):
                process = int(procfs.status(members.PROC / str(tid))["Tgid"])
                if process in moved.last_ns:
                    found[tid] = process
    return found


def member_since(
    threads: Mapping[int, ProcThread], outside: Mapping[int, int], run_ns: int, moved: Moves
) -> dict[int, int]:
    """Thread → since when it is in the target, for threads that no hook has seen in it."""
    return {tid: moved.after(thread.pid, outside.get(tid, run_ns)) for tid, thread in threads.items()}


def _items(table: MapFd) -> dict[bytes, bytes]:
    return libbpf.items(table.fd, table.key_size, table.value_size)
