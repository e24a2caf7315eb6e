"""The measured backend over a machine of our own making: what it asks of it, and what it says of it."""

import errno
import os
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from chainbench_agent import collector as collectors
from chainbench_agent.catalog import Counter, Derived, Hook, Module, Names, raw_tracepoint
from chainbench_agent.catalog.selection import EVERYTHING, Selection
from chainbench_agent.collector import ebpf
from chainbench_agent.collector.ebpf import EbpfCollector
from chainbench_agent.errors import InputError
from chainbench_agent.evidence.build import NO_LEDGER
from chainbench_agent.evidence.model import Run, Target
from chainbench_agent.evidence.sample import ProgramRun, Sample
from chainbench_agent.kernel.agent_pids import Identity
from chainbench_agent.kernel.targets.kernel_target import INITIAL_PID_NAMESPACE, KernelTarget, TargetKind
from chainbench_agent.loading.entry_functions import Program
from chainbench_agent.loading.event_records import EventOptions
from chainbench_agent.model.run_request import RunRequest
from chainbench_agent.settings import load_settings

RUN = Run(id="1", machine="host", started_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=1, ended_by="stop")

HOOKS = (
    Hook("fork", ("int x",), (raw_tracepoint("fork"),)),
    Hook("switch", ("int x",), (raw_tracepoint("switch"),)),
    Hook("wakeup", ("int x",), (raw_tracepoint("wakeup"),)),
    Hook("waited", ("u64 ns",), raised_on=("switch", "wakeup")),
    Hook("submit", ("int x",), (raw_tracepoint("submit"),), targeted=True),
    Hook("done", ("u64 ns",), raised_on=("switch", "submit")),
)
EXEC = Module(
    name="exec",
    question="?",
    metrics=(
        Counter(name="forks", help="", hooks=("fork",)),
        Counter(name="threads", help="", hooks=("fork",), reported=False),
        Derived(name="total", help="", of=("forks", "threads")),
    ),
    derive=lambda counts, _names: {"total": counts["forks"] + counts["threads"]},
)
SCHED = Module(
    name="sched",
    question="?",
    metrics=(
        Counter(name="wait_ns", help="", hooks=("waited",)),
        Counter(name="quota", help="", hooks=("switch",), needs="cfs_bandwidth", reported=False),
        Derived(name="stops", help="", of=("quota",)),
        Counter(name="switches", help="", hooks=("switch",)),
    ),
    derive=lambda counts, _names: {"stops": counts["quota"]},
)
DISK = Module(name="disk", question="?", metrics=(Counter(name="requests", help="", hooks=("done",)),))


