"""The unit that is written for a tiny catalogue: one program per hook and source, each handler called from there."""

import re
import shutil
from dataclasses import replace

import pytest

from chainbench_agent.catalog import (
    RESULT,
    Counter,
    Derived,
    Distribution,
    Hook,
    Keyed,
    Module,
    Scratch,
    Table,
    fentry,
    fexit,
    kprobe,
    kretprobe,
    raw_tracepoint,
    tp_btf,
    uprobe,
    uretprobe,
)
from chainbench_agent.loading import module_values, process_records
from chainbench_agent.loading import unit_text as fuse_module
from chainbench_agent.loading.entry_functions import Program, entry
from chainbench_agent.loading.unit_text import fuse, handlers
from chainbench_agent.probes import DIRECTORY, FIELDS

BORN = Hook("born", ("struct task_struct *parent",), (raw_tracepoint("sched_process_fork"),))
FORK = Hook("fork", ("struct task_struct *parent", "int flags"), (raw_tracepoint("sched_fork"),))
READ = Hook(
    "read", ("struct file *file", "long got"), (fexit("vfs_read", 0, 3), fentry("vfs_read", 0, "0")), timed=False
)
SWITCH = Hook("switch", ("u32 state",), (raw_tracepoint("sched_switch"),))
RAN = Hook("ran", ("u64 ns",), raised_on=("switch",))
ISSUE = Hook("issue", ("int rq",), (raw_tracepoint("issue"),))
DONE = Hook("done", ("struct cb_request *request",), raised_on=("issue",))
NEVER = Hook("never", ("int x",), (raw_tracepoint("never"),))
HOOKS = (BORN, FORK, READ, SWITCH, RAN, ISSUE, DONE, NEVER)

FILES = Module(
    name="files",
    question="What was read?",
    metrics=(
        Counter(name="reads", help="", hooks=("read",), per_process=True),
        Table(name="by_size", help="", hooks=("read",), entries=12, names="", label=""),
        Distribution(name="took_ns", help="", hooks=("read",)),
        Keyed(name="by_task", help="", hooks=("read",), key="u64", entries=77, when_full=""),
        Derived(name="mean", help="", of=("reads",)),
    ),
    scratch=(
        Scratch(name="pending", entries=5, when_full=""),
        Scratch(name="nth", entries=3, when_full="", field=True),
    ),
)
FILES_C = """
#include "generated/files.h"

BPF_TABLE("hash", u64, u64, files_by_task, FILES_BY_TASK_ENTRIES);
BPF_TABLE("lru_hash", struct file *, u64, files_pending, FILES_PENDING_ENTRIES);

static __always_inline void files_on_read(struct cb_event *ev, struct cb_files *files, struct file *file, long got)
{
}

static __always_inline void files_on_fork(struct cb_event *ev, struct cb_files *files,
\t\t\t\t\t  struct task_struct *parent, int flags)
{
}
"""
TASKS = Module(name="tasks", question="Who was born?", metrics=(Counter(name="forks", help="", hooks=("fork",)),))
TASKS_C = """
#include "generated/tasks.h"

static __always_inline void tasks_on_fork(struct cb_event *ev, struct cb_tasks_ *tasks)
{
}
"""
TIMES = Module(name="times", question="Who ran?", metrics=(Counter(name="ran", help="", hooks=("ran",)),))
TIMES_C = """
#include "generated/times.h"

static __always_inline void times_on_ran(struct cb_event *ev, struct cb_times *times, u64 ns)
{
}
"""
SCHED_H = """
#pragma once

#include "machines/quota.h"
#include "generated/raised.h"

static __always_inline void sched_on_switch(struct cb_event *ev, u32 state)
{
\tcb_raise_ran(ev, 0);
}
"""
DISK = Module(name="disk", question="What ended?", metrics=(Counter(name="ends", help="", hooks=("done",)),))
DISK_C = """
#include "machines/request.h"
#include "generated/disk.h"

static __always_inline void disk_on_done(struct cb_event *ev, struct cb_disk *disk, struct cb_request *request)
{
}
"""
REQUEST_H = """
#pragma once
struct cb_request { u64 id; };
BPF_TABLE("hash", u32, struct cb_request, cb_requests, CB_REQUESTS);
"""
BLOCK_H = """
#pragma once

#include "machines/request.h"
#include "generated/raised.h"

static __always_inline void block_on_issue(struct cb_event *ev, int rq)
{
\tcb_raise_done(ev, 0);
}
"""
TARGET_H = """
#pragma once
static __always_inline bool cb_is_member(void);
"""
FOLLOW_H = """
#pragma once

#include "lib/task.h"

static __always_inline void follow_on_born(struct cb_event *ev, struct task_struct *parent)
{
}
"""


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """A directory of probes with the real headers, another state machine, another target, and these modules."""
    shutil.copytree(DIRECTORY / "lib", tmp_path / "lib")
    (tmp_path / "machines").mkdir()
    for name, text in {"files.c": FILES_C, "tasks.c": TASKS_C, "times.c": TIMES_C, "disk.c": DISK_C}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "lib/target.h").write_text(TARGET_H)
    own = {"sched.h": SCHED_H, "block.h": BLOCK_H, "request.h": REQUEST_H, "follow.h": FOLLOW_H}
    own["quota.h"] = (DIRECTORY / "machines/quota.h").read_text()
    others = dict.fromkeys(("calls.h", "contention.h", "lock_wait.h"), "")
    for name, text in (own | others).items():
        (tmp_path / "machines" / name).write_text(text)
    monkeypatch.setattr(fuse_module, "DIRECTORY", tmp_path)


