"""Attribution of TCP sockets (probes/network.c), and cases that a live kernel does not show easily."""

import ctypes

import pytest
from shim_sockets import (
    CLOSE,
    CLOSE_WAIT,
    DATAGRAM,
    ERRORS,
    ESTABLISHED,
    INET,
    INET6,
    LISTEN,
    MPTCP,
    NETLINK,
    NETLINK_XFRM,
    PEEK,
    RAW,
    STREAM,
    SYN_RECV,
    SYN_SENT,
    TCP,
    UDP,
    UNIX,
    Net,
)

from chainbench_agent.probes.network import PROTOCOLS


@pytest.fixture
def net(kernel):
    return Net(kernel)


def test_a_connect_is_its_callers(net):
    """It counts for the caller, whichever thread is current when the answer arrives."""
    net.connected(net.ours)
    net.connected(net.other)

    assert net["tcp_connects tcp_accepts tcp_connections"] == (1, 0, 1)
    assert net.unattributed == 0


def test_a_connect_to_itself(net):
    """It passes through the states of an accept, but without a listener it is a connect."""
    sk = net.socket()
    net.state(sk, CLOSE, SYN_SENT, net.ours)
    net.state(sk, SYN_SENT, SYN_RECV)
    net.state(sk, SYN_RECV, ESTABLISHED)

    assert net["tcp_connects tcp_accepts"] == (1, 0)
    assert net.unattributed == 0


def test_a_socket_connects_again(net):
    """Disconnected in between, it counts its segments from zero, and may have another user."""
    sk = net.connected(net.other)
    net.segment(sk, 100, 100)
    net.state(sk, ESTABLISHED, CLOSE, net.other)
    net.tell("tcp", sk, 0, 0, 0)
    net.state(sk, CLOSE, SYN_SENT, net.ours)
    net.state(sk, SYN_SENT, ESTABLISHED)
    net.segment(sk, 3, 2)

    assert net["tcp_connects tcp_packets_received tcp_packets_sent"] == (1, 3, 2)


def test_a_connect_from_before_the_run(net):
    """Nobody knows whose it is."""
    net.state(net.socket(), SYN_SENT, ESTABLISHED)

    assert net["tcp_connects"] == (0,)
    assert net.unattributed == 1


@pytest.mark.parametrize(
    "use",
    [
        lambda net, sk, by: net.sent(sk, 1, by),
        lambda net, sk, by: net.received(sk, -104, by),
        lambda net, sk, by: net.state(sk, ESTABLISHED, CLOSE, by),
    ],
    ids=["sends", "fails to receive", "closes"],
)
def test_an_accept_is_its_first_users(net, use):
    """Counted once, however often it is used, and not when others use it."""
    for by in (net.ours, net.other):
        sk = net.accepted()
        assert net.unattributed == 1
        for _ in range(3):
            use(net, sk, by)
        assert net.unattributed == 0

    assert net["tcp_accepts tcp_connects"] == (1, 0)


def test_segments_are_the_last_users(net):
    """From the first one on, where the socket was born in the run; otherwise from its first use on."""
    born, old = net.accepted(), net.socket()
    net.segment(born, 2, 1)
    net.segment(old, 100, 200)
    assert net["tcp_packets_received tcp_packets_sent"] == (0, 0)

    net.sent(born, 1, net.ours)
    net.segment(born, 3, 2)
    net.sent(old, 1, net.ours)
    net.segment(old, 107, 211)
    assert net["tcp_packets_received tcp_packets_sent"] == (3 + 7, 2 + 1 + 11)

    net.sent(old, 1, net.other)
    net.segment(old, 1000, 1000)
    net.sent(old, 1, net.ours)
    net.segment(old, 1001, 1000)
    assert net["tcp_packets_received tcp_packets_sent"] == (3 + 7 + 1, 2 + 1 + 11)


def test_segments_are_looked_at_now_and_then(net):
    """The first 16, one in 16 then, and the end."""
    sk = net.connected(net.ours)
    for i in range(1, 101):
        net.segment(sk, i, 0, srtt_us=8 * i + 7)
    rtt = net.kernel.counted()["network"]["tcp_rtt_ns"]
    assert (sum(rtt.slots), rtt.min, rtt.max) == (16 + 5, 1000, 96000)
    assert net["tcp_packets_received"] == (96,)

    net.state(sk, CLOSE_WAIT, CLOSE)
    assert net["tcp_packets_received"] == (100,)


