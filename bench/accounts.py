"""The kernel's statistics of BPF programs, and of empty ones on the same hooks at the same time.

A program is found through the processes that hold it: their descriptors tell its runs and its time, whoever loaded it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from chainbench_agent.bpf import libbpf
from chainbench_agent.bpf.footprint import fdinfo

RAW_TRACEPOINT = 17  # BPF_PROG_TYPE_RAW_TRACEPOINT


@dataclass(frozen=True, slots=True)
class Account:
    """Runs and nanoseconds; `hook`: the raw tracepoint that the program is attached to, if that is known."""

    runs: int
    ns: int
    hook: str = ""

    def since(self, before: Account) -> Account:
        return Account(self.runs - before.runs, self.ns - before.ns, self.hook)


def tree(pid: int) -> list[int]:
    """A process and all below it that live."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # it has ended meanwhile
                continue
    return found


def programs_of(pids: Iterable[int]) -> dict[int, Account]:
    """Program id → account, of every program that one of the processes holds."""
    found: dict[int, Account] = {}
    hooks: dict[int, str] = {}
    for info in (info for pid in pids for info in descriptors(pid)):
        if "run_cnt" in info:
            found[int(info["prog_id"])] = Account(int(info["run_cnt"]), int(info["run_time_ns"]))
        elif "tp_name" in info:
            hooks[int(info["prog_id"])] = info["tp_name"]
    return {program: Account(a.runs, a.ns, hooks.get(program, "")) for program, a in found.items()}


def map_bytes_of(pids: Iterable[int]) -> int:
    """Kernel memory of every map that one of the processes holds, each once."""
    infos = (info for pid in pids for info in descriptors(pid) if "map_id" in info)
    return sum({info["map_id"]: int(info["memlock"]) for info in infos}.values())


def descriptors(pid: int) -> Iterator[Mapping[str, str]]:
    """The kernel's information on each descriptor of a process."""
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            yield fdinfo(path.name, pid)
        except OSError:  # closed meanwhile
            continue


class Floor:
    """Empty programs on raw tracepoints: what running any program there costs, and how often something happens."""

    def __init__(self, hooks: Iterable[str]) -> None:
        self._programs: dict[str, int] = {}
        self._links: list[int] = []
        self._stats = libbpf.enable_stats()
        for hook in hooks:
            self._programs[hook] = libbpf.load_program("bench_floor", libbpf.RETURN_0, (RAW_TRACEPOINT, 0, 0))
            self._links.append(libbpf.open_raw_tracepoint(hook, self._programs[hook]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for fd in (*self._links, *self._programs.values(), self._stats):
            os.close(fd)

    def accounts(self) -> dict[str, Account]:
        """Hook → account."""
        infos = {hook: fdinfo(fd) for hook, fd in self._programs.items()}
        return {hook: Account(int(i["run_cnt"]), int(i["run_time_ns"]), hook) for hook, i in infos.items()}


@dataclass(frozen=True, slots=True)
class Interval:
    """The runs and times of a subject's programs and of the empty ones, between two readings."""

    programs: Mapping[int, Account]
    floor: Mapping[str, Account]

    @property
    def floor_ns(self) -> float:
        """The time of one run of an empty program."""
        runs = sum(account.runs for account in self.floor.values())
        return sum(account.ns for account in self.floor.values()) / runs if runs else 0.0

    def events(self, hook: str) -> int:
        return self.floor[hook].runs

    def net_ns(self, *hooks: str) -> float:
        """The time of the programs minus that of empty ones; `hooks` selects hooks by the beginnings of their names."""
        counted = [account for account in self.programs.values() if account.hook.startswith(hooks or "")]
        return sum(account.ns - account.runs * self.floor_ns for account in counted)


class Meter:
    """Looks at the programs of some processes, and of those below them, and at the floor."""

    def __init__(self, floor: Floor, pids: Iterable[int]) -> None:
        self._floor, self._pids = floor, [each for pid in pids for each in tree(pid)]
        self._programs, self._floors = programs_of(self._pids), floor.accounts()

    def interval(self) -> Interval:
        """From the meter's making until now."""
        programs, floors = programs_of(self._pids), self._floor.accounts()
        return Interval(
            {i: now.since(self._programs.get(i, Account(0, 0))) for i, now in programs.items()},
            {hook: now.since(self._floors[hook]) for hook, now in floors.items()},
        )
