"""One program per hook: the first that loads and attaches; every other descriptor is given back."""

import errno
import os

import pytest

from chainbench_agent.bpf import footprint, kretprobes, libbpf, perf_events
from chainbench_agent.catalog import RESULT, fentry, kretprobe, raw_tracepoint, uprobe, uretprobe
from chainbench_agent.evidence.sample import ProgramRun
from chainbench_agent.kernel import programs
from chainbench_agent.kernel.programs import Programs
from chainbench_agent.loading.entry_functions import Program
from chainbench_agent.symbols.libc_functions import FunctionLocation, LibcFunctions


@pytest.fixture
def kernel(monkeypatch):
    """Attaches all but `refuses`; remembers what was asked, as (tracepoint, program), and the links it gave."""

    class Kernel:
        def __init__(self):
            self.refuses = {}
            self.once = False
            self.asked = []
            self.links = []

        def attach(self, name, program):
            self.asked.append((name, program))
            if self.once and name is None and self.asked.count((name, program)) > 1:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            if program in self.refuses:
                raise OSError(self.refuses[program], f"attach {name}: {os.strerror(self.refuses[program])}")
            self.links.append(os.open(os.devnull, os.O_RDONLY))
            return self.links[-1]

    kernel = Kernel()
    monkeypatch.setattr(libbpf, "open_raw_tracepoint", kernel.attach)
    monkeypatch.setattr(perf_events, "open_kprobe", lambda name, fd, *, at_return: kernel.attach((name, at_return), fd))
    monkeypatch.setattr(kretprobes, "open_kretprobe", lambda name, fd: kernel.attach((name, True), fd))
    monkeypatch.setattr(
        perf_events, "open_uprobe", lambda *place, at_return: kernel.attach((*place[:2], at_return), place[2])
    )
    return kernel


@pytest.fixture
def descriptor():
    """`descriptor()` → one that is open, as a loaded program is."""
    made = []

    def make():
        made.append(os.open(os.devnull, os.O_RDONLY))
        return made[-1]

    yield make
    for fd in filter(is_open, made):
        os.close(fd)


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def program(hook, number=0, source=None):
    return Program(f"cb_{hook}_{number}", hook, source or raw_tracepoint(f"{hook}_{number}"))


def test_the_first_that_attaches(kernel, descriptor):
    """Tried once and detached; the second choice is closed untried."""
    loaded = {"cb_a_0": descriptor(), "cb_a_1": descriptor()}

    found = Programs.choose([program("a"), program("a", 1)], loaded, {})

    assert found.chosen == {"a": program("a")}
    assert found.absent == {}
    assert kernel.asked == [("a_0", loaded["cb_a_0"])]
    assert [is_open(fd) for fd in (*loaded.values(), *kernel.links)] == [True, False, False]


def test_the_fallback(kernel, descriptor):
    """One does not load, one does not attach, the third is taken: no reason is left."""
    loaded = {"cb_a_1": descriptor(), "cb_a_2": descriptor()}
    kernel.refuses[loaded["cb_a_1"]] = errno.ENOENT

    found = Programs.choose([program("a", n) for n in range(3)], loaded, {"cb_a_0": "R1 invalid"})

    assert found.chosen == {"a": program("a", 2)}
    assert found.absent == {}
    assert [is_open(fd) for fd in loaded.values()] == [False, True]


def test_no_choice(kernel, descriptor):
    """Every source says why; the other hooks are not concerned."""
    loaded = {"cb_a_1": descriptor(), "cb_b_0": descriptor()}
    kernel.refuses[loaded["cb_a_1"]] = errno.EPERM

    found = Programs.choose([program("a"), program("a", 1), program("b")], loaded, {"cb_a_0": "R1 invalid"})

    assert found.chosen == {"b": program("b")}
    assert found.absent == {
        "a": "raw_tracepoint:a_0 does not load: R1 invalid; "
        "raw_tracepoint:a_1 does not attach: attach a_1: Operation not permitted"
    }
    assert not is_open(loaded["cb_a_1"])


def test_a_failure_that_nobody_foresees(kernel, descriptor, monkeypatch):
    """Nothing that was loaded is left, be it chosen, under way or still to come; and nothing attached."""
    loaded = {f"cb_{hook}_0": descriptor() for hook in "abc"}
    attach = libbpf.open_raw_tracepoint
    monkeypatch.setattr(libbpf, "open_raw_tracepoint", lambda *args: attach(*args) if args[0] == "a_0" else 1 / 0)

    with pytest.raises(ZeroDivisionError):
        Programs.choose([program(hook) for hook in "abc"], loaded, {})

    assert [is_open(fd) for fd in (*loaded.values(), *kernel.links)] == [False] * 4