class FakeMachine:
    """Counts calls and events; `absent`: hook → reason, `fails`: call → error."""

    def __init__(self, absent=None, facts=None, absent_modules=None):
        self.absent, self.facts = absent or {}, facts or {}
        self.calls, self.fails = [], {}
        self.target, self.present = None, set()
        self.counts = {
            "exec": {"forks": 100, "threads": 10},
            "sched": {"wait_ns": 0, "quota": 0, "switches": 0},
            "disk": {"requests": 0},
        }
        self.now_ns = 1000
        self.no_cost = ""
        self.unknown_of_waits = {}
        self.identity = Identity((os.getpid(), os.getpid()), 0, called_bpf=True)
        self.unavailable_in_target, self.unavailable_then = {}, {}
        self.unit = SimpleNamespace(
            absent_modules=absent_modules or {},
            loaded=SimpleNamespace(bcc_version="0.26"),
            header_tree="/cache/tree",
        )

    def __call__(self, modules, hooks, cache_dir, options, *, events):
        self.options = options
        self.ring = "a ring" if events else None
        self.hooks = {hook.name: hook for hook in hooks}
        self.modules = tuple(m for m in modules if m.name not in self.unit.absent_modules)
        chosen = {
            hook.name: Program(f"cb_{hook.name}_0", hook.name, hook.sources[0])
            for hook in hooks
            if hook.sources and hook.name not in self.absent
        }
        self.programs = SimpleNamespace(chosen=chosen)
        self.cache_dir = cache_dir
        return self

    def absent_hook(self, name, *, targeted):
        return "; ".join(filter(None, (self.absent.get(on, "") for on in self.on(name, targeted))))

    def sources_of(self, name, *, targeted):
        return [str(self.programs.chosen[on].source) for on in self.on(name, targeted) if on in self.programs.chosen]

    def on(self, name, targeted):
        on = self.hooks[name].raised_on or (name,)
        return [hook for hook in on if targeted or not self.hooks[hook].targeted]

    def lacks(self, fact):
        return self.facts.get(fact, "")

    def call(self, name):
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]

    def attach(self, target, selection):
        self.target, self.selection = target, selection
        self.unavailable_in_target = self.unavailable_then
        named = [self.hooks[name] for m in self.modules if selection.collects(m.name) for name in m.hooks]
        on = {on for hook in named for on in hook.raised_on or (hook.name,)}
        self.selected_hooks = on & self.programs.chosen.keys()
        self.call("attach")

    def begin(self):
        self.call("begin")
        return self.read(self.now_ns)

    def end(self):
        self.call("end")
        return self.read(self.now_ns)

    def detach(self):
        self.call("detach")

    def close(self):
        self.call("close")

    def sample(self):
        self.call("sample")
        return self.read(-1)

    def read(self, at_ns):
        modules = {module.name: dict(self.counts[module.name]) for module in self.modules}
        return Sample(at_ns, modules, programs=dict.fromkeys(self.programs.chosen, ProgramRun(0, 0, 0)))

    def target_processes(self):
        return self.present

    def names(self, first, last):
        assert first is not last
        return Names({}, {}, {}, {})


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """`opened(machine, *modules)` → a collector over it."""

    def over(machine, *modules):
        monkeypatch.setattr(ebpf, "Machine", machine)
        return EbpfCollector(modules or (EXEC, SCHED), HOOKS, tmp_path)

    return over


@pytest.fixture
def machine():
    return FakeMachine()


def test_a_run(opened, machine):
    """Attach and read before the run begins, read after it has ended, then detach; the difference is the evidence."""
    collector = opened(machine)
    collector.start(RunRequest())
    assert machine.calls == ["attach", "begin"]
    machine.counts["exec"] = {"forks": 123, "threads": 17}
    machine.now_ns = 5000
    collector.stop()
    assert machine.calls[2:] == ["end", "detach"]

    found = collector.evidence(RUN)

    assert found.sections["exec"]["forks"] == 23
    assert found.sections["exec"]["total"] == 30


def test_the_run_lasts_from_begin_to_end(opened, machine, monkeypatch):
    """Attaching and reading do not belong to the run: it begins and ends with the switch."""
    seen = {}

    def build(run, method, first, last, names):
        seen.update(run=run, first=first.at_ns, last=last.at_ns, cpus=method.cpus, names=names)

    monkeypatch.setattr(ebpf, "build", build)
    collector = opened(machine)
    collector.start(RunRequest())
    machine.now_ns = 5000
    collector.stop()
    machine.now_ns = 9000
    collector.evidence(RUN)

    assert (seen["first"], seen["last"]) == (1000, 5000)
    assert seen["run"] is RUN


def test_evidence_of_a_run_that_goes_on(opened, machine):
    """A sample of now, again and again; nothing is stopped by it."""
    collector = opened(machine)
    collector.start(RunRequest())
    for forks in (101, 105):
        machine.counts["exec"]["forks"] = forks
        assert collector.evidence(RUN).sections["exec"]["forks"] == forks - 100

    assert "end" not in machine.calls
    assert "detach" not in machine.calls


def test_evidence_of_a_run_that_has_ended_stays(opened, machine):
    """Until the next one starts; that one begins from its own first sample."""
    collector = opened(machine)
    collector.start(RunRequest())
    machine.counts["exec"]["forks"] = 107
    collector.stop()
    machine.counts["exec"]["forks"] = 150
    assert collector.evidence(RUN).sections["exec"]["forks"] == 7

    collector.start(RunRequest())
    machine.counts["exec"]["forks"] = 153
    assert collector.evidence(RUN).sections["exec"]["forks"] == 3