def fused(*modules, hooks=HOOKS, has_field=lambda _field: False):
    return fuse(modules, hooks, lambda hook: hook.sources, has_field)


def function(unit, name):
    """The text of a function, from its first line to its closing brace."""
    return re.search(rf"^[^\n]*\b{name}\([^\n]*\)\n\{{\n.*?^\}}\n", unit.text, re.MULTILINE | re.DOTALL)[0]


def test_handlers():
    """Functions called OWNER_on_HOOK that are defined there, not helpers, calls or those of other owners."""
    text = """
static __always_inline void io_on_read(struct cb_event *ev,
\t\t\t\t       int x)
static __always_inline void io_on_write(struct cb_event *ev)
static __always_inline u32 io_on_answer(void)
static __always_inline void io_helper(void)
\tio_on_call(ev);
static __always_inline void video_on_play(struct cb_event *ev)
"""
    assert handlers(text, "io") == {"read", "write"}
    assert handlers(text, "audio") == set()


def test_one_program_per_hook_and_source():
    """In the order of the hooks, a hook's sources best first; a hook that nobody handles has none.

    The target and the state machine handle theirs whatever the modules.
    """
    unit = fused(FILES, TASKS)

    assert unit.programs == (
        Program("cb_born_0", "born", BORN.sources[0]),
        Program("cb_fork_0", "fork", FORK.sources[0]),
        Program("kretfunc__vfs_read", "read", READ.sources[0]),
        Program("kfunc__vfs_read", "read", READ.sources[1]),
        Program("cb_switch_0", "switch", SWITCH.sources[0]),
    )
    kinds = [program.kind for program in unit.programs]
    assert kinds == ["raw_tracepoint", "raw_tracepoint", "fexit", "fentry", "raw_tracepoint"]


