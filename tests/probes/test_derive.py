"""Checks derive() of the modules: pure functions of the raw counts' differences and the names."""

import struct

from chainbench_agent.catalog import Names
from chainbench_agent.probes import cpu, offcpu, syscalls
from chainbench_agent.probes import exec as exec_

FUTEX, READ, FSYNC = 202, 0, 74
NO_NAMES = Names(tables={}, stacks={}, throttled_before={}, throttled_after={})


def ns(number):
    return number.to_bytes(8, "little")


class TestOffcpu:
    def derive(self, asleep=0, **waits):  # waits: woken, preempted, throttled
        found = {f"{kind}_wait_ns": waits.get(kind, 0) for kind in ("woken", "preempted", "throttled")}
        nothing = {"blocked_ns": {}, "sampled_ns": {}}
        return offcpu.derive(found | nothing | {"asleep_ns": asleep, "block_count": 5}, NO_NAMES)

    def test_the_parts_are_the_whole(self):
        """Blocked, runnable and throttled; voluntary and involuntary: both are the total."""
        found = self.derive(9_000_000, woken=500_000, preempted=250_000, throttled=125_000)

        assert found["blocked_ms"] == 9
        assert found["runnable_ms"] == 0.75
        assert found["throttled_ms"] == 0.125
        assert found["voluntary_ms"] == 9.5
        assert found["involuntary_ms"] == 0.375
        assert found["total_ms"] == 9.875
        assert found["blocks"] == 5

    def test_nothing_happened(self):
        """Zeros that were measured."""
        found = self.derive()

        assert found.pop("top_reasons") == []
        assert set((found | {"blocks": 0}).values()) == {0}


class TestCpu:
    def derive(self, seen, before, after):
        groups = {ns(group): struct.pack("=QQQQI4x", *(*stands, 0, 0)[:4], 0) for group, stands in seen.items()}
        quotas = frozenset(before), frozenset(after)
        names = Names({}, {}, before, after, quotas_before=quotas[0], quotas_after=quotas[1])
        found = cpu.derive({"throttled_groups": groups}, names)
        return found["throttle_events"], found["throttled_ms"]

    def test_what_was_before_the_run_is_subtracted(self):
        """Counters of a group run since it was made; one that was never stopped before began at zero."""
        seen = {7: (5, 9_000_000), 8: (2, 1_500_000)}

        assert self.derive(seen, before={7: (3, 4_000_000)}, after={}) == (4, 6.5)

    def test_the_last_word_is_the_file_systems(self):
        """The kernel adds the last period after the last thread has left: it may be no thread's to see."""
        seen = {7: (5, 9_000_000)}

        assert self.derive(seen, before={7: (3, 4_000_000)}, after={7: (6, 9_500_000), 8: (1, 1_000_000)}) == (4, 6.5)

    def test_a_group_that_was_stopped_long_ago(self):
        """It stands where it stood."""
        assert self.derive({}, before={7: (3, 4_000_000)}, after={7: (3, 4_000_000)}) == (0, 0)

    def test_a_group_that_the_target_came_into(self):
        """It counts from what it stood at when the target was first seen in it."""
        seen = {7: (5, 9_000_000, 3, 8_000_000)}

        assert self.derive(seen, before={}, after={7: (6, 9_500_000)}) == (3, 1.5)

    def test_all_groups_are_the_machines(self):
        """One that was never throttled before, or not there, began at zero."""
        after = {1: (4, 40), 2: (5, 50)}
        names = Names(throttled_before={1: (3, 30)}, throttled_after=after)

        assert cpu.throttled_between(names, [3]) == ({1: (3, 30), 2: (0, 0), 3: (0, 0)}, after)

    def test_the_groups_of_a_target(self):
        """Groups that it was in at the beginning or joined; where BPF saw it join, BPF has the first counts."""
        names = Names(
            throttled_before={1: (3, 30), 4: (7, 70), 5: (1, 10)},
            throttled_after={1: (4, 40), 2: (5, 50), 4: (9, 90), 5: (6, 60)},
            quotas_before=frozenset({1}),
            quotas_after=frozenset({4, 5}),
        )

        before, after = cpu.throttled_between(names, [5])
        assert after == {1: (4, 40), 4: (9, 90), 5: (6, 60)}
        assert before == {1: (3, 30), 4: (7, 70)}

    def test_no_limited_group(self):
        assert self.derive({}, {}, {}) == (0, 0)