PROCESS = Target(kind="pid", pid=7)
TREE = KernelTarget(TargetKind.TREE, root=70)


@pytest.fixture
def resolved(monkeypatch):
    """Records which targets are looked up; process 7 of the caller is 70 here."""
    asked = []

    def resolve(target, caller):
        asked.append((target, caller))
        return TREE if target.pid == 7 else KernelTarget()

    monkeypatch.setattr(ebpf, "resolve", resolve)
    return asked


def test_a_target_is_looked_up_as_the_caller_means_it(opened, machine, resolved):
    """The kernel side gets the process here; the evidence has that number, and the one that was sent."""
    collector = opened(machine)
    collector.start(RunRequest(target=PROCESS, caller=90))

    assert resolved == [(PROCESS, 90)]
    assert machine.target == TREE
    target = collector.evidence(RUN).target
    assert (target.kind, target.pid, target.pid_as_sent) == ("pid", 70, 7)


def test_the_next_run_has_a_target_of_its_own(opened, machine, resolved):
    collector = opened(machine)
    for target in (PROCESS, Target()):
        collector.start(RunRequest(target=target))
        collector.stop()

    assert machine.target == KernelTarget()
    assert collector.evidence(RUN).target == Target(pid_namespace=INITIAL_PID_NAMESPACE)
    assert [caller for _, caller in resolved] == [None, None]


def test_there_is_no_such_target(opened, machine, monkeypatch):
    """Nothing is attached, and the evidence of the run before stays."""

    def refuse(target, caller):
        raise InputError("pid", f"there is no process {target.pid} {caller}")

    collector = opened(machine)
    collector.start(RunRequest())
    machine.counts["exec"]["forks"] = 107
    collector.stop()
    machine.calls.clear()
    monkeypatch.setattr(ebpf, "resolve", refuse)

    with pytest.raises(InputError, match="no process 7"):
        collector.start(RunRequest(target=PROCESS))

    assert machine.calls == []
    assert collector.evidence(RUN).sections["exec"]["forks"] == 7
    assert collector.evidence(RUN).target.kind == "machine"


def test_an_agent_in_a_pid_namespace(opened, machine, resolved):
    """It would look for processes under other numbers than the kernel side's: only the machine can be measured."""
    machine.identity = Identity((os.getpid() + 1, os.getpid() + 1), 0, called_bpf=True)
    collector = opened(machine)

    for target in (PROCESS, Target(kind="cgroup", cgroup="/a")):
        with pytest.raises(InputError, match=f"{target.kind}: the agent runs in a PID namespace") as caught:
            collector.start(RunRequest(target=target))
        assert "--pid host" in caught.value.remedy
    assert resolved == []
    collector.start(RunRequest())
    assert machine.target == KernelTarget()


@pytest.mark.usefixtures("resolved")
@pytest.mark.parametrize(
    ("target", "present", "gone"), [(PROCESS, {70, 71}, False), (PROCESS, set(), True), (Target(), set(), False)]
)
def test_whether_the_target_has_ended(opened, machine, target, present, gone):
    """The target has ended if none of it is left; the whole machine never ends."""
    collector = opened(machine)
    collector.start(RunRequest(target=target))
    machine.present = present

    assert collector.target_has_ended() is gone


def test_no_evidence_without_a_run(opened, machine):
    with pytest.raises(RuntimeError, match="before a run was started"):
        opened(machine).evidence(RUN)


def test_a_stop_that_fails_detaches_all_the_same(opened, machine):
    """The kernel is left as it was, and the caller gets the error."""
    collector = opened(machine)
    collector.start(RunRequest())
    machine.fails["end"] = OSError(errno.EIO, "map lookup")

    with pytest.raises(OSError, match="map lookup"):
        collector.stop()

    assert machine.calls[-1] == "detach"