def test_an_entry():
    """Is a run on? Then its arguments, the time, and the handlers."""
    assert function(fused(FILES), "cb_fork_0") == (
        "int cb_fork_0(struct bpf_raw_tracepoint_args *ctx)\n"
        "{\n"
        "\tint zero = 0;\n"
        "\tstruct cb_config *config = cb_config.lookup(&zero);\n"
        "\tif (!config || config->phase != CB_ON)\n"
        "\t\treturn 0;\n"
        "\tstruct task_struct *parent = (struct task_struct *)ctx->args[0];\n"
        "\tint flags = (int)ctx->args[1];\n"
        "\tstruct cb_event event = { .ctx = ctx, .config = config, .now_ns = bpf_ktime_get_ns() };\n"
        "\tcb_raise_fork(&event, parent, flags);\n"
        "\treturn 0;\n"
        "}\n"
    )


def test_a_typed_entry():
    """It takes its arguments as they come and says that they have types.  Its text is behind the others', its turn is
    not: BCC decides at the first caller of a function how memory is read in it.
    """
    typed = Hook("fork", FORK.params, (tp_btf("sched_fork"), raw_tracepoint("sched_fork")))
    unit = fused(FILES, hooks=(BORN, typed, READ))

    assert [program.kind for program in unit.programs if program.hook == "fork"] == ["tp_btf", "raw_tracepoint"]
    text = function(unit, "cb_fork_0")
    assert "int cb_fork_0(unsigned long long *ctx)\n" in text
    assert "\tstruct task_struct *parent = (struct task_struct *)ctx[0];\n" in text
    assert ".now_ns = bpf_ktime_get_ns(), .typed = true };" in text
    assert unit.text.index("cb_fork_1(") < unit.text.index("kfunc__vfs_read(") < unit.text.index("cb_fork_0(")


def test_an_entry_that_follows_the_target():
    """It runs while the agent looks around as well; what counts, only when the run is on, and after the target."""
    assert function(fused(FILES), "cb_born_0") == (
        "int cb_born_0(struct bpf_raw_tracepoint_args *ctx)\n"
        "{\n"
        "\tint zero = 0;\n"
        "\tstruct cb_config *config = cb_config.lookup(&zero);\n"
        "\tif (!config || config->phase == CB_OFF)\n"
        "\t\treturn 0;\n"
        "\tstruct task_struct *parent = (struct task_struct *)ctx->args[0];\n"
        "\tstruct cb_event event = { .ctx = ctx, .config = config, .now_ns = bpf_ktime_get_ns() };\n"
        "\tfollow_on_born(&event, parent);\n"
        "\tif (config->phase != CB_ON)\n"
        "\t\treturn 0;\n"
        "\tcb_raise_born(&event, parent);\n"
        "\treturn 0;\n"
        "}\n"
    )


def test_arguments_by_place_and_by_expression():
    """Each source says where its arguments are; the clock is not read for an untimed hook."""
    unit = fused(FILES)
    fexit_, fentry_ = function(unit, "kretfunc__vfs_read"), function(unit, "kfunc__vfs_read")

    assert "(unsigned long long *ctx)" in fexit_
    assert "\tlong got = (long)ctx[3];\n" in fexit_
    assert "\tlong got = (long)0;\n" in fentry_
    assert ".now_ns = 0 }" in fexit_
    assert "// fexit:vfs_read\n" in unit.text


def from_kprobes(*sources):
    hook = Hook("read", READ.params, sources, timed=False)
    return fused(FILES, hooks=(SWITCH, RAN, hook))


def test_arguments_in_registers():
    """They are counted from 1; a kretprobe that requires only the result is one program."""
    unit = from_kprobes(kprobe("vfs_read", 1, "0"), kprobe("vfs_read"))

    assert "\tstruct file *file = (struct file *)PT_REGS_PARM2(ctx);\n" in function(unit, "cb_read_0")
    unit = fused(FILES, hooks=(SWITCH, RAN, Hook("read", ("long got",), (kretprobe("vfs_read", RESULT),))))
    assert "\tlong got = (long)PT_REGS_RC(ctx);\n" in function(unit, "cb_read_0")
    assert unit.programs[-1].parts == (unit.programs[-1],)
    assert "cb_entered" not in unit.maps


