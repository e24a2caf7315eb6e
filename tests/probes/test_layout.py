"""Checks that Python reads each value from where C has written it."""

import inspect
import re
import struct

import pytest
from c_text import UNIT, constant, fields_of, format_before, format_of, struct_of

from chainbench_agent.abi.histogram import HistogramCounts
from chainbench_agent.catalog import HISTOGRAM_SLOTS, Distribution
from chainbench_agent.evidence import open_intervals
from chainbench_agent.evidence.sample import Account, LastWords, TaskState
from chainbench_agent.kernel import agent_pids, call_tables, machine
from chainbench_agent.kernel.reading import disk_records, index_names, map_decoding, sample_reader
from chainbench_agent.kernel.targets import cgroup_moves
from chainbench_agent.kernel.targets.kernel_target import TargetKind
from chainbench_agent.loading import process_records
from chainbench_agent.loading.unit_sizes import ENDED_THREADS, MEMBERS, PROCESSES, TASK_RECORDS
from chainbench_agent.probes import CATALOG, biolatency, blocked_time, cpu, io, lock_order, wait_key

each_module = pytest.mark.parametrize("module", CATALOG, ids=lambda module: module.name)


def size_of(c_type):
    if array := re.fullmatch(r"char\[(\d+)\]", c_type):
        return int(array[1])
    plain = {"u64": 8, "u32": 4}
    return plain[c_type] if c_type in plain else struct.calcsize(format_of(c_type.removeprefix("struct ")))


@each_module
def test_keys_have_the_size_that_is_declared(module):
    """The key and the value of a hash are, in C, what derive() unpacks."""
    for keyed in module.keyed:
        name = f"{module.name}_{keyed.name}"
        key, value = re.search(
            rf'^BPF_TABLE\("(?:lru_|percpu_)?hash", ([^,]+), ([^,]+), {name},', UNIT.text, re.MULTILINE
        ).groups()
        assert (size_of(key), value) == (size_of(keyed.key), keyed.value)


@each_module
def test_records_of_disks_have_the_type_that_is_declared(module):
    """A record per CPU, or one for all CPUs; its members are u64, so there is no padding."""
    for metric in module.per_disk:
        macro = "BPF_ARRAY" if metric.shared else "BPF_PERCPU_ARRAY"
        assert f"\n{macro}({module.name}_{metric.name}, {metric.value}, CB_DISKS);\n" in UNIT.text
        assert {code for _, code, _ in struct_of(metric.value.removeprefix("struct "))} == {"Q"}


@each_module
def test_values_are_read_in_the_order_they_are_written(module):
    """values.decode() walks the metrics; scratch fields lie behind them all."""
    body = re.search(rf"^struct cb_{module.name} \{{\n(.*?)^\}};", UNIT.text, re.MULTILINE | re.DOTALL)[1]
    members = re.findall(r"(\w+)(?:\[\d+\])?;", body)

    assert members[: len(module.per_cpu)] == [metric.name for metric in module.per_cpu]
    assert set(members) == fields_of(module)


@pytest.mark.parametrize(
    ("c_struct", "python"),
    [
        ("cb_config", machine._CONFIG),
        ("cb_loss", sample_reader._LOSS),
        ("cb_identity", agent_pids._IDENTITY),
        ("cb_call_kinds", call_tables.CALL_KINDS),
        ("cb_on_cpu", map_decoding.ON_CPU),
        ("cb_thread_key", map_decoding._THREAD_KEY),
        ("cb_thread", map_decoding._THREAD),
        ("cpu_idle_span", cpu.IDLE_SPAN),
        ("cb_disk", disk_records.DISK),
        ("cb_task", map_decoding._TASK),
        ("cb_move", cgroup_moves._MOVE),
        ("cb_cut", cgroup_moves._CUT),
        ("offcpu_stack", blocked_time._STACK),
        ("offcpu_thread", blocked_time._THREAD),
        ("offcpu_thread_stack", blocked_time._THREAD_STACK),
    ],
)
def test_structs_are_read_as_they_are_written(c_struct, python):
    """Python has the members of the C struct by name, in order and by type, or skips one of that size."""
    written = struct_of(c_struct)
    assert list(python.members) == [member for member, _, _ in written]
    for member, code, count in written:
        skipped, ours = f"{(count or 1) * struct.calcsize('=' + code)}x", python.members[member]
        assert ours in (f"{count}{code}" if count else code, skipped.removeprefix("1") if skipped == "1x" else skipped)
    assert python.size == struct.calcsize(format_of(c_struct))


