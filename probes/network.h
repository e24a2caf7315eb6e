// SPDX-License-Identifier: GPL-2.0-only
// network.h - whose a TCP socket is.
//
// Segments, retransmissions and round trips are seen in whatever context a packet or a timer came: they are charged to
// the process that used the socket last.  The hooks of these run under the socket's lock, so no two of them change one
// record; calls are seen when the lock is free again, and change only whose it is.

#pragma once

#define NETWORK_STREAM 1 // enum sock_type
#define NETWORK_DATAGRAM 2
#define NETWORK_RCV_SHUTDOWN 0x1 // RCV_SHUTDOWN: nothing can come

// A TCP socket that was used in this run.
struct network_socket {
	u32 tgid;    // of the process that used it last
	u32 counted; // that process is in the target
	u32 segs_in; // as the socket said when they were last counted
	u32 segs_out;
	u32 probes; // segments that came while it was established
	u32 pad;
};
BPF_TABLE("hash", struct sock *, struct network_socket, network_sockets, NETWORK_SOCKETS_ENTRIES);

// Connections that came in this run, until somebody uses them.
BPF_TABLE("hash", struct sock *, u64, network_waiting, NETWORK_WAITING_ENTRIES);

// Sockets are read explicitly: BCC would do so for a pointer from a tracepoint, but not for one from a function, and here
// both come.
static __always_inline u16 network_protocol(struct sock *sk)
{
	u16 protocol = 0;

	bpf_probe_read_kernel(&protocol, sizeof(protocol), &sk->sk_protocol);
	return protocol;
}

static __always_inline bool network_is_shut(struct sock *sk)
{
	u8 shutdown = 0;

	bpf_probe_read_kernel(&shutdown, sizeof(shutdown), &sk->sk_shutdown);
	return shutdown & NETWORK_RCV_SHUTDOWN;
}

static __always_inline bool network_is_owned(struct sock *sk)
{
	int owned = 0;

	bpf_probe_read_kernel(&owned, sizeof(owned), &sk->sk_lock.owned);
	return owned;
}

// Whether the protocol of this type of socket is the internet's: netlink has numbers of its own, a raw socket any.
static __always_inline bool network_is(struct sock *sk, u16 type)
{
	u16 found = 0, family = 0;

	bpf_probe_read_kernel(&found, sizeof(found), &sk->sk_type);
	if (found != type)
		return false;
	bpf_probe_read_kernel(&family, sizeof(family), &sk->__sk_common.skc_family);
	return family == AF_INET || family == AF_INET6;
}

static __always_inline void network_read_segments(struct sock *sk, u32 *segs_in, u32 *segs_out)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;

	bpf_probe_read_kernel(segs_in, sizeof(*segs_in), &tcp->segs_in);
	bpf_probe_read_kernel(segs_out, sizeof(*segs_out), &tcp->segs_out);
}

// Charges what the socket has counted since the last time.  Interrupts may come between, so what packets change is added
// in one step, here and below.
static __always_inline void network_count_segments(struct cb_network *network, struct sock *sk,
						   struct network_socket *socket)
{
	u32 segs_in = 0, segs_out = 0;

	network_read_segments(sk, &segs_in, &segs_out);
	if (socket->counted) {
		__sync_fetch_and_add(&network->tcp_packets_received,
				     (u32)(segs_in - socket->segs_in));
		__sync_fetch_and_add(&network->tcp_packets_sent,
				     (u32)(segs_out - socket->segs_out));
	}
	socket->segs_in = segs_in;
	socket->segs_out = segs_out;
}

static __always_inline void network_count_connection(struct cb_event *ev,
						     struct cb_network *network,
						     struct network_socket *socket)
{
	struct cb_process *process;

	__sync_fetch_and_add(&network->attributed_connections, 1);
	if (!socket->counted)
		return;
	__sync_fetch_and_add(&network->tcp_connections, 1);
	process = cb_process_of(ev, socket->tgid);
	if (process)
		__sync_fetch_and_add(&process->network_tcp_connections, 1);
}

static __always_inline void network_count_accept(struct cb_event *ev, struct cb_network *network,
						 struct network_socket *socket)
{
	network_count_connection(ev, network, socket);
	if (!socket->counted)
		return;
	__sync_fetch_and_add(&network->tcp_accepts, 1);
	// the SYN-ACK was sent before there was a socket
	__sync_fetch_and_add(&network->tcp_packets_sent, 1);
}

// Whether it is known already that the current thread's work on a socket counts, or not: only between cgroups does a
// process move.
static __always_inline bool network_knows(struct cb_event *ev, struct network_socket *socket)
{
	return socket && socket->tgid == bpf_get_current_pid_tgid() >> 32 &&
	       ev->config->target != CB_CGROUP;
}

// The current thread uses a TCP socket, of which this is the record, or NULL.
static __always_inline void network_use(struct cb_event *ev, struct cb_network *network,
					struct sock *sk, struct network_socket *socket,
					bool counted)
{
	struct network_socket used = { .tgid = bpf_get_current_pid_tgid() >> 32,
				       .counted = counted };

	if (socket) {
		if (!socket->counted) // what was before is not the target's
			network_read_segments(sk, &socket->segs_in, &socket->segs_out);
		socket->tgid = used.tgid;
		socket->counted = counted;
		return;
	}
	if (!network_waiting.delete(&sk)) { // which succeeds once, however many threads try
		network_count_accept(ev, network, &used);
		if (network_sockets.update(&sk, &used))
			cb_lose_key();
		return;
	}
	network_read_segments(sk, &used.segs_in, &used.segs_out);
	if (!network_sockets.lookup_or_try_init(&sk, &used))
		cb_lose_key();
}

// The record of a TCP socket whose lock is held: by a packet, by a timer, or, where it says `owned`, by the current
// thread.  NULL if nobody has used it in this run.
static __always_inline struct network_socket *
network_user(struct cb_event *ev, struct cb_network *network, struct sock *sk)
{
	struct network_socket *socket = network_sockets.lookup(&sk);

	if (socket || !network_is_owned(sk))
		return socket;
	network_use(ev, network, sk, NULL, cb_current_counts(ev));
	return network_sockets.lookup(&sk);
}