def test_functions_of_user_space():
    """By their registers, as a kprobe; at the return there is the result, and no second program that keeps more."""
    hooks = (
        Hook("wants", ("unsigned long mutex", "unsigned long at"), (uprobe("lock/timedlock", 0, "cb_called_at(ctx)"),)),
        Hook("answers", ("int answer",), (uretprobe("lock/timedlock"),)),
    )
    wants, answers = (Program(f"cb_{hook.name}_0", hook.name, hook.sources[0]) for hook in hooks)

    assert [wants.parts, answers.parts] == [(wants,), (answers,)]
    text = entry(wants, hooks[0], frozenset())
    assert "// uprobe:lock/timedlock\nint cb_wants_0(struct pt_regs *ctx)" in text
    assert "unsigned long mutex = (unsigned long)PT_REGS_PARM1(ctx);" in text
    assert "unsigned long at = (unsigned long)cb_called_at(ctx);" in text
    assert "int answer = (int)PT_REGS_RC(ctx);" in entry(answers, hooks[1], frozenset())


def test_a_return_that_needs_no_argument():
    """Arguments are saved only for a handler that needs one: neither constants nor the result do."""
    for source, parts in ((kretprobe("down", "NULL"), 1), (kretprobe("down", RESULT), 1), (kretprobe("down", 0), 2)):
        assert len(Program("cb_left_0", "left", source).parts) == parts


def test_arguments_at_the_return():
    """Fetched where the function is entered, whether a run is on or not, and taken from there, by the same number."""
    unit = from_kprobes(kretprobe("vfs_read", "file_of(iocb)", RESULT, own=("struct kiocb *iocb",)))
    (program,) = [program for program in unit.programs if program.hook == "read"]
    number = unit.programs.index(program)

    assert [(part.name, str(part.source)) for part in program.parts] == [
        ("cb_read_0_enters", "kprobe:vfs_read"),
        ("cb_read_0", "kretprobe:vfs_read"),
    ]
    assert "cb_entered" in unit.maps
    assert function(unit, "cb_read_0_enters") == (
        "int cb_read_0_enters(struct pt_regs *ctx)\n"
        "{\n"
        "\tint zero = 0;\n"
        "\tstruct cb_config *config = cb_config.lookup(&zero);\n"
        "\tif (!config)\n"
        "\t\treturn 0;\n"
        "\tstruct kiocb *iocb = (struct kiocb *)PT_REGS_PARM1(ctx);\n"
        "\tstruct file *file = (struct file *)file_of(iocb);\n"
        "\tstruct cb_entered entered = { .with = { (u64)file } };\n"
        "\tstruct cb_event event = { .ctx = ctx, .config = config };\n"
        f"\tcb_enter(&event, {number}, &entered);\n"
        "\treturn 0;\n"
        "}\n"
    )
    assert function(unit, "cb_read_0") == (
        "int cb_read_0(struct pt_regs *ctx)\n"
        "{\n"
        "\tint zero = 0;\n"
        "\tstruct cb_config *config = cb_config.lookup(&zero);\n"
        "\tif (!config || config->phase != CB_ON)\n"
        "\t\treturn 0;\n"
        "\tstruct cb_entered entered;\n"
        f"\tif (!cb_return({number}, &entered))\n"
        "\t\treturn 0;\n"
        "\tstruct file *file = (struct file *)entered.with[0];\n"
        "\tlong got = (long)PT_REGS_RC(ctx);\n"
        "\tstruct cb_event event = { .ctx = ctx, .config = config, .now_ns = 0 };\n"
        "\tcb_raise_read(&event, file, got);\n"
        "\treturn 0;\n"
        "}\n"
    )