def test_a_tracing_program_knows_its_place(kernel, descriptor):
    """The kernel took the function's name when it was loaded.  It is tried twice, as there will be many runs."""
    fd = descriptor()
    found = Programs.choose([program("a", source=fentry("vfs_read"))], {"cb_a_0": fd}, {})

    assert kernel.asked == [(None, fd), (None, fd)]
    assert found.chosen == {"a": program("a", source=fentry("vfs_read"))}


def test_a_program_that_attaches_only_once(kernel, descriptor):
    """As tracing programs before Linux 5.13: it would be good for one run, so the next source is taken."""
    loaded = {"cb_a_0": descriptor(), "cb_a_1": descriptor()}
    kernel.once = True
    found = Programs.choose([program("a", source=fentry("vfs_read")), program("a", 1)], loaded, {})

    assert found.chosen == {"a": program("a", 1)}
    assert [is_open(fd) for fd in (*loaded.values(), *kernel.links)] == [False, True, False, False]


def test_why_it_is_not_taken(kernel, descriptor):
    """There is no other source."""
    fd = descriptor()
    kernel.once = True
    found = Programs.choose([program("a", source=fentry("vfs_read"))], {"cb_a_0": fd}, {})

    assert found.absent == {"a": "fentry:vfs_read does not attach: this kernel attaches such a program only once"}


@pytest.fixture
def pair(descriptor):
    """A kretprobe that requires an argument, and the descriptors of its parts."""
    found = program("a", source=kretprobe("vfs_read", 0, RESULT))
    return found, {part.name: descriptor() for part in found.parts}


def test_a_pair(kernel, pair):
    """Entry and return of the function are attached, detached and closed together."""
    one, loaded = pair
    entry, at_return = loaded.values()
    found = Programs.choose([one], loaded, {})
    assert kernel.asked == [(("vfs_read", False), entry), (("vfs_read", True), at_return)]
    assert not any(map(is_open, kernel.links))

    found.attach({"a"})
    assert len(kernel.links) == 4
    assert [is_open(fd) for fd in kernel.links[2:]] == [True, True]
    found.close()
    assert not any(map(is_open, (*kernel.links, *loaded.values())))


def test_half_a_pair_is_not_used(kernel, pair, descriptor):
    """Whatever half is refused, and by whom: the next source is taken, and nothing of the pair is left."""
    one, loaded = pair
    fallback = descriptor()
    for name in loaded:
        given = {other: os.dup(fd) for other, fd in loaded.items() if other != name}
        found = Programs.choose([one, program("a", 1)], given | {"cb_a_1": os.dup(fallback)}, {name: "R1 invalid"})
        assert found.chosen == {"a": program("a", 1)}
        assert not any(map(is_open, given.values()))
        found.close()

        given = {other: os.dup(fd) for other, fd in loaded.items()}
        kernel.refuses = {given[name]: errno.ENOENT}
        found = Programs.choose([one], given, {})
        assert "kretprobe:vfs_read does not attach" in found.absent["a"]
        assert not any(map(is_open, (*given.values(), *kernel.links)))


@pytest.mark.usefixtures("kernel")
def test_what_a_pair_cost(pair, monkeypatch):
    """The sum of both."""
    one, loaded = pair
    found = Programs.choose([one], loaded, {})
    monkeypatch.setattr(programs, "fdinfo", lambda fd: {"run_time_ns": "1009", "run_cnt": str(fd)})

    assert found.runs() == {"a": ProgramRun(2018, sum(loaded.values()), 0)}


class Libraries:
    """Function → locations."""

    def __init__(self, **locations):
        self.known = locations

    def locations(self, name):
        return self.known.get(name, [])

    def close(self):
        pass


def test_a_function_of_user_space(kernel, descriptor, monkeypatch):
    """Tried in our own library, then at every place that the target has, of each function that it has."""
    ours = Libraries(lock=[FunctionLocation("ours", 1)])
    monkeypatch.setattr(programs, "LibcFunctions", lambda pids: ours if pids == [os.getpid()] else None)
    sources = {"wants": uprobe("lock/timedlock", 0), "answers": uretprobe("lock/trylock")}
    loaded = {f"cb_{hook}_0": descriptor() for hook in sources}
    wants, answers = loaded.values()
    found = Programs.choose([program(hook, source=source) for hook, source in sources.items()], loaded, {})
    assert kernel.asked == [(("ours", 1, False), wants), (("ours", 1, True), answers)]
    assert found.in_user_space({"wants"})

    kernel.asked.clear()
    two = Libraries(lock=[FunctionLocation("a", 8), FunctionLocation("b", 9)], timedlock=[FunctionLocation("a", 7)])
    assert found.unavailable_in_target({"wants", "answers"}, two) == {}
    found.attach({"wants", "answers"}, two)
    assert kernel.asked == [
        *((place, wants) for place in (("a", 8, False), ("b", 9, False), ("a", 7, False))),
        *((place, answers) for place in (("a", 8, True), ("b", 9, True))),
    ]
    found.close()
    assert not any(map(is_open, kernel.links))


