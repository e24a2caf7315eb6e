"""The prototype in this kernel's BTF decides which sources fit; what does not fit has a reason."""

from dataclasses import replace

import pytest

from chainbench_agent.catalog import RESULT, Hook, fentry, fexit, kprobe, kretprobe, raw_tracepoint, tp_btf
from chainbench_agent.loading.attach_points import eligible, is_needed
from chainbench_agent.probes import HOOKS

TASK = "struct task_struct *"


class FakeBtf:
    """`tracepoints` and `functions`: name → arguments as C spells them."""

    def __init__(self, tracepoints=None, functions=None):
        self.tracepoint_args = (tracepoints or {}).get
        self.function_args = (functions or {}).get
        self.function_result = {}.get


def hook(*sources, params=(f"{TASK}task", "unsigned int state")):
    return Hook("hook", params, sources)


def test_all_that_fit_in_order():
    """The best is the first that fits; the loader tries the others after it."""
    found = hook(fentry("f"), raw_tracepoint("t"), fexit("f", 0, 1))
    btf = FakeBtf({"t": (TASK, "unsigned int")}, {"f": (TASK, "int")})

    assert eligible(found, btf) == (list(found.sources), "")


def test_the_fallback_is_taken():
    """The first does not fit, the second does: it is used, and the first says why it is not."""
    found = hook(raw_tracepoint("t"), raw_tracepoint("t", 1, "state_of(task)"))
    btf = FakeBtf({"t": ("bool", TASK)})

    sources, reason = eligible(found, btf)

    assert sources == [found.sources[1]]
    assert reason == "raw_tracepoint:t: this kernel passes 'bool' where 'struct task_struct *task' is expected"


def test_arguments_that_expressions_use():
    """Their types must be right too, though the hook does not have them."""
    expressions = ("task_of(iocb)", "state_of(iocb)")
    fitting, other = (
        fentry(name, *expressions, own=("struct kiocb *iocb", "struct iov_iter *to")) for name in ("read", "write")
    )
    btf = FakeBtf(functions={"read": ("struct kiocb *", "struct iov_iter *"), "write": ("struct file *",)})

    sources, reason = eligible(hook(other, fitting), btf)

    assert sources == [fitting]
    assert reason == "fentry:write: this kernel passes 'struct file *' where 'struct kiocb *iocb' is expected"


def test_results():
    """After the arguments for fexit, RESULT for a kretprobe; its type must be right.  At an entry there is none."""
    sources = (fexit("f", 1, 2), kretprobe("f", 1, RESULT))
    functions = {"f": ("int", TASK)}
    btf = FakeBtf(functions=functions)
    btf.function_result = {"f": "int"}.get
    assert eligible(hook(*sources), btf) == (list(sources), "")

    btf.function_result = {"f": "struct file *"}.get
    found, reason = eligible(hook(*sources), btf)
    assert found == []
    for source in sources:
        assert f"{source}: this kernel passes 'struct file *' where 'unsigned int state' is expected" in reason
    assert (
        eligible(hook(kprobe("f", 1, 2)), btf)[1] == "kprobe:f: this kernel passes no argument 2 (unsigned int state)"
    )


def test_an_option_that_was_not_asked_for():
    """A hook of an option that is off is not attached, and the reason says how to select it."""
    found = replace(hook(raw_tracepoint("t")), option="locks:order")
    btf = FakeBtf({"t": (TASK, "unsigned int")})

    for options in ((), ("locks",), ("locks:holders",)):
        assert eligible(found, btf, options) == ([], "not asked for: start the agent with --probes locks:order")
    assert eligible(found, btf, ("locks:order",)) == (list(found.sources), "")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (raw_tracepoint("none"), "raw_tracepoint:none: this kernel has no such tracepoint"),
        (fentry("none"), "fentry:none: this kernel has no such function"),
        (raw_tracepoint("short"), "raw_tracepoint:short: this kernel passes no argument 1 (unsigned int state)"),
        (
            fexit("request"),
            "fexit:request: this kernel passes 'struct request *' where 'struct task_struct *task' is expected",
        ),
        (
            raw_tracepoint("by_value"),
            "raw_tracepoint:by_value: this kernel passes 'struct state' where 'unsigned int state' is expected",
        ),
        (
            raw_tracepoint("pointer"),
            "raw_tracepoint:pointer: this kernel passes 'unsigned int *' where 'unsigned int state' is expected",
        ),
    ],
)
def test_what_does_not_fit(source, reason):
    """Nothing is attached to a place that passes something else: it would read memory as what it is not."""
    btf = FakeBtf(
        {
            "short": (TASK,),
            "by_value": (TASK, "struct state"),
            "pointer": (TASK, "unsigned int *"),
        },
        {"request": ("struct request *", "int")},
    )

    assert eligible(hook(source), btf) == ([], reason)