def test_a_reset_is_sent_after_the_last_state(net):
    """It counts as a segment; that of a socket with no known owner does not."""
    sk = net.connected(net.ours)
    net.state(sk, ESTABLISHED, CLOSE, net.ours)
    net.tell("tcp", sk, 0, 1, 0)
    for found in (sk, sk, 0, net.socket()):
        net.kernel.fire("tcp_send_reset_0", found)

    assert net["tcp_packets_sent"] == (1,)


def test_a_process_leaves_the_cgroup(net):
    """Bytes that it sends by the same socket count only while it is in the cgroup."""
    kernel, sk = net.kernel, net.socket()
    kernel.move(net.ours, 5)
    kernel.cgroup(5, level=1).begin()
    net.sent(sk, 7, net.ours)
    kernel.move(net.ours, 6)
    net.sent(sk, 11, net.ours)

    assert net["tcp_bytes_sent"] == (7,)


def test_a_socket_is_forgotten(net):
    """The next one at its address is another one."""
    sk = net.connected(net.ours)
    unused = net.accepted()
    for found in (sk, unused):
        net.kernel.fire("tcp_destroy_sock_0", found)
    net.again(sk, 1)

    assert net.kernel.hash("network_sockets") == net.kernel.hash("network_waiting") == {}
    assert net["tcp_retransmissions unattributed_tcp_retransmissions"] == (0, 1)


def test_retransmissions(net):
    """Each segment sent again counts; those of others do not, and those of unknown sockets are unattributed."""
    ours, other = net.connected(net.ours), net.connected(net.other)
    net.again(ours, 3)
    net.again(ours, 2, error=-105 & 0xFFFFFFFF)
    net.again(other, 5)
    net.again(net.socket(), 7)
    listener = net.socket()
    net.state(listener, CLOSE, LISTEN, net.ours)
    net.kernel.fire("synack_again_0", listener)
    net.kernel.fire("synack_again_0", net.socket())

    assert net["tcp_retransmissions unattributed_tcp_retransmissions"] == (3 + 1, 7 + 1)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ((NETLINK, RAW, NETLINK_XFRM), None),
        ((UNIX, STREAM, 0), None),
        ((INET, RAW, TCP), "raw"),
        ((INET, RAW, UDP), "raw"),
        ((INET, STREAM, 132), "sctp"),
        ((INET6, 5, 132), "sctp"),
        ((INET, DATAGRAM, 136), "udplite"),
        ((INET6, 6, 33), "dccp"),
        ((INET, DATAGRAM, 1), "icmp"),
        ((INET6, DATAGRAM, 58), "icmp"),
        ((43, STREAM, 0), "smc"),
        ((INET, DATAGRAM, 115), "other"),
    ],
)
def test_other_sockets(net, kind, named):
    """In no figure of TCP or UDP, but named where it is the internet's; netlink numbers its protocols itself."""
    sk = net.socket(*kind)
    net.sent(sk, 7, net.ours)
    net.received(sk, 5, net.ours)
    net.received(sk, 5, net.ours, PEEK)
    net.sent(sk, -11, net.ours)
    net.sent(sk, 7, net.other)

    expected = [(2, 12) if name == named else (0, 0) for name in PROTOCOLS]
    assert list(zip(*net["other_protocol_calls other_protocol_bytes"], strict=True)) == expected
    assert net["tcp_bytes_sent tcp_bytes_received udp_packets udp_bytes_sent udp_bytes_received"] == (0,) * 5
    assert net.kernel.hash("network_sockets") == {}


@pytest.fixture
def mptcp(net):
    """`mptcp(role, by)` → (connection, its first path): what the kernel says when one is made."""

    def connect(by):
        connection, path = net.socket(protocol=MPTCP), net.socket()
        net.tell("path", path, ctypes.c_void_p(connection), 1)
        for sk in (connection, path):
            net.state(sk, CLOSE, SYN_SENT, by)
        for sk in (path, connection):
            net.state(sk, SYN_SENT, ESTABLISHED, by)
        return connection, path

    def accept(_by):
        path, connection = net.socket(), net.socket(protocol=MPTCP)
        net.state(path, LISTEN, SYN_RECV)
        net.state(connection, LISTEN, ESTABLISHED)
        net.tell("path", path, ctypes.c_void_p(connection), 1)
        net.state(path, SYN_RECV, ESTABLISHED)
        return connection, path

    return lambda role, by: {"connect": connect, "accept": accept}[role](by)


