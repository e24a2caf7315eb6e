"""The name of a thread, as the kernel keeps it."""

from chainbench_agent.abi.kernel_text import text_of

BYTES = 16
"""TASK_COMM_LEN."""


def command(comm: bytes) -> str:
    return text_of(comm.split(b"\0")[0])
