// SPDX-License-Identifier: GPL-2.0-only
// plain/network.c - what TCP and UDP sockets sent and received by process.
//
// A plain BCC program, to load and attach by hand.
//
//   b = BPF(src_file="probes/plain/network.c")
//   b.attach_kprobe(event="tcp_sendmsg", fn_name="trace_tcp_sendmsg")
//   b["tcp_bandwidth"].items()    # pid -> bytes_sent, bytes_received, …
//
//   function                    attach to                          counts
//   trace_tcp_connect           kprobe tcp_v4_connect, tcp_v6_…    attempts
//   trace_tcp_sendmsg           kprobe tcp_sendmsg                 calls, and the bytes that they were asked to send
//   trace_tcp_recvmsg           kprobe tcp_cleanup_rbuf            bytes received (too many before Linux 6.1)
//   trace_tcp_retransmit_skb    kprobe __tcp_retransmit_skb        retransmissions, by who happens to run then
//   trace_udp_sendmsg           kprobe udp_sendmsg, udpv6_sendmsg  datagrams and their bytes
//   trace_udp_recvmsg           kprobe skb_consume_udp             datagrams and their bytes

#include <net/sock.h>

struct traffic {
	u64 bytes_sent;
	u64 bytes_received;
	u64 sends;
	u64 receives;
	u64 connects;
	u64 retransmissions;
};
BPF_HASH(tcp_bandwidth, u32, struct traffic);
BPF_HASH(udp_bandwidth, u32, struct traffic);

static __always_inline u32 current_pid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline struct traffic *tcp_of_current(void)
{
	struct traffic none = {};
	u32 pid = current_pid();

	return tcp_bandwidth.lookup_or_try_init(&pid, &none);
}

static __always_inline struct traffic *udp_of_current(void)
{
	struct traffic none = {};
	u32 pid = current_pid();

	return udp_bandwidth.lookup_or_try_init(&pid, &none);
}

int trace_tcp_connect(struct pt_regs *ctx)
{
	struct traffic *traffic = tcp_of_current();

	if (traffic)
		__sync_fetch_and_add(&traffic->connects, 1);
	return 0;
}

int trace_tcp_sendmsg(struct pt_regs *ctx, struct sock *sk, struct msghdr *message, size_t size)
{
	struct traffic *traffic = tcp_of_current();

	if (traffic) {
		__sync_fetch_and_add(&traffic->sends, 1);
		__sync_fetch_and_add(&traffic->bytes_sent, size);
	}
	return 0;
}

int trace_tcp_recvmsg(struct pt_regs *ctx, struct sock *sk, int copied)
{
	struct traffic *traffic;

	if (copied <= 0)
		return 0;
	traffic = tcp_of_current();
	if (traffic) {
		__sync_fetch_and_add(&traffic->receives, 1);
		__sync_fetch_and_add(&traffic->bytes_received, copied);
	}
	return 0;
}

int trace_tcp_retransmit_skb(struct pt_regs *ctx)
{
	struct traffic *traffic = tcp_of_current();

	if (traffic)
		__sync_fetch_and_add(&traffic->retransmissions, 1);
	return 0;
}

int trace_udp_sendmsg(struct pt_regs *ctx, struct sock *sk, struct msghdr *message, size_t size)
{
	struct traffic *traffic = udp_of_current();

	if (traffic) {
		__sync_fetch_and_add(&traffic->sends, 1);
		__sync_fetch_and_add(&traffic->bytes_sent, size);
	}
	return 0;
}

int trace_udp_recvmsg(struct pt_regs *ctx, struct sock *sk, struct sk_buff *datagram, int size)
{
	struct traffic *traffic;

	if (size < 0)
		return 0;
	traffic = udp_of_current();
	if (traffic) {
		__sync_fetch_and_add(&traffic->receives, 1);
		__sync_fetch_and_add(&traffic->bytes_received, size);
	}
	return 0;
}