def test_a_hook_calls_every_module_that_handles_it():
    """In the order of the modules, each with its own values; not those that are off."""
    assert function(fused(FILES, TASKS), "cb_raise_fork") == (
        "static __always_inline void cb_raise_fork(struct cb_event *ev, struct task_struct *parent, int flags)\n"
        "{\n"
        "\tint zero = 0;\n"
        "\tstruct cb_files *for_files = cb_collects(ev, 0x1) ? cb_files.lookup(&zero) : NULL;\n"
        "\tif (for_files)\n"
        "\t\tfiles_on_fork(ev, for_files, parent, flags);\n"
        "\tstruct cb_tasks *for_tasks = cb_collects(ev, 0x2) ? cb_tasks.lookup(&zero) : NULL;\n"
        "\tif (for_tasks)\n"
        "\t\ttasks_on_fork(ev, for_tasks, parent, flags);\n"
        "}\n"
    )
    assert "tasks" not in function(fused(FILES), "cb_raise_fork")


def test_a_handler_of_several_hooks():
    """It is called for each of them; who handles it handles them all."""
    clone = replace(FORK, name="clone", sources=(raw_tracepoint("sched_clone"),), handler="fork")
    unit = fused(FILES, hooks=(*HOOKS, clone))

    assert [program.source.target for program in unit.programs if program.hook == "clone"] == ["sched_clone"]
    assert "\t\tfiles_on_fork(ev, for_files, parent, flags);\n" in function(unit, "cb_raise_clone")
    assert "\tcb_raise_clone(&event, parent, flags);\n" in function(unit, "cb_clone_0")


@pytest.mark.parametrize("modules", [(), (FILES,), (TIMES,)], ids=["none", "another", "its own"])
def test_the_state_machine_and_the_target_are_always_there(modules):
    """Every run may have a target, and a ledger; who is off hears nothing of it."""
    unit = fused(*modules)

    assert {"born", "switch"} <= {program.hook for program in unit.programs}
    assert "\tsched_on_switch(ev, state);\n" in function(unit, "cb_raise_switch")
    assert "\tfollow_on_born(&event, parent);\n" in function(unit, "cb_born_0")
    assert ("times_on_ran(ev, for_times, ns);" in function(unit, "cb_raise_ran")) == (TIMES in modules)


def test_a_state_machine_that_somebody_hears():
    """It comes with its records and the hooks that it handles, and tells the modules what it raises."""
    unit = fused(FILES, DISK)

    assert "issue" in {program.hook for program in unit.programs}
    assert "cb_requests" in unit.maps
    assert "\tblock_on_issue(ev, rq);\n" in function(unit, "cb_raise_issue")
    assert "\t\tdisk_on_done(ev, for_disk, request);\n" in function(unit, "cb_raise_done")


@pytest.mark.parametrize("modules", [(), (FILES, TIMES)], ids=["none", "others"])
def test_a_state_machine_that_nobody_hears(modules):
    """Neither it nor its records nor its hooks are there: nothing is paid for it."""
    unit = fused(*modules)

    assert "issue" not in {program.hook for program in unit.programs}
    assert not re.search(r"block_on_|struct cb_request\b|cb_raise_done", unit.text)


def test_everything_is_defined_before_it_is_used():
    """Headers, records, the following, modules, what state machines raise, these, what raises them, the entries."""
    text = fused(TIMES, FILES, DISK).text
    order = (
        "struct cb_config {", "struct cb_process {", "cb_get_or_add_process(",
        "bool cb_is_member(", "struct cb_task {", "follow_on_born(",
        "struct cb_times {", "times_on_ran(", "struct cb_files {", "struct cb_request {", "disk_on_done(",
        "cb_raise_ran(", "cb_raise_done(", "sched_on_switch(", "block_on_issue(",
        "cb_raise_switch(", "cb_raise_issue(", "cb_identify(", "int cb_switch_0(",
    )  # fmt: skip
    places = [text.index(part) for part in order]

    assert places == sorted(places)
    assert "#pragma once" not in text


