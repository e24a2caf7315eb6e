"""The stacks of a run get their functions' names."""

import struct

import pytest

from chainbench_agent.catalog import NO_STACK, CallStack, Module, Stacks
from chainbench_agent.evidence.sample import Sample
from chainbench_agent.kernel.reading import stack_names
from chainbench_agent.kernel.reading.stack_names import named_stacks
from chainbench_agent.loading.loader import MapFd
from chainbench_agent.symbols.kernel_symbols import KernelSymbols

KALLSYMS = b"""\
ffffffff81000100 T vfs_read
ffffffff81000200 T ksys_read
ffffffff81000a00 T __sched_text_start
ffffffff81000a00 T schedule
ffffffff81000b00 T __sched_text_end
ffffffff81000c00 T last
"""
READ, KSYS, SCHEDULE = 0xFFFFFFFF81000110, 0xFFFFFFFF81000220, 0xFFFFFFFF81000A00
SAMPLE = Sample(at_ns=0, modules={"files": {"wanted": 7}})


class User:
    """Names user-space stacks by their numbers."""

    def stack(self, pid, called_at, addresses):
        return (f"{pid}: {called_at} {[*addresses]}",)


@pytest.fixture
def named(monkeypatch):
    """`named({id: addresses}, key_size, depth=…)` → how a module's stacks are called."""

    def of(content, key_size=8, kallsyms=KALLSYMS, **declared):
        size = max(map(len, content.values()))
        raw = {number: struct.pack(f"={size}Q", *of) for number, of in content.items()}
        keys = {number.to_bytes(key_size, "little"): value for number, value in raw.items()}
        monkeypatch.setattr(stack_names.libbpf, "items", lambda *_: keys)
        monkeypatch.setattr(stack_names.libbpf, "keys", lambda *_: [*keys])
        monkeypatch.setattr(stack_names.libbpf, "lookup", lambda _fd, number, _size: raw[number])
        stacks = Stacks(name="stacks", entries=8, when_full="", depth=2, **declared)
        module = Module(name="files", question="?", metrics=(), scratch=(stacks,))
        maps = {"files_stacks": MapFd(-1, key_size, 8 * size, 8)}
        return named_stacks(maps, [module], SAMPLE, KernelSymbols(kallsyms), User())["files_stacks"]

    return of


@pytest.mark.parametrize("key_size", [4, 8], ids=["a stack trace map", "a hash"])
def test_all_stacks_of_the_kernel(named, key_size):
    """Innermost first; where there are fewer frames, there is nothing more."""
    found = named({5: (READ, KSYS), 6: (KSYS, 0)}, key_size)

    assert found == {CallStack(5): ("vfs_read", "ksys_read"), CallStack(6): ("ksys_read",)}


def test_the_callee_is_no_frame(named):
    """It is named if it is the scheduler's, and not otherwise."""
    found = named({5: (READ, KSYS, SCHEDULE), 6: (READ, KSYS, KSYS)}, with_callee=True)

    assert found == {CallStack(5): ("schedule", "vfs_read", "ksys_read"), CallStack(6): ("vfs_read", "ksys_read")}


def test_hidden_addresses(named):
    assert named({5: (READ, KSYS)}, kallsyms=b"0000000000000000 T vfs_read\n") == {}


def test_only_what_is_needed(named):
    """A process's own stack, one of the kernel's, and the place of a call; by the module's counts."""
    user, kernel, place = CallStack(5, 10, 99), CallStack(6), CallStack(NO_STACK, 10, 98)
    asked = []

    def needed(counts):
        asked.append(counts)
        return [user, kernel, place]

    found = named({5: (1, 2), 6: (READ, 0), 7: (READ, READ)}, 4, needed=needed)

    assert found == {user: ("10: 99 [1, 2]",), kernel: ("vfs_read",), place: ("10: 98 []",)}
    assert asked == [{"wanted": 7}]