def test_a_module_that_could_not_be_read(opened, machine, monkeypatch, caplog):
    """The stop succeeds; the evidence says what is missing, and so does the log."""
    collector, end = opened(machine), machine.end
    collector.start(RunRequest())
    unread = {"exec": "its figures could not be read: map lookup"}
    of_others = {"sched": {"wait_ns": 0, "quota": 0, "switches": 0}}
    monkeypatch.setattr(machine, "end", lambda: replace(end(), modules=of_others, unread=unread))
    collector.stop()
    evidence = collector.evidence(RUN)

    assert evidence.unavailable == {"exec": "its figures could not be read: map lookup"}
    assert list(evidence.sections) == ["sched"]
    assert "module exec is missing from the evidence: its figures could not be read: map lookup" in caplog.text


def test_a_start_that_fails_detaches(opened, machine):
    """Programs are detached, as a run that has not started is never stopped."""
    machine.fails["begin"] = OSError(errno.EIO, "map lookup")
    with pytest.raises(OSError, match="map lookup"):
        opened(machine).start(RunRequest())

    assert machine.calls[-1] == "detach"


EXEC_ONLY = Selection(("exec",), 10)


def test_some_of_the_modules(opened, machine, monkeypatch):
    """Nothing else is attached, in the evidence, or in what it cost; the next run has all of them again."""
    methods = []
    monkeypatch.setattr(ebpf, "build", lambda _run, method, *_: methods.append(method))
    collector = opened(machine)
    for selection in (EXEC_ONLY, EVERYTHING):
        collector.start(RunRequest(selection=selection))
        assert machine.selection == selection
        collector.stop()
        collector.evidence(RUN)
    some, all_ = methods

    assert (some.modules, all_.modules) == ((EXEC,), (EXEC, SCHED))
    assert (some.sample_interval, all_.sample_interval) == (10, 1)
    assert some.program_sources == {"fork": "raw_tracepoint:fork"}
    assert all_.program_sources.keys() == {"fork", "switch", "wakeup"}
    assert (some.sources.keys(), some.unavailable, some.absent) == ({"exec"}, {"exec": {}}, {})


def test_a_module_that_was_not_chosen_is_not_absent(opened):
    """It was not selected, so it has no reason; one that was selected and is down has its own."""
    machine = FakeMachine(absent={"fork": "no such tracepoint"})
    collector = opened(machine)
    found = []
    for name in ("sched", "exec"):
        collector.start(RunRequest(selection=Selection((name,))))
        found.append(collector.evidence(RUN))
        collector.stop()

    assert [list(evidence.sections) for evidence in found] == [["sched"], []]
    assert [evidence.unavailable for evidence in found] == [{}, {"exec": "no such tracepoint"}]


LOCKS = Module(
    name="locks",
    question="?",
    options=("order",),
    metrics=(
        Counter(name="waits", help="", hooks=("switch",)),
        Counter(name="cycles", help="", hooks=("acquired",)),
    ),
)
ACQUIRED = Hook("acquired", ("int x",), (raw_tracepoint("acquired"),), option="locks:order")
NOT_LOADED = "not asked for: start the agent with --probes locks:order"
NOT_IN_RUN = "not asked for: name locks:order in the run's probes"


def test_functions_that_the_target_does_not_have(monkeypatch, tmp_path):
    """The metric is absent from that run, with the reason, and is there in the next one."""
    machine = FakeMachine()
    monkeypatch.setattr(ebpf, "Machine", machine)
    collector = EbpfCollector((EXEC, SCHED), HOOKS, tmp_path)
    found = []
    for machine.unavailable_then in ({"fork": "no C library has it"}, {}):
        collector.start(RunRequest())
        collector.stop()
        found.append(collector.evidence(RUN).sections["exec"])

    assert found[0]["unavailable"] == dict.fromkeys(("forks", "total"), "no C library has it")
    assert not {"forks", "total"} & {*found[0], *found[0]["sources"]}
    assert {"forks", "total"} <= {*found[1]} & {*found[1]["sources"]}


