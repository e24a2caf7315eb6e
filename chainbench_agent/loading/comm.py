"""The name of a thread, as the kernel keeps it."""

BYTES = 16
"""TASK_COMM_LEN."""


def command(comm: bytes) -> str:
    return comm.split(b"\0")[0].decode(errors="replace")
