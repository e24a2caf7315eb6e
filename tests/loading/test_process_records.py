"""The record of a process: what is written of it in C, and what is read."""

import struct

from chainbench_agent.catalog import Counter, Module
from chainbench_agent.loading.process_records import HOTTEST, process_h, processes

RUN = 7
HOT = Counter(name="hot", help="", hooks=(min(HOTTEST),), per_process=True)
CALLS = Counter(name="calls", help="", hooks=HOT.hooks)
MODULES = (
    Module(name="a", question="?", metrics=(CALLS, Counter(name="x_ns", help="", per_process=True))),
    Module(name="b", question="?", metrics=(CALLS,)),
    Module(name="c", question="?", metrics=(Counter(name="y", help="", per_process=True), HOT)),
)


def process(pid, comm, hot, *others, run=RUN):
    """tgid, run, begin, end, the hottest counters, comm, the others in the order of the modules; whole lines."""
    return struct.pack(f"=IIQQ{len(hot)}Q16s{len(others)}Q", pid, run, 1, 2, *hot, comm, *others).ljust(64, b"\0")


def test_the_struct():
    """The hottest counters are next to the members by which it is found; the end is padded to cache lines."""
    head = "struct cb_process {\n\tu32 tgid;\n\tu32 run;\n\tu64 begin_ns;\n\tu64 end_ns;\n"

    assert process_h(MODULES) == (f"{head}\tu64 c_hot;\n\tchar comm[16];\n\tu64 a_x_ns;\n\tu64 c_y;\n}};\n")
    assert process_h(MODULES[:2]) == f"{head}\tchar comm[16];\n\tu64 a_x_ns;\n\tu8 pad[16];\n}};\n"
    assert process_h(()) == f"{head}\tchar comm[16];\n\tu8 pad[24];\n}};\n"


def test_processes():
    """Records of this run, wherever they are; each counter by module and metric."""
    records = (
        process(10, b"server", (3,), 2**63, 2),
        process(11, b"old", (9,), 9, 9, run=RUN - 1),
        bytes(64),
        process(2**22, b"caf\xe9\0rest", (7,), 0, 0),
    )

    found = list(processes(memoryview(b"".join(records)), MODULES, RUN))

    assert [(p.pid, p.command, p.figures) for p in found] == [
        (10, "server", {"a": {"x_ns": 2**63}, "c": {"y": 2, "hot": 3}}),
        (2**22, r"caf\xe9", {"a": {"x_ns": 0}, "c": {"y": 0, "hot": 7}}),
    ]


def test_processes_of_modules_that_count_nothing_of_them():
    """The record has only its head."""
    (found,) = processes(memoryview(process(10, b"a", ()) + process(11, b"b", (), run=RUN + 1)), MODULES[1:2], RUN)

    assert (found.pid, found.command, found.figures) == (10, "a", {})


def test_memory_beyond_the_last_record_is_not_read():
    """Whole pages are mapped; the rest of the last one is zeros, and no run has the number zero."""
    memory = memoryview(process(10, b"a", (1,), 2, 3) + bytes(4096 - 64))

    assert [p.pid for p in processes(memory, MODULES, RUN)] == [10]
