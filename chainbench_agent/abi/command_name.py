"""The command name of a thread, which the kernel calls `comm`: 16 bytes, ended by a zero."""

from chainbench_agent.abi.kernel_text import text_of

BYTES = 16
"""TASK_COMM_LEN."""


def decode(raw: bytes) -> str:
    """The name as text, without the zero and what follows it."""
    return text_of(raw.split(b"\0")[0])