def test_the_values_of_a_module():
    """Sizes come from the declaration: for C as macros, and as the struct's fields, scratch behind the metrics."""
    assert (
        "// What was read?\n"
        "#define FILES_BY_SIZE_ENTRIES 12\n"
        "#define FILES_BY_TASK_ENTRIES 77\n"
        "#define FILES_PENDING_ENTRIES 5\n"
        "#define FILES_NTH_ENTRIES 3\n"
        "struct cb_files {\n"
        "\tu64 reads;\n"
        "\tu64 by_size[12];\n"
        "\tstruct cb_histogram took_ns;\n"
        "\tu64 nth[3];\n"
        "};\n"
        "BPF_PERCPU_ARRAY(cb_files, struct cb_files, 1);\n"
    ) in fused(FILES).text


@pytest.mark.parametrize(("sources", "entries"), [((raw_tracepoint("sched_fork"),), (77, 5)), ((), (1, 1))])
def test_the_maps_of_an_option(sources, entries):
    """They take no memory where the option is not loaded; the others are as they were."""
    option = "files:order"
    metrics = tuple(replace(m, option=option) if isinstance(m, Keyed) else m for m in FILES.metrics)
    scratch = (replace(FILES.scratch[0], option=option), FILES.scratch[1])
    module = replace(FILES, metrics=metrics, scratch=scratch, options=("order",))
    hooks = [replace(hook, option=option) if hook is FORK else hook for hook in HOOKS]
    unit = fuse([module], hooks, lambda hook: sources if hook.option else hook.sources, lambda _field: False)

    sizes = dict(re.findall(r"#define FILES_(\w+)_ENTRIES (\d+)", unit.text))
    by_task, pending = map(str, entries)
    assert sizes == {"BY_SIZE": "12", "BY_TASK": by_task, "PENDING": pending, "NTH": "3"}


def test_the_record_of_a_process():
    """As it is written for these modules (test_process_records.py)."""
    assert process_records.process_h([TASKS, FILES]) in fused(TASKS, FILES).text


def test_what_follows_the_target():
    """Attached in every run, whatever the modules: these hooks also say which processes there are."""
    assert fused(TASKS).follows == {"born"}


def test_maps_are_found():
    """Every one, once: those of the headers, the modules' own and their values."""
    assert set(fused(FILES).maps) == {
        *("cb_config", "cb_loss", "cb_tasks", "cb_on_cpu", "cb_identity", "cb_processes", "cb_process_claims"),
        *("cb_ended", "cb_ended_threads", "cb_recorded_ended", "cb_preempt_count", "cb_quota_waits", "cb_cuts"),
        *("cb_files", "files_by_task", "files_pending"),
    }


def test_members_that_this_kernel_has():
    """Asked for by "struct.member", defined in the unit as CB_HAS_<key>."""
    asked = []

    def has(field):
        asked.append(field)
        return field == "task_struct.__state"

    text = fused(FILES, has_field=has).text

    assert set(asked) == set(FIELDS.values())
    assert re.findall(r"^#define CB_HAS_(\w+)", text, re.MULTILINE) == ["TASK___STATE"]


def test_a_hook_without_a_source_here():
    """It has no program, and the unit is written all the same."""
    unit = fuse([FILES], HOOKS, lambda hook: () if hook is READ else hook.sources, lambda _field: False)

    assert [program.hook for program in unit.programs] == ["born", "fork", "switch"]
    assert "cb_raise_read" in unit.text


def test_an_unknown_kind_of_metric():
    """Nothing is left out of the struct silently."""
    keyed = FILES.keyed[0]
    with pytest.raises(TypeError, match=r"by_task.*has no field in the per-CPU struct"):
        module_values._field(keyed)


def test_a_source_that_gives_too_little():
    """Every parameter comes from somewhere."""
    short = Hook("fork", FORK.params, (raw_tracepoint("sched_fork", 0),))
    with pytest.raises(ValueError, match="zip"):
        fused(TASKS, hooks=[short, SWITCH, RAN])