def test_the_lines_of_a_task():
    """Members that each switch writes are in the first two cache lines; each record begins at a line."""
    second = [member for member, _, _ in struct_of("cb_task")].index("comm")

    assert struct.calcsize(format_before("cb_task", "begin_ns")) == 64
    assert struct.calcsize(format_before("cb_task", "comm")) == 128
    assert {"exec_ns", "unseen_ns", "throttled_ns"} < {member for member, _, _ in struct_of("cb_task")[:second]}
    assert map_decoding._TASK.size == 192


def test_a_process_is_read_as_it_is_written():
    """Its head, the hottest counters, its name, the other counters: a u64 for each counter per process."""
    counters = {f"{module.name}_{metric.name}" for module in CATALOG for metric in module.per_process}
    index_names = [name for name, _, _ in struct_of("cb_process")]
    hot = index_names[4 : index_names.index("comm")]

    assert index_names[:4] == list(process_records.HEAD.members) == ["tgid", "run", "begin_ns", "end_ns"]
    assert format_of("cb_process").startswith(f"{process_records.HEAD.format}{'Q' * len(hot)}16s")
    assert {*hot, *index_names[index_names.index("comm") + 1 :]} == counters | {"pad"}
    assert {"cpu_on_cpu_ns", "cpu_context_switches", "offcpu_off_cpu_ns", "runqlat_wait_ns", "syscalls_total"} == {*hot}
    assert struct.calcsize(format_before("cb_process", "comm")) == 64
    assert struct.calcsize(format_of("cb_process")) % 64 == 0
    assert struct.calcsize(format_before("cb_process", "run")) == 4 * process_records.RUN_WORD


def test_a_sum_of_threads_is_read_as_it_is_written():
    """Python takes the sums of all fields by place: how many threads, an Account, LastWords; and two numbers."""
    fields = ("threads", *Account.__slots__, *LastWords.__slots__)
    assert struct_of("cb_ended") == [(name, "Q", 0) for name in fields]
    assert [name for name, _, _ in struct_of("cb_thread")] == [*Account.__slots__, "comm"]
    assert struct_of("cb_population") == [("processes", "Q", 0), ("threads", "Q", 0)]


@pytest.mark.parametrize(
    ("c_struct", "format_"),
    [
        ("offcpu_stack", blocked_time._STACK),
        ("offcpu_thread", blocked_time._THREAD),
        ("offcpu_thread_stack", blocked_time._THREAD_STACK),
        ("offcpu_sampled", blocked_time._SAMPLED),
    ],
)
def test_structs_of_waits(c_struct, format_):
    """Blocked time by stack and by thread."""
    assert format_.format == format_of(c_struct)


def test_the_wait_key():
    """Its bits, and the kinds of files by number."""
    numbers = ("NUMBER_MASK", "NO_CALL", "UNKNOWN_CALL", "FILE_SHIFT", "SOCKET")
    assert {name: constant(f"OFFCPU_{name}") for name in numbers} == {name: getattr(wait_key, name) for name in numbers}
    for name in ("COMPAT", "UNINTERRUPTIBLE", "IOWAIT", "STOPPED"):
        bits = re.search(rf"^#define OFFCPU_{name} \(1 << (\d+)\)", UNIT.text, re.MULTILINE)
        assert 1 << int(bits[1]) == getattr(wait_key, name)
    body = re.search(r"enum offcpu_file_kind \{\n(.*?)\};", UNIT.text, re.DOTALL)[1]
    kinds = [name.lower() for name in re.findall(r"OFFCPU_FILE_(\w+),", body)]
    assert kinds == [kind or "none" for kind in wait_key.FILE_KINDS]


