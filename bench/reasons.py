"""Why a target is missed, where that is known.  Read only where one is."""

from __future__ import annotations

_COLD = "80 processes take turns, and their records leave the CPU's caches between two turns"
_TWO = "Two programs run for a call, at its entry and at its return, where failed execs and what the call did are seen"
_MEMORY = (
    "Two Python processes have Flask, gunicorn and pydantic each, one of them also SQLAlchemy and the kernel's symbols"
)
REASONS: dict[str, str] = {
    "context switch with its wake-up (hackbench)": f"{_COLD}; what a record holds is read again from memory.",
    "system call": "Ours also counts by process, tells 32-bit calls apart and leaves the agent's own out.",
    "block request": "Four programs run, to know whose it is and how deep the queue is; others have two.",
    "lock contention": "The records of the threads that contend come from the caches of other CPUs.",
    "exec: exec": (
        "It is three programs, at fork, exec and exit: thread and process get a record there, by which every module "
        "tells whose an event is, and lose it again."
    ),
    "hackbench": f"{_COLD}; with everything on, programs also run for each call, page and message.",
    "syscall": f"{_TWO}.",
    "start-up until": "LLVM compiles all programs for this kernel; most of the time is its optimiser's.",
    "the same with a warm cache": "Nothing is compiled then: imports, the kernel's BTF and the verifier are left.",
    "PSS of all its processes, after start-up": f"{_MEMORY}.",
    "PSS of all its processes, after": f"{_MEMORY}; what /metrics shows of them is remembered.",
}
"""The beginning of a row's name → a sentence."""


def why(what: str) -> str:
    return next((reason for beginning, reason in REASONS.items() if what.startswith(beginning)), "")
