"""TCP, MPTCP and UDP, over IPv4 and IPv6.  Kernel side: network.c"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from chainbench_agent.catalog import Counter, Derived, Distribution, Event, FixedNames, Module, Names, Scratch, Table

SENT = ("sock_sent", "sock_sent6")
RECEIVED = ("sock_received", "sock_received6")
STATES = ("inet_sock_set_state", "tcp_destroy_sock")
USES = (*STATES, *SENT, "sent_pages", *RECEIVED)
"""The hooks that show to whom a TCP socket belongs."""

PROTOCOLS = ("sctp", "udplite", "dccp", "icmp", "raw", "smc", "other")
"""The names that calls on sockets of other protocols count under: enum network_other in network.h."""

_counter = partial(Counter, hooks=USES)
_packets = partial(Counter, hooks=(*USES, "tcp_probe", "tcp_send_reset"))
_sent = partial(Counter, hooks=SENT)
_received = partial(Counter, hooks=RECEIVED)


def derive(counts: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """With TCP Fast Open an accept is used, and so attributed, before it is established."""
    del names
    return {"unattributed_tcp_connections": max(0, counts["established"] - counts["attributed_connections"])}


MODULE = Module(
    name="network",
    question="What did the workload send and receive, and did the network lose or delay it?",
    events=(Event(name="retransmit", help="TCP sent something again.", value="segments"),),
    metrics=(
        Counter(
            name="tcp_bytes_sent",
            help="Bytes that calls passed to TCP and MPTCP sockets; with the kernel's TLS, before encryption.",
            hooks=(*SENT, "sent_pages"),
            per_process=True,
        ),
        _received(
            name="tcp_bytes_received",
            help="Bytes that calls took from TCP and MPTCP sockets; splice(2) and zero-copy receiving are not seen.",
            per_process=True,
        ),
        _counter(
            name="tcp_connections",
            help=(
                "TCP connections established: tcp_connects and tcp_accepts. A connection of MPTCP counts once, with "
                "all its paths."
            ),
            per_process=True,
        ),
        Counter(
            name="udp_packets",
            help="UDP datagrams sent and received: udp_packets_sent and udp_packets_received.",
            hooks=(*SENT, *RECEIVED),
            per_process=True,
        ),
        Counter(
            name="tcp_connects",
            help="TCP connections established by connecting; counted for the process that connected.",
            hooks=STATES,
        ),
        _counter(
            name="tcp_accepts",
            help=(
                "TCP connections accepted; counted for the process that first sends, receives or closes, when it does."
            ),
        ),
        _counter(
            name="established",
            help="TCP connections established on this machine, by any process.",
            machine_wide=True,
            reported=False,
        ),
        _counter(
            name="attributed_connections",
            help="The part of these connections whose process was seen.",
            machine_wide=True,
            reported=False,
        ),
        Derived(
            name="unattributed_tcp_connections",
            help="TCP connections established on this machine that no process was seen to establish or use.",
            of=("established", "attributed_connections"),
            machine_wide=True,
        ),
        _packets(
            name="tcp_packets_sent",
            help=(
                "TCP segments sent, as the sockets themselves count them, plus the SYN-ACK of an accept. The count of "
                "a socket is read with each of the first 16 segments that it receives, then with one in 16, so the "
                "last segments of a connection that is open at the end of the run are missing. Segments that are sent "
                "for a closed connection (TIME_WAIT) are not included."
            ),
        ),
        _packets(
            name="tcp_packets_received",
            help="TCP segments received, as the sockets themselves count them; with the limits of tcp_packets_sent.",
        ),
        Counter(
            name="tcp_retransmissions",
            help="TCP segments sent again; counted for the process that used the socket last.",
            hooks=(*USES, "tcp_retransmit_skb", "synack_again"),
        ),
        Counter(
            name="unattributed_tcp_retransmissions",
            help="TCP segments sent again on this machine, from sockets that no process was seen to use.",
            hooks=(*USES, "tcp_retransmit_skb", "synack_again"),
            machine_wide=True,
        ),
        _sent(
            name="udp_packets_sent",
            help="UDP datagrams sent: one per call, although UDP_CORK makes fewer datagrams, and UDP_SEGMENT more.",
        ),
        _received(
            name="udp_packets_received",
            help="UDP datagrams received: one per call, although UDP_GRO joins several.",
        ),
        _sent(name="udp_bytes_sent", help="Bytes in the datagrams sent."),
        _received(name="udp_bytes_received", help="Bytes in the datagrams received, as the calls returned them."),
        Table(
            name="other_protocol_calls",
            help=(
                "Calls that sent or received on sockets of other internet protocols, which are not in the figures of "
                "TCP and UDP: SCTP, UDP-Lite, DCCP, ICMP, raw sockets, SMC (only where sock_send_length is the hook)."
            ),
            hooks=(*SENT, *RECEIVED),
            entries=len(PROTOCOLS),
            names=FixedNames(PROTOCOLS),
            label="protocol",
        ),
        Table(
            name="other_protocol_bytes",
            help="Bytes that these calls sent and received, as they returned them.",
            hooks=(*SENT, *RECEIVED),
            entries=len(PROTOCOLS),
            names=FixedNames(PROTOCOLS),
            label="protocol",
        ),
        Distribution(
            name="tcp_rtt_ns",
            help=(
                "Smoothed round-trip time of a connection, in whole microseconds, read at each of the first 16 "
                "segments that it receives, then at one in 16."
            ),
            hooks=(*USES, "tcp_probe"),
        ),
    ),
    scratch=(
        Scratch(
            name="sockets",
            entries=16384,  # in use at once
            when_full="what packets tell of a further socket is not counted, and it is counted as lost",
        ),
        Scratch(
            name="waiting",
            entries=4096,  # the kernel lets no more wait for accept() at one address: net.core.somaxconn
            when_full="a further connection looks like one that existed before the run, and is counted as lost",
        ),
    ),
    derive=derive,
)