def test_mptcp_connects(net, mptcp):
    """Bytes are those of the calls on the connection, segments those of its path; it is one connection."""
    connection, path = mptcp("connect", net.ours)
    net.sent(connection, 1009, net.ours)
    net.received(connection, 211, net.ours)
    net.segment(path, 3, 2)

    assert net["tcp_bytes_sent tcp_bytes_received"] == (1009, 211)
    assert net["tcp_connects tcp_accepts tcp_connections"] == (1, 0, 1)
    assert net["tcp_packets_received tcp_packets_sent"] == (3, 2)
    assert net.unattributed == 0


@pytest.mark.parametrize("closes", [False, True], ids=["receives", "closes"])
def test_mptcp_accepts(net, mptcp, closes):
    """It is the first user's, as with TCP: of the first that receives, or, with none, of who closes it."""
    connection, path = mptcp("accept", net.ours)
    assert net.unattributed == 1
    if closes:
        net.state(connection, ESTABLISHED, CLOSE_WAIT, net.ours)
    else:
        net.received(connection, 1009, net.ours)
    net.segment(path, 3, 2)

    assert net["tcp_connects tcp_accepts tcp_connections"] == (0, 1, 1)
    assert net["tcp_packets_received tcp_packets_sent"] == (3, 2 + 1)  # and the SYN-ACK
    assert net.unattributed == 0


def test_mptcp_of_others(net, mptcp):
    """Neither bytes nor segments, until the target uses it."""
    connection, path = mptcp("connect", net.other)
    net.sent(connection, 7, net.other)
    net.segment(path, 3, 2)
    assert net["tcp_bytes_sent tcp_connects tcp_packets_received"] == (0, 0, 0)

    net.sent(connection, 11, net.ours)
    net.segment(path, 4, 2)
    assert net["tcp_bytes_sent tcp_connects tcp_packets_received"] == (11, 0, 1)


@pytest.mark.parametrize("role", ["connect", "accept"])
def test_further_paths_of_mptcp(net, mptcp, role):
    """Their segments count, and they are no connections."""
    connection, _ = mptcp("accept", net.ours)
    net.received(connection, 1, net.ours)
    path = net.socket()
    if role == "accept":
        net.state(path, LISTEN, SYN_RECV)
        net.tell("path", path, ctypes.c_void_p(connection), 0)
        net.state(path, SYN_RECV, ESTABLISHED)
    else:  # a kernel thread does it
        net.tell("path", path, ctypes.c_void_p(connection), 0)
        net.state(path, CLOSE, SYN_SENT, net.other)
        net.state(path, SYN_SENT, ESTABLISHED)
    net.segment(path, 3, 2)

    assert net["tcp_connects tcp_accepts tcp_connections"] == (0, 1, 1)
    assert net["tcp_packets_received"] == (3,)
    assert net.unattributed == 0


def test_mptcp_is_forgotten(net, mptcp):
    """Nothing of a closed connection stays; one that falls back to TCP is TCP."""
    connection, path = mptcp("connect", net.ours)
    net.sent(connection, 7, net.ours)
    net.state(connection, ESTABLISHED, CLOSE, net.ours)
    net.kernel.fire("tcp_destroy_sock_0", path)

    assert net.kernel.hash("network_sockets") == net.kernel.hash("network_waiting") == {}


def test_what_else_lies_above_tcp(net):
    """A socket that the kernel encrypts for is a TCP socket."""
    sk = net.socket()
    net.tell("tls", sk)
    net.state(sk, CLOSE, SYN_SENT, net.ours)
    net.state(sk, SYN_SENT, ESTABLISHED)
    net.sent(sk, 7, net.ours)

    assert net["tcp_connects tcp_bytes_sent"] == (1, 7)


def test_datagrams(net):
    """Empty ones count; errors, peeking, the error queue and the end of a shut socket do not."""
    sk = net.socket(INET6, DATAGRAM, UDP)
    for size in (0, 5, -11):
        net.sent(sk, size, net.ours)
        net.received(sk, size, net.ours)
    for flags in (PEEK, ERRORS):
        net.received(sk, 5, net.ours, flags)
    net.sent(sk, 5, net.other)
    net.tell("sock", sk, 0, 1)
    net.received(sk, 0, net.ours)

    assert net["udp_packets udp_packets_sent udp_packets_received"] == (4, 2, 2)
    assert net["udp_bytes_sent udp_bytes_received"] == (5, 5)


def test_sockets_without_end(net):
    """Bytes need no record; what does is lost, and so counted."""
    room = net.kernel.get("network_sockets_entries")
    ctypes.memset((ctypes.c_uint8 * room).in_dll(net.kernel.library, "network_sockets_used"), 1, room)
    net.sent(net.socket(), 7, net.ours)

    assert net["tcp_bytes_sent"] == (7,)
    assert net.kernel.lost() == {"keys_full": 1}
