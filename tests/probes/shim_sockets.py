"""Sockets as the handlers of probes/network.c see them, and what happens to these, in user space."""

import ctypes

from chainbench_agent.catalog import Names
from chainbench_agent.probes.network import derive

STREAM, DATAGRAM, RAW = 1, 2, 3
TCP, UDP, MPTCP, NETLINK_XFRM = 6, 17, 262, 6
ESTABLISHED, SYN_SENT, SYN_RECV, CLOSE_WAIT, CLOSE, LISTEN = 1, 2, 3, 8, 7, 10
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
PEEK, ERRORS = 0x02, 0x2000
MEMBER = 10


class Net:
    """Sockets, and what happens to them; `by`: the current thread, None: a packet or a timer."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.ours, self.other = kernel.task(MEMBER), kernel.task(20)
        kernel.at(1000).tree(MEMBER).begin()

    def socket(self, family=INET, kind=STREAM, protocol=TCP):
        return self.kernel.library.shim_sock(family, kind, protocol)

    def tell(self, setter, sk, *values):
        getattr(self.kernel.library, f"shim_set_{setter}")(ctypes.c_void_p(sk), *values)

    def state(self, sk, old, new, by=None):
        self.tell("sock", sk, by is not None, 0)
        self.kernel.fire("inet_sock_set_state_0", sk, old, new, current=by)

    def sent(self, sk, size, by):
        self.kernel.fire("sock_sent_0", sk, size & 0xFFFFFFFF, current=by)

    def received(self, sk, size, by, flags=0):
        self.kernel.fire("sock_received_0", sk, size & 0xFFFFFFFF, flags, current=by)

    def segment(self, sk, segs_in, segs_out, srtt_us=800):
        self.tell("sock", sk, 0, 0)
        self.tell("tcp", sk, segs_in, segs_out, srtt_us)
        self.kernel.fire("tcp_probe_0", sk)

    def again(self, sk, segments, error=0):
        self.kernel.fire("tcp_retransmit_skb_0", sk, self.kernel.library.shim_skb(segments), error)

    def accepted(self):
        """A connection that a packet established."""
        sk = self.socket()
        self.state(sk, LISTEN, SYN_RECV)
        self.state(sk, SYN_RECV, ESTABLISHED)
        return sk

    def connected(self, by):
        sk = self.socket()
        self.state(sk, CLOSE, SYN_SENT, by)
        self.state(sk, SYN_SENT, ESTABLISHED)
        return sk

    def __getitem__(self, names):
        found = self.kernel.counted()["network"]
        return tuple(found[name] for name in names.split())

    @property
    def unattributed(self):
        return derive(self.kernel.counted()["network"], Names({}, {}, {}, {}))["unattributed_tcp_connections"]