def test_a_function_that_the_target_does_not_have(kernel, descriptor, monkeypatch):
    """Then its hook is nowhere; others are not concerned, and a place that is refused leaves nothing behind."""
    monkeypatch.setattr(programs, "LibcFunctions", lambda _pids: Libraries(lock=[FunctionLocation("ours", 1)]))
    loaded = {"cb_wants_0": descriptor(), "cb_b_0": descriptor()}
    found = Programs.choose([program("wants", source=uprobe("lock/timedlock", 0)), program("b")], loaded, {})
    reason = "no C library that the target had mapped when the run began has lock/timedlock"
    assert found.unavailable_in_target({"wants", "b"}, Libraries(unlock=[FunctionLocation("a", 8)])) == {
        "wants": reason
    }
    assert found.unavailable_in_target({"b"}, Libraries()) == {}

    kernel.refuses[loaded["cb_wants_0"]] = errno.EINVAL
    with pytest.raises(OSError, match="Invalid argument"):
        found.attach({"wants"}, Libraries(lock=[FunctionLocation("a", 8), FunctionLocation("b", 9)]))
    assert not any(map(is_open, kernel.links))


@pytest.mark.usefixtures("kernel")
def test_we_have_no_such_function_ourselves(descriptor, monkeypatch):
    """Then nothing is known of how it would attach, and it is not taken."""
    monkeypatch.setattr(programs, "LibcFunctions", lambda _pids: LibcFunctions(()))
    found = Programs.choose([program("wants", source=uprobe("lock", 0))], {"cb_wants_0": descriptor()}, {})

    assert found.absent == {"wants": "uprobe:lock does not attach: no C library has such a function"}


@pytest.fixture
def two(kernel, descriptor):
    """Programs of the hooks a and b, and their descriptors."""
    loaded = {"cb_a_0": descriptor(), "cb_b_0": descriptor()}
    found = Programs.choose([program("a"), program("b")], loaded, {})
    kernel.links.clear()
    return found, loaded


def test_attach_and_detach(kernel, two):
    """As often as there are runs; the programs stay loaded."""
    found, loaded = two
    for _ in range(2):
        found.attach({"a", "b"})
        assert [is_open(fd) for fd in kernel.links] == [True, True]
        found.detach()
        assert not any(map(is_open, kernel.links))
        kernel.links.clear()

    assert all(map(is_open, loaded.values()))


def test_only_what_is_wanted(kernel, two):
    """Another hook's program stays loaded; a hook that there is no program for is no error."""
    found, loaded = two
    kernel.asked.clear()

    found.attach({"b", "absent"})

    assert kernel.asked == [("b_0", loaded["cb_b_0"])]
    assert [is_open(fd) for fd in (*kernel.links, *loaded.values())] == [True, True, True]


def test_all_or_none(kernel, two):
    """After a failure nothing is left attached."""
    found, loaded = two
    kernel.refuses[loaded["cb_b_0"]] = errno.ENOMEM

    with pytest.raises(OSError, match="Cannot allocate memory"):
        found.attach({"a", "b"})

    assert len(kernel.links) == 1
    assert not any(map(is_open, kernel.links))


def test_close(kernel, two):
    """Attached or not, everything is given back, once."""
    found, loaded = two
    found.attach({"a", "b"})

    found.close()
    found.close()

    assert not any(map(is_open, (*kernel.links, *loaded.values())))
    assert found.runs() == {}


FDINFO = """\
pos:\t0
flags:\t02000002
mnt_id:\t15
ino:\t2079
prog_type:\t17
prog_jited:\t1
prog_tag:\ta1b2c3d4e5f60718
memlock:\t4096
prog_id:\t41
run_time_ns:\t123456789
run_cnt:\t1009
recursion_misses:\t3
verified_insns:\t812
"""


@pytest.mark.parametrize(
    ("fdinfo", "missed"),
    [(FDINFO, 3), (FDINFO.replace("recursion_misses:\t3\n", ""), 0)],
    ids=["since 5.12", "before"],
)
def test_what_a_program_cost(two, monkeypatch, tmp_path, fdinfo, missed):
    """By hook, from what the kernel says of each descriptor."""
    found, loaded = two
    for fd in loaded.values():
        (tmp_path / str(fd)).write_text(fdinfo)
    monkeypatch.setattr(footprint, "Path", lambda path: tmp_path / path.rsplit("/", 1)[1])

    run = ProgramRun(ns=123456789, runs=1009, missed=missed)
    assert found.runs() == {"a": run, "b": run}
