"""Loaded programs: which source feeds each hook, attaching and detaching, what the kernel says they cost."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from chainbench_agent.bpf import kretprobes, libbpf, perf_events
from chainbench_agent.bpf.footprint import fdinfo
from chainbench_agent.catalog import ANY_OF
from chainbench_agent.evidence.sample import ProgramRun
from chainbench_agent.loading.entry_functions import Program
from chainbench_agent.symbols.libc_functions import LibcFunctions

NOBODY = LibcFunctions(())


@dataclass(slots=True)
class Programs:
    """One chosen program per hook.  `absent`: hook → why there is none."""

    chosen: dict[str, Program] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    _fds: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Hook → its program's parts."""
    _links: list[int] = field(default_factory=list)

    @classmethod
    def choose(cls, candidates: Iterable[Program], loaded: Mapping[str, int], failed: Mapping[str, str]) -> Programs:
        """For each hook the first candidate that loaded and attaches; the others are given back to the kernel.

        All of `loaded` are taken over: if this raises, none is left.
        """
        found, left = cls(), dict(loaded)
        try:
            found._choose(tuple(candidates), left, failed)
        except BaseException:
            found.close()
            _close(left.values())
            raise
        found.detach()
        return found

    def _choose(self, candidates: tuple[Program, ...], left: dict[str, int], failed: Mapping[str, str]) -> None:
        """All stay attached until the last has been tried; what is in `left` then belongs to no candidate.

        A tracepoint that is attached after another was detached waits until no CPU can be in the latter, which took
        0.4 s in all.
        """
        own = LibcFunctions([os.getpid()] if any(_is_in_user_space(program) for program in candidates) else [])
        reasons: dict[str, list[str]] = {}
        with closing(own):
            for program in candidates:
                why = reasons.setdefault(program.hook, [])
                fds = tuple(left.pop(part.name) for part in program.parts if part.name in left)
                if refused := [failed[part.name] for part in program.parts if part.name in failed]:
                    why.append(f"{program.source} does not load: {'; '.join(refused)}")
                elif program.hook not in self.chosen:
                    self._fds[program.hook] = fds  # now, so that it is closed whatever is raised
                    try:
                        self._links += _try(program, fds, own)
                    except OSError as error:
                        why.append(f"{program.source} does not attach: {error.strerror or error}")
                        del self._fds[program.hook]
                    else:
                        self.chosen[program.hook] = program
                        continue
                _close(fds)
        self.absent = {hook: "; ".join(why) for hook, why in reasons.items() if hook not in self.chosen}

    def in_user_space(self, hooks: Collection[str]) -> bool:
        """Whether one of `hooks` needs functions of the target."""
        return any(_is_in_user_space(program) for hook, program in self.chosen.items() if hook in hooks)

    def unavailable_in_target(self, hooks: Collection[str], user: LibcFunctions) -> dict[str, str]:
        """The `hooks` that have no location in the target's programs and libraries → why."""
        programs = {hook: self.chosen[hook] for hook in hooks if hook in self.chosen}
        return {
            hook: f"no C library that the target had mapped when the run began has {program.source.target}"
            for hook, program in programs.items()
            if _is_in_user_space(program) and not any(map(user.locations, program.source.target.split(ANY_OF)))
        }

    def attach(self, hooks: Collection[str], user: LibcFunctions = NOBODY) -> None:
        """Attach those of `hooks`, uprobes in what `user` knows; after a failure nothing is left.  Raises OSError."""
        try:
            for hook, program in self.chosen.items():
                if hook in hooks:
                    self._links += _attach(program, self._fds[hook], user)
        except OSError:
            self.detach()
            raise

    def detach(self) -> None:
        _close(self._links)
        self._links.clear()

    def close(self) -> None:
        self.detach()
        while self._fds:
            _close(self._fds.popitem()[1])

    def runs(self) -> dict[str, ProgramRun]:
        """Hook → the kernel's account of its program since it was loaded."""
        return {hook: _program_run(fds) for hook, fds in self._fds.items()}


def _is_in_user_space(program: Program) -> bool:
    return program.kind in ("uprobe", "uretprobe")


def _attach(program: Program, fds: Iterable[int], user: LibcFunctions) -> list[int]:
    """The descriptors that hold the program's parts where they are, all or none; raises OSError."""
    parts = zip(program.parts, fds, strict=True)
    return perf_events.all_or_none(
        (link for part, fd in parts for link in _attach_part(part, fd, user)), kretprobes.close
    )


def _attach_part(program: Program, fd: int, user: LibcFunctions) -> list[int]:
    target = program.source.target
    match program.kind:
        case "perf":
            return perf_events.open_on_each_cpu(target, fd)
        case "kprobe":
            return [perf_events.open_kprobe(target, fd, at_return=False)]
        case "kretprobe":
            return [kretprobes.open_kretprobe(target, fd)]
        case "uprobe" | "uretprobe" as kind:
            return _attach_in_user_space(target, fd, user, at_return=kind == "uretprobe")
        case "raw_tracepoint":
            return [libbpf.open_raw_tracepoint(target, fd)]
    return [libbpf.open_raw_tracepoint(None, fd)]


def _attach_in_user_space(functions: str, fd: int, user: LibcFunctions, *, at_return: bool) -> list[int]:
    """At every one of the `functions` that the target has; raises OSError if there is none."""
    locations = [location for function in functions.split(ANY_OF) for location in user.locations(function)]
    if not locations:
        raise OSError(errno.ENOENT, "no C library has such a function")
    return perf_events.all_or_none(
        perf_events.open_uprobe(location.file, location.offset, fd, at_return=at_return) for location in locations
    )


def _close(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        kretprobes.close(fd)


def _try(program: Program, fds: Collection[int], own: LibcFunctions) -> list[int]:
    """Attach.  A tracing program twice, because there will be many runs and it was not always possible.

    Linux f3a95075549e ("bpf: Allow trampoline re-attach for tracing and lsm programs") (in v5.13)
    """
    links = _attach(program, fds, own)
    if program.kind not in ("fentry", "fexit"):
        return links
    _close(links)
    try:
        return _attach(program, fds, own)
    except OSError as error:
        raise OSError(error.errno, "this kernel attaches such a program only once") from None


def _program_run(fds: Iterable[int]) -> ProgramRun:
    # recursion_misses: Linux 9ed9e9ba2337 ("bpf: Count the number of times recursion was prevented") (in v5.12)
    found = ("run_time_ns", "run_cnt", "recursion_misses")
    parts = [[int(info.get(name, 0)) for name in found] for info in map(fdinfo, fds)]
    return ProgramRun(*map(sum, zip(*parts, strict=True)))
