"""A pid as the runner means it, told from a /proc of our own making."""

import pytest

from chainbench_agent.errors import InputError
from chainbench_agent.host import pid_namespaces
from chainbench_agent.host.pid_namespaces import RELAYS, client_process, connection_owner, local_pid

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


def test_a_runner_beside_the_agent(proc):
    """Its numbers are ours, also where a container has the same one."""
    proc.add(100)
    proc.add(7)
    proc.add(900, THERE, (7,))
    proc.connect(100)

    assert local_pid(7, client_process(PEER)) == 7


def test_a_runner_in_a_container(proc):
    """Its 7 is 900 here, and neither ours nor another container's."""
    proc.add(7)
    proc.add(800, ELSEWHERE, (7,))
    proc.add(900, THERE, (7,))
    proc.add(901, THERE, (8,))
    proc.connect(901)

    assert local_pid(7, client_process(PEER)) == 900


def test_a_container_in_a_container(proc):
    """What a process is called is its innermost number."""
    proc.add(900, THERE, (7,))
    proc.add(950, ELSEWHERE, (70, 7))
    proc.add(951, ELSEWHERE, (71, 1))
    proc.connect(951)

    assert local_pid(7, client_process(PEER)) == 950


def test_a_runner_in_a_container_names_a_process_of_the_host(proc):
    """It cannot see that one; nothing is guessed."""
    proc.add(7)
    proc.add(901, THERE, (8,))
    proc.connect(901)

    with pytest.raises(InputError, match="pid: there is no process 7 in the PID namespace of the runner") as caught:
        local_pid(7, client_process(PEER))
    assert (caught.value.field, caught.value.remedy) == ("pid", "send the pid that the runner sees, or a cgroup")


@pytest.mark.parametrize("relay", sorted(RELAYS))
def test_a_runner_behind_a_relay(proc, relay):
    """The connection is the relay's, whose numbers are ours: that the runner's are is not taken for granted."""
    proc.add(100, command=relay)
    proc.add(7)
    proc.add(900, THERE, (7,))
    proc.add(901, THERE, (8,))
    proc.connect(100)

    with pytest.raises(InputError, match="7 is the number of 2 processes"):
        local_pid(7, client_process(PEER))
    assert local_pid(8, client_process(PEER)) == 901
    assert all(len(command) <= 15 for command in RELAYS)  # as the kernel cuts them


@pytest.mark.parametrize("peer", [None, PEER], ids=["unix socket", "nobody has it"])
class TestAPeerThatIsUnknown:
    def test_a_number_that_is_one_process(self, proc, peer):
        """Here, or in a container."""
        proc.add(7)
        proc.add(900, THERE, (8,))

        assert local_pid(7, client_process(peer)) == 7
        assert local_pid(8, client_process(peer)) == 900

    @pytest.mark.parametrize("others", [1, 2])
    def test_a_number_that_is_several(self, proc, peer, others):
        """Refused with how many, and what to send instead."""
        proc.add(7)
        for number in range(others):
            proc.add(900 + number, f"pid:[{2 + number}]", (7,))

        with pytest.raises(InputError, match=f"{1 + others} processes") as caught:
            local_pid(7, client_process(peer))
        assert caught.value.remedy == "send the host's pid, or a cgroup"

    def test_a_number_in_two_containers(self, proc, peer):
        proc.add(900, THERE, (7,))
        proc.add(901, ELSEWHERE, (7,))

        with pytest.raises(InputError, match="7 is the number of 2 processes"):
            local_pid(7, client_process(peer))

    def test_no_process(self, proc, peer):
        proc.add(8)

        with pytest.raises(InputError, match="there is no process 7") as caught:
            local_pid(7, client_process(peer))
        assert caught.value.remedy == "send the pid of a running process, as the runner sees it"


@pytest.mark.parametrize("table", ["tcp", "tcp6"])
def test_the_owner_of_a_connection(proc, table):
    """By the address and the port of the client's end, whatever else is open."""
    proc.add(100)
    proc.add(101)
    proc.connect(100, inode=554, port=40001, table=table)
    proc.connect(101, inode=555, port=40000, table=table)

    assert connection_owner(("127.0.0.1", 40000)) == 101
    assert connection_owner(("127.0.0.1", 40001)) == 100
    assert connection_owner(("127.0.0.1", 40002)) is None
    assert connection_owner(("10.9.9.9", 40000)) is None  # the same port, on another machine


def test_a_connection_that_nobody_holds_any_more(proc):
    """The client ended, or is another user's."""
    proc.add(100)
    proc.connect(100)
    (proc.path / "100/fd/3").unlink()

    assert connection_owner(PEER) is None


def test_processes_that_end_while_they_are_looked_at(proc):
    """What is left of them is passed over."""
    proc.add(7)
    for number, part in ((20, "status"), (21, "ns/pid")):
        proc.add(number, THERE, (7,))
        (proc.path / str(number) / part).unlink()
    (proc.path / "20/ns/pid").unlink()

    with pytest.raises(InputError, match="7 is the number of 2 processes"):
        local_pid(7, None)
    (proc.path / "21/status").unlink()
    assert local_pid(7, None) == 7


def test_a_runner_at_a_unix_socket(proc):
    """The kernel has told its pid, so nothing has to be looked for."""
    proc.add(100, THERE, (1,))
    proc.add(7)
    proc.add(900, THERE, (7,))

    assert local_pid(7, 100) == 900


@pytest.mark.parametrize("peer", [PEER, 100])
def test_a_runner_that_is_gone_tells_nothing(proc, peer):
    """Or whose namespace is not ours to see: a number that is two processes' is refused."""
    proc.add(7)
    proc.add(900, THERE, (7,))
    proc.add(100)
    proc.connect(100)
    (proc.path / "100/ns/pid").unlink()

    with pytest.raises(InputError, match="7 is the number of 2 processes"):
        local_pid(7, client_process(peer))
