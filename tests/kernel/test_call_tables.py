"""The tables of system calls and devices that probes look up."""

from chainbench_agent.catalog import raw_tracepoint, tp_btf
from chainbench_agent.host.syscall_names import syscalls
from chainbench_agent.kernel import call_tables
from chainbench_agent.kernel.call_tables import NO_CALLS, file_calls, tty_majors, unknown_of_waits
from chainbench_agent.kernel.programs import Programs
from chainbench_agent.loading.entry_functions import Program
from chainbench_agent.probes.wait_key import FILE_CALLS


def test_calls_that_wait_for_a_file():
    """Bit 0 is for the native table of calls, bit 1 for the 32-bit one.

    0 is read in the first, 3 is close there and read in the second; neither 162 nor 202 waits for a file.
    """
    found = file_calls("x86_64")

    assert (found[0], found[3], found.get(162), found.get(202)) == (1, 3, None, None)
    assert {*syscalls("x86_64").values(), *syscalls("i386").values()} >= FILE_CALLS


def test_terminals(tmp_path, monkeypatch):
    """The third column from the right, whatever the others have."""
    drivers = tmp_path / "drivers"
    drivers.write_text(
        "/dev/tty             /dev/tty        5       0 system:/dev/tty\n"
        "pty_slave            /dev/pts      136 0-1048575 pty:slave\n"
        "unknown              /dev/tty        4 1-63 console\n"
    )
    monkeypatch.setattr(call_tables, "TTY_DRIVERS", drivers)

    assert tty_majors() == {4, 5, 136}


def test_a_machine_without_terminals(tmp_path, monkeypatch):
    monkeypatch.setattr(call_tables, "TTY_DRIVERS", tmp_path / "none")
    assert tty_majors() == set()


def chosen(source):
    return Programs(chosen={"sched_wakeup": Program("cb_sched_wakeup_1", "sched_wakeup", source)})


def test_what_is_unknown_of_waits():
    """Where the registers are not found, and where no stack can be walked: with the kernel's words."""
    failed = {"cb_sched_wakeup_0": "R1 type=scalar expected=ptr_"}

    assert unknown_of_waits(chosen(tp_btf("sched_wakeup")), failed, "") == {}
    assert unknown_of_waits(chosen(raw_tracepoint("sched_wakeup")), failed, NO_CALLS) == {
        "top_reasons.syscall": NO_CALLS,
        "top_reasons.function": (
            "no stack is walked at the wake-up, because tp_btf:sched_wakeup fails: R1 type=scalar expected=ptr_"
        ),
    }