@pytest.mark.parametrize(
    ("loaded", "selection", "reason"),
    [
        ((), EVERYTHING, NOT_LOADED),
        (("locks:order",), EVERYTHING, NOT_IN_RUN),
        (("locks:order",), Selection(("locks",)), NOT_IN_RUN),
        (("locks:order",), Selection(("locks", "locks:order")), None),
    ],
)
def test_an_option(monkeypatch, tmp_path, loaded, selection, reason):
    """Its metrics are measured where it was asked for twice; elsewhere they are absent, and no zero.

    Not asking for it takes nothing from the module's state.
    """
    machine = FakeMachine(absent={} if loaded else {"acquired": NOT_LOADED})
    machine.counts["locks"] = {"waits": 0, "cycles": 0}
    monkeypatch.setattr(ebpf, "Machine", machine)
    collector = EbpfCollector([LOCKS], [*HOOKS, ACQUIRED], tmp_path, loaded)
    collector.start(RunRequest(selection=selection))
    section = collector.evidence(RUN).sections["locks"]
    (status,) = collector.status().modules

    assert (status.state, status.options) == ("up", {"order": "up" if loaded else "off"})
    assert status.loaded == ("locks", *loaded)
    assert section["waits"] == 0
    assert section.get("unavailable") == ({"cycles": reason} if reason else None)
    assert ("cycles" in section, "cycles" in section["sources"]) == (not reason, not reason)


def test_close(opened, machine):
    opened(machine).close()
    assert machine.calls == ["close"]


def test_everything_works(opened, machine):
    """Each metric with its source: a derived one with its parts', a raised hook's with those it is raised on."""
    status = opened(machine).status()

    assert [(module.name, module.state, module.reason, module.unavailable) for module in status.modules] == [
        ("exec", "up", "", {}),
        ("sched", "up", "", {}),
    ]
    assert status.modules[0].sources == {"forks": "raw_tracepoint:fork", "total": "raw_tracepoint:fork"}
    assert status.modules[1].sources == {
        "wait_ms": "raw_tracepoint:switch, raw_tracepoint:wakeup",
        "stops": "raw_tracepoint:switch",
        "switches": "raw_tracepoint:switch",
    }
    assert (status.backend, status.reason, status.remedy) == ("ebpf", "", "")
    assert status.details["bcc"] == "0.26"
    assert status.details["headers"] == "BTF (/cache/tree)"


def test_hooks_with_what_feeds_them(opened):
    """Hooks that are raised have no source of their own, and are not listed."""
    status = opened(FakeMachine(absent={"wakeup": "no such tracepoint"})).status()

    assert [(hook.name, hook.source, hook.reason) for hook in status.hooks] == [
        ("fork", "raw_tracepoint:fork", ""),
        ("switch", "raw_tracepoint:switch", ""),
        ("wakeup", "", "no such tracepoint"),
        ("submit", "raw_tracepoint:submit", ""),
    ]


def test_a_hook_is_missing(opened):
    """A figure that needs it is unavailable with the reason, in the evidence, too; the rest is measured."""
    machine = FakeMachine(absent={"wakeup": "no such tracepoint"})
    collector = opened(machine)
    (exec_, sched) = collector.status().modules

    assert exec_.state == "up"
    assert (sched.state, sched.reason) == ("degraded", "")
    assert sched.unavailable == {"wait_ms": "no such tracepoint"}
    assert "wait_ms" not in sched.sources
    collector.start(RunRequest())
    found = collector.evidence(RUN)
    assert found.sections["sched"]["unavailable"] == {"wait_ms": "no such tracepoint"}
    assert "wait_ms" not in found.sections["sched"]


def test_a_fact_is_missing(opened):
    """A figure derived from a metric that needs the fact is unavailable, as it would be a guess."""
    (_, sched) = opened(FakeMachine(facts={"cfs_bandwidth": "no CFS_BANDWIDTH"})).status().modules

    assert sched.unavailable == {"stops": "no CFS_BANDWIDTH"}


def test_a_hook_that_only_a_target_needs_is_missing(opened):
    """The whole machine is measured without it; in a run with a target it is the reason why there is nothing."""
    collector = opened(FakeMachine(absent={"submit": "no such tracepoint"}), DISK)
    (disk,) = collector.status().modules
    found = []
    for target in (Target(), Target(kind="pid", pid=1), Target()):
        collector.start(RunRequest(target=target))
        collector.stop()
        found.append(collector.evidence(RUN))

    assert (disk.state, disk.sources) == ("up", {"requests": "raw_tracepoint:switch"})
    assert [evidence.unavailable for evidence in found] == [{}, {"disk": "no such tracepoint", "ledger": NO_LEDGER}, {}]
    assert ["disk" in evidence.sections for evidence in found] == [True, False, True]