class TestExec:
    def test_commands_most_often_first(self):
        """Commands that are equally frequent are sorted by name; bytes that are not UTF-8 are escaped."""
        commands = {b"sh\0garbage": ns(2), b"cc1\0": ns(7), b"as\0": ns(2), b"caf\xe9\0": ns(1)}

        assert exec_.derive({"commands": commands}, NO_NAMES)["top_commands"] == [
            {"command": "cc1", "count": 7},
            {"command": "as", "count": 2},
            {"command": "sh", "count": 2},
            {"command": r"caf\xe9", "count": 1},
        ]

    def test_only_the_top(self):
        """Only the 20 most frequent commands are listed."""
        commands = {f"c{i}".encode(): ns(i) for i in range(1, 31)}

        found = exec_.derive({"commands": commands}, NO_NAMES)["top_commands"]

        assert [line["count"] for line in found] == list(range(30, 10, -1))


class TestSyscalls:
    NAMES = Names(
        tables={
            "calls": {FUTEX: "futex", READ: "read", FSYNC: "fsync", 39: "getpid"},
            "calls_32bit": {3: "read", 20: "getpid"},
        },
        stacks={},
        throttled_before={},
        throttled_after={},
    )

    def derive(self, calls, calls_32bit=None, unknown=0):
        counts = {"unknown_calls": unknown, "failures": {}}
        for name, given in (("calls", calls), ("calls_32bit", calls_32bit or {})):
            table = [0] * 512
            for number, count in given.items():
                table[number] = count
            counts[name] = tuple(table)
        return syscalls.derive(counts, self.NAMES)["by_name"]

    def test_five_are_always_there(self):
        """Zero was counted; of the others, only what happened is named."""
        assert self.derive({}) == {"futex": 0, "fsync": 0, "openat": 0, "read": 0, "write": 0}

    def test_the_rest_follows_by_frequency(self):
        found = self.derive({39: 5, 400: 9, FUTEX: 1}, unknown=2)

        assert found == {
            "futex": 1,
            "fsync": 0,
            "openat": 0,
            "read": 0,
            "write": 0,
            "400": 9,
            "getpid": 5,
            "unknown": 2,
        }
        assert list(found)[5:] == ["400", "getpid", "unknown"]

    def test_32_bit_calls_are_added_by_name(self):
        """The same call has another number there."""
        found = self.derive({READ: 2, 39: 1}, {3: 5, 20: 1})

        assert (found["read"], found["getpid"]) == (7, 2)

    def test_errors_by_call_and_error(self):
        """The most frequent first; of 32-bit programs under the same names; numbers where there is no name."""
        failures = {(READ, 4, 0): 2, (3, 4, 1): 3, (400, 2, 0): 1, (0xFFFFFFFF, 38, 0): 1, (READ, 524, 0): 7}
        packed = {struct.pack("=IHH", *key): struct.pack("=Q", count) for key, count in failures.items()}
        counts = {"unknown_calls": 0, "calls": (), "calls_32bit": (), "failures": packed}

        found = syscalls.derive(counts, self.NAMES)["errors"]

        assert [tuple(one.values()) for one in found] == [
            ("read", "524", 7),
            ("read", "EINTR", 5),
            ("400", "ENOENT", 1),
            ("unknown", "ENOSYS", 1),
        ]
        assert found[0].keys() == {"syscall", "errno", "count"}