@pytest.mark.parametrize("offered", ["int", "unsigned int", "long unsigned int", "u64", "enum pm", "bool"])
def test_integers_may_be_called_differently(offered):
    """Only their value is passed on."""
    source = raw_tracepoint("t")

    assert eligible(hook(source), FakeBtf({"t": (TASK, offered)})) == ([source], "")


def test_a_typed_raw_tracepoint_passes_what_the_tracepoint_does():
    typed, plain = tp_btf("t"), raw_tracepoint("t")
    offered = FakeBtf({"t": (TASK, "unsigned int")})

    assert eligible(hook(typed, plain), offered) == ([typed, plain], "")
    assert eligible(hook(tp_btf("none")), offered) == ([], "tp_btf:none: this kernel has no such tracepoint")


def test_const_makes_no_difference():
    source = raw_tracepoint("t")
    assert eligible(hook(source), FakeBtf({"t": ("const struct task_struct *", "const int")})) == ([source], "")


def test_several_reasons():
    """One for each source, so that people see what was tried."""
    _, reason = eligible(hook(raw_tracepoint("a"), fentry("b")), FakeBtf())

    assert reason == "raw_tracepoint:a: this kernel has no such tracepoint; fentry:b: this kernel has no such function"


SWITCH = ("bool", TASK, TASK)
REQUEST = "struct request *"


@pytest.mark.parametrize(
    ("name", "offered", "index"),
    [
        ("sched_switch", (*SWITCH, "unsigned int"), 0),
        ("sched_switch", SWITCH, 1),
        ("block_rq_issue", (REQUEST,), 0),
        ("block_rq_issue", ("struct request_queue *", REQUEST), 1),
    ],
    ids=["switch since 5.18", "switch before", "block since 5.11", "block before"],
)
def test_the_hooks_that_differ(name, offered, index):
    """For each generation of kernels the source that is written for it is the first that fits."""
    found = next(hook for hook in HOOKS if hook.name == name)

    sources, _ = eligible(found, FakeBtf({name: offered}))

    assert sources[0] == found.sources[index]


def test_a_raised_hook_has_no_sources():
    assert eligible(Hook("ran", ("u64 ns",), raised_on=("sched_switch",)), FakeBtf()) == ([], "")


def test_an_optional_hook_may_be_nowhere():
    """Then nothing is missed; but one that is there and does not fit is."""
    optional = Hook("hook", ("void *object",), (raw_tracepoint("t", 1),), optional=True)

    assert eligible(optional, FakeBtf()) == ([], "")
    assert eligible(optional, FakeBtf({"t": ("void *", "void *")})) == (list(optional.sources), "")
    assert eligible(optional, FakeBtf({"t": ("void *", "int")}))[1].startswith("raw_tracepoint:t: this kernel passes")


def test_a_hook_whose_events_come_by_another():
    """It is not wanted where the place exists that makes it needless, be that a tracepoint or a function."""
    for place, btf in (
        (raw_tracepoint("t"), FakeBtf({"t": (TASK,)})),
        (fexit("f"), FakeBtf(functions={"f": (TASK,)})),
    ):
        found = Hook("ran", (f"{TASK}task",), (fentry("g"),), unless=place)
        assert not is_needed(found, btf)
        assert is_needed(found, FakeBtf())
    assert is_needed(hook(fentry("g")), FakeBtf({"t": (TASK,)}))