def test_what_a_target_is_known_by_is_a_source(opened):
    """Named only where it is used."""
    collector = opened(FakeMachine(), DISK)
    collector.start(RunRequest(target=Target(kind="pid", pid=1)))

    sources = collector.evidence(RUN).sections["disk"]["sources"]

    assert sources == {"requests": "raw_tracepoint:switch, raw_tracepoint:submit"}


def test_nothing_of_a_module_works(opened):
    """It is down, and absent from the evidence with each reason once."""
    machine = FakeMachine(absent={"fork": "no such tracepoint"})
    collector = opened(machine)
    (exec_, _) = collector.status().modules
    collector.start(RunRequest())

    found = collector.evidence(RUN)

    assert (exec_.state, exec_.reason) == ("down", "no such tracepoint")
    assert found.unavailable == {"exec": "no such tracepoint"}
    assert list(found.sections) == ["sched"]


def test_a_module_that_does_not_compile(opened):
    """Down with clang's words; the others measure."""
    machine = FakeMachine(absent_modules={"exec": "exec.c:3: error"})
    collector = opened(machine)
    collector.start(RunRequest())

    assert replace(collector.status().modules[0]).reason == "exec.c:3: error"
    assert collector.evidence(RUN).unavailable == {"exec": "exec.c:3: error"}


def test_a_figure_of_processes_that_cannot_be_measured(opened):
    """It is only in top_processes, where it is left out, as a zero would be a claim there, too."""
    module = Module(
        name="sched",
        question="?",
        metrics=(
            Counter(name="switches", help="", hooks=("switch",), per_process=True),
            Counter(name="wait_ns", help="", hooks=("wakeup",), per_process=True, reported=False),
        ),
    )
    collector = opened(FakeMachine(absent={"wakeup": "no such tracepoint"}), module)
    collector.start(RunRequest())
    collector.stop()

    (status,) = collector.status().modules
    assert (status.state, status.unavailable) == ("degraded", {"wait_ms": "no such tracepoint"})
    found = collector.evidence(RUN).as_json()["sched"]
    assert (found["top_processes"], found["other_processes"]) == ([], {"switches": 0})
    assert found["unavailable"] == {"wait_ms": "no such tracepoint"}


@pytest.mark.parametrize(("events", "ring"), [(None, None), (EventOptions(), "a ring")])
def test_events_where_they_were_asked_for(monkeypatch, tmp_path, events, ring):
    """The machine emits them, and the collector has their ring."""
    monkeypatch.setattr("chainbench_agent.collector.ebpf.Machine", FakeMachine())

    assert EbpfCollector([EXEC], HOOKS, tmp_path, events=events).ring == ring


def test_events_learn_the_run_before_there_are_any(monkeypatch, tmp_path):
    """By the number that the kernel puts into each."""
    machine = FakeMachine()
    machine.run = 7
    monkeypatch.setattr("chainbench_agent.collector.ebpf.Machine", machine)
    collector = EbpfCollector([EXEC], HOOKS, tmp_path, events=EventOptions())
    collector.ring = SimpleNamespace(know=lambda *known: machine.calls.append(known))
    collector.start(RunRequest(), run_id="20260101T000000000Z-7")

    assert machine.calls == ["attach", (7, "20260101T000000000Z-7"), "begin"]


@pytest.mark.parametrize(
    ("settings", "telling"),
    [
        ({"slow_io_ms": "7"}, None),
        ({"events": True}, EventOptions(100_000_000)),
        ({"events": True, "slow_io_ms": "7"}, EventOptions(7_000_000)),
    ],
)
def test_what_the_settings_say_of_events(monkeypatch, settings, telling):
    """Whether they are emitted, and from which duration a request is slow."""
    asked = []
    monkeypatch.setattr(collectors, "needed_checks", list)
    monkeypatch.setattr(collectors, "EbpfCollector", lambda *_, events: asked.append(events))
    collectors.open_collector(load_settings(**settings))

    assert asked == [telling]
