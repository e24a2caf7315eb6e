"""Why a target is missed, where that is known.  Read only where one is."""

from __future__ import annotations

_COLD = "80 processes take turns, and their records leave the CPU's caches between two turns"
REASONS: dict[str, str] = {
    "context switch with its wake-up (hackbench)": f"{_COLD}; what a record holds is read again from memory.",
    "system call": "Ours also counts by process, tells 32-bit calls apart and leaves the agent's own out.",
    "block request": "Four programs run, to know whose it is and how deep the queue is; others have two.",
    "exec": (
        "It is three programs, at fork, exec and exit: thread and process get a record there, by which every module "
        "tells whose an event is, and lose it again."
    ),
    "start-up until": "LLVM compiles all programs anew, for this kernel; that is most of the time.",
    "the same with a warm cache": "Nothing is compiled then: imports, the kernel's BTF and the verifier are left.",
}
"""What the row begins with → a sentence."""


def why(what: str) -> str:
    return next((reason for beginning, reason in REASONS.items() if what.startswith(beginning)), "")
