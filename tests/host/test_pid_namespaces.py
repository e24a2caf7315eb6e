"""The process that a runner means by a pid, found in a /proc that the tests fill."""

import pytest

from chainbench_agent.errors import InputError
from chainbench_agent.host import pid_namespaces
from chainbench_agent.host.pid_namespaces import (
    AMBIGUOUS_PID_REMEDY,
    NO_PROCESS_REMEDY,
    NOT_IN_NAMESPACE_REMEDY,
    RELAYS,
    client_process,
    connection_owner,
    local_pid,
)

HERE, THERE, ELSEWHERE = "pid:[1]", "pid:[2]", "pid:[3]"
PEER = ("127.0.0.1", 40000)
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class Proc:
    """`add` makes a process; `connect` gives it the client's end of a connection."""

    def __init__(self, path):
        self.path = path
        (path / "net").mkdir()
        self.sockets = {"tcp": [], "tcp6": []}
        self.add("self", HERE)
        self.connect(None)

    def add(self, number, space=HERE, inside=(), command="sh"):
        """`inside`: its numbers in the namespaces below ours, the innermost last."""
        directory = self.path / str(number)
        for part in ("ns", "fd"):
            (directory / part).mkdir(parents=True)
        (directory / "ns/pid").symlink_to(space)
        (directory / "comm").write_text(f"{command}\n")
        numbers = "\t".join(map(str, (number, *inside)))
        (directory / "status").write_text(f"Name:\tsh\nNSpid:\t{numbers}\nNSpgid:\t{numbers}\nNSsid:\t99\t99\n")

    def connect(self, number, inode=555, port=40000, table="tcp"):
        if number is not None:
            (self.path / str(number) / "fd/3").symlink_to(f"socket:[{inode}]")
            loopback = {"tcp": "0100007F", "tcp6": "0000000000000000FFFF00000100007F"}[table]
            ends = f"{loopback}:{port:04X} {loopback}:2382"
            line = f"   0: {ends} 01 00000000:00000000 00:00000000 00000000  0  0 {inode} 1\n"
            self.sockets[table].append(line)
        for name, lines in self.sockets.items():
            (self.path / "net" / name).write_text(HEADER + "".join(lines))


@pytest.fixture
def proc(tmp_path, monkeypatch):
    monkeypatch.setattr(pid_namespaces, "PROC", tmp_path)
    return Proc(tmp_path)


def refused(pid, peer):
    """The error with which a pid is refused."""
    with pytest.raises(InputError) as caught:
        local_pid(pid, client_process(peer))
    assert caught.value.field == "pid"
    return caught.value


def test_a_runner_next_to_the_agent_uses_the_same_numbers(proc):
    """Also where a process in a container has the same number."""
    proc.add(100)
    proc.add(7)
    proc.add(900, THERE, (7,))
    proc.connect(100)

    assert local_pid(7, client_process(PEER)) == 7


def test_a_runner_in_a_container_means_a_process_of_its_own_namespace(proc):
    """Its 7 is 900 here, and neither our 7 nor another container's."""
    proc.add(7)
    proc.add(800, ELSEWHERE, (7,))
    proc.add(900, THERE, (7,))
    proc.add(901, THERE, (8,))
    proc.connect(901)

    assert local_pid(7, client_process(PEER)) == 900


def test_a_process_in_nested_namespaces_is_called_by_its_innermost_number(proc):
    proc.add(900, THERE, (7,))
    proc.add(950, ELSEWHERE, (70, 7))
    proc.add(951, ELSEWHERE, (71, 1))
    proc.connect(951)

    assert local_pid(7, client_process(PEER)) == 950


def test_a_runner_in_a_container_cannot_name_a_process_of_the_host(proc):
    proc.add(7)
    proc.add(901, THERE, (8,))
    proc.connect(901)

    assert refused(7, PEER).remedy == NOT_IN_NAMESPACE_REMEDY