def test_structs_that_derive_unpacks():
    """cpu.py unpacks "=QQ", …, and all say so where they do it."""
    assert format_of("cpu_bandwidth") in inspect.getsource(cpu.derive)
    for c_struct in ("locks_edge_key", "locks_edge"):
        assert f'"{format_of(c_struct)}"' in inspect.getsource(lock_order.edges_of)
    assert f'"{format_of("io_queue")}"' in inspect.getsource(io.queue_depth)
    assert f'"{format_of("biolatency_disk")}"' in inspect.getsource(biolatency.devices)
    kinds = ("READ", "WRITE", "OTHER", "DISCARD", "WRITE_ZEROES", "KINDS")
    assert [constant(f"BIOLATENCY_{kind}") for kind in kinds] == list(range(len(biolatency.KINDS) + 1))


def test_members_by_number():
    """Where Python counts members instead of naming them."""
    assert tuple(member for member, _, _ in struct_of("cb_loss")) == sample_reader.LOSS_CAUSES
    (at,) = [struct.calcsize(format_before("cb_task", "run"))]
    assert at == 4 * map_decoding._TASK_RUN_WORD


def test_a_histogram_is_read_as_it_is_written():
    """Sum, min, max and the run that these belong to, then the slots: all of them u64."""
    body = re.search(r"^struct cb_histogram \{\n(.*?)^\};", UNIT.text, re.MULTILINE | re.DOTALL)[1]
    members = re.findall(r"^\tu64 (\w+)(\[CB_SLOTS\])?;", body, re.MULTILINE)

    assert members == [("sum", ""), ("min", ""), ("max", ""), ("run", ""), ("slots", "[CB_SLOTS]")]
    assert {name for name, _ in members} == {*HistogramCounts.__slots__, "run"}
    assert map_decoding.words(Distribution(name="x_ns", help="")) == HISTOGRAM_SLOTS + len(members) - 1
    assert constant("CB_SLOTS") == HISTOGRAM_SLOTS


def test_states_are_those_of_c():
    """The enum cb_task_state and TaskState have the same names and numbers."""
    body = re.search(r"^enum cb_task_state \{\n(.*?)^\};", UNIT.text, re.MULTILINE | re.DOTALL)[1]
    states = re.findall(r"^\tCB_(\w+),", body, re.MULTILINE)

    assert {name: number for number, name in enumerate(states)} == {state.name: state.value for state in TaskState}


@pytest.mark.parametrize(
    ("c_enum", "prefix", "python"),
    [("cb_phase", "CB_", machine.Phase), ("cb_target_kind", "CB_", TargetKind)],
)
def test_enums_are_those_of_c(c_enum, prefix, python):
    """The same names and numbers."""
    body = re.search(rf"^enum {c_enum} \{{\n(.*?)^\}};", UNIT.text, re.MULTILINE | re.DOTALL)[1]
    found = re.findall(rf"^\t{prefix}(\w+),", body, re.MULTILINE)

    assert {name: number for number, name in enumerate(found)} == {member.name: member.value for member in python}


def test_constants_are_those_of_c():
    """A constant that is defined in C and in Python is the same number in both."""
    assert constant("CB_WAIT_UNKNOWN") == open_intervals.WAIT_UNKNOWN
    assert constant("CB_MEMBERS") == MEMBERS
    assert constant("CB_DISK_TAKEN") == disk_records.TAKEN
    assert constant("CB_ENDED_THREADS") == ENDED_THREADS
    assert constant("CPU_NOT_IDLE") == cpu.NOT_IDLE
    assert constant("CPU_IDLE_UNKNOWN") == index_names.UNKNOWN_STATE


def test_indexes_by_mask_need_a_power_of_two():
    """`& (SIZE - 1)` names every entry only if SIZE is one."""
    masked = set(re.findall(r"& \((\w+) - 1\)", UNIT.text))

    assert masked == {
        "CB_TASKS",
        "CB_PROCESSES",
        "CB_PROCESS_SETS",
        "CB_LOCK_WAITS",
        "CB_REQUESTS",
        "CB_BIO_SETS",
        "CB_DISKS",
    }
    assert constant("CB_TASKS") == TASK_RECORDS
    assert constant("CB_PROCESSES") == PROCESSES
    for name in masked:
        size = constant(name) if name != "CB_PROCESS_SETS" else PROCESSES // 4
        assert size
        assert size & (size - 1) == 0
