"""What TCP and UDP sockets do is counted exactly, for the target alone; the kernel's own counters are the witness."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.bpf

OWN = Path(__file__).with_name("own_network.py").read_text()


def test_connections(targeted):
    """53 over IPv4 and 31 over IPv6, both ends in the target: bytes and segments as the network itself counted them."""
    code = (
        OWN
        + """
for (family, address), times in zip(FAMILIES, (53, 31)):
    server = listening(family, address)
    for _ in range(times):
        client, peer = connected(server)
        client.sendall(b"x" * 1009)
        assert len(peer.recv(4096, socket.MSG_PEEK)) == len(peer.recv(4096)) == 1009
        peer.sendall(b"y" * 211)
        assert len(client.recv(4096)) == 211
        reset(client)
        peer.close()
print(*kept("Tcp", "ActiveOpens", "PassiveOpens", "OutSegs", "InSegs", "RetransSegs"))
"""
    )
    one = targeted(code)
    network = one.run()["network"]
    connects, accepts, sent, received, again = map(int, one.output.split())

    print(network, one.output)
    assert (connects, accepts) == (84, 84)
    assert (network["tcp_connects"], network["tcp_accepts"], network["tcp_connections"]) == (84, 84, 168)
    assert network["tcp_bytes_sent"] == network["tcp_bytes_received"] == 84 * (1009 + 211)
    assert (network["tcp_packets_sent"], network["tcp_packets_received"]) == (sent, received)
    assert network["tcp_retransmissions"] == again == 0