@pytest.mark.parametrize("relay", sorted(RELAYS))
def test_a_runner_behind_a_relay_is_unknown(proc, relay):
    """The connection is the relay's, which is in our namespace; the runner need not be."""
    proc.add(100, command=relay)
    proc.add(7)
    proc.add(900, THERE, (7,))
    proc.add(901, THERE, (8,))
    proc.connect(100)

    assert refused(7, PEER).remedy == AMBIGUOUS_PID_REMEDY
    assert local_pid(8, client_process(PEER)) == 901
    assert all(len(command) <= 15 for command in RELAYS)  # as the kernel cuts them


@pytest.mark.parametrize("peer", [None, PEER], ids=["unix socket", "nobody has it"])
class TestAnUnknownPeer:
    def test_a_number_of_one_process_means_that_process(self, proc, peer):
        """Here, or in a container."""
        proc.add(7)
        proc.add(900, THERE, (8,))

        assert local_pid(7, client_process(peer)) == 7
        assert local_pid(8, client_process(peer)) == 900

    @pytest.mark.parametrize("others", [1, 2])
    def test_a_number_of_several_processes_is_refused(self, proc, peer, others):
        """The error says how many there are."""
        proc.add(7)
        for number in range(others):
            proc.add(900 + number, f"pid:[{2 + number}]", (7,))

        error = refused(7, peer)
        assert error.remedy == AMBIGUOUS_PID_REMEDY
        assert f"{1 + others} processes" in error.sentence

    def test_a_number_in_two_containers_is_refused(self, proc, peer):
        proc.add(900, THERE, (7,))
        proc.add(901, ELSEWHERE, (7,))

        assert refused(7, peer).remedy == AMBIGUOUS_PID_REMEDY

    def test_a_number_of_no_process_is_refused(self, proc, peer):
        proc.add(8)

        assert refused(7, peer).remedy == NO_PROCESS_REMEDY


@pytest.mark.parametrize("table", ["tcp", "tcp6"])
def test_the_owner_of_a_connection_has_the_socket_with_the_peers_address_and_port(proc, table):
    proc.add(100)
    proc.add(101)
    proc.connect(100, inode=554, port=40001, table=table)
    proc.connect(101, inode=555, port=40000, table=table)

    assert connection_owner(("127.0.0.1", 40000)) == 101
    assert connection_owner(("127.0.0.1", 40001)) == 100
    assert connection_owner(("127.0.0.1", 40002)) is None
    assert connection_owner(("10.9.9.9", 40000)) is None  # the same port, on another machine


def test_a_connection_without_an_open_socket_has_no_owner(proc):
    """The client has ended, or belongs to another user."""
    proc.add(100)
    proc.connect(100)
    (proc.path / "100/fd/3").unlink()

    assert connection_owner(PEER) is None


def test_processes_that_end_during_the_search_are_ignored(proc):
    proc.add(7)
    for number, part in ((20, "status"), (21, "ns/pid")):
        proc.add(number, THERE, (7,))
        (proc.path / str(number) / part).unlink()
    (proc.path / "20/ns/pid").unlink()

    assert refused(7, None).remedy == AMBIGUOUS_PID_REMEDY
    (proc.path / "21/status").unlink()
    assert local_pid(7, None) == 7


def test_a_runner_at_a_unix_socket_is_known_by_its_pid(proc):
    """The kernel has given it, so no connection is searched for."""
    proc.add(100, THERE, (1,))
    proc.add(7)
    proc.add(900, THERE, (7,))

    assert local_pid(7, 100) == 900


@pytest.mark.parametrize("peer", [PEER, 100])
def test_a_runner_whose_namespace_cannot_be_read_is_unknown(proc, peer):
    """It has ended, or we may not look: a number of two processes is refused."""
    proc.add(7)
    proc.add(900, THERE, (7,))
    proc.add(100)
    proc.connect(100)
    (proc.path / "100/ns/pid").unlink()

    assert refused(7, peer).remedy == AMBIGUOUS_PID_REMEDY
