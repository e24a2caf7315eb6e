// SPDX-License-Identifier: GPL-2.0-only
// network.h - finds the process that a TCP socket belongs to.
//
// Segments, retransmissions and round trips are seen in whatever context a packet or a timer came: they are charged to
// the process that used the socket last.  Their hooks run under the socket's lock, so no two of them change one
// record at once; calls are seen when the lock is free again, and change only the owner.

#pragma once

#include "lib/task.h"
#include "generated/network.h"

#define NETWORK_STREAM 1 // enum sock_type
#define NETWORK_DATAGRAM 2
#define NETWORK_RAW 3
#define NETWORK_RCV_SHUTDOWN 0x1 // RCV_SHUTDOWN: nothing can come
#define NETWORK_MPTCP \
	262 // IPPROTO_MPTCP: a connection over TCP sockets of its own, its paths, which no call is made on
#define NETWORK_SMC 43 // AF_SMC

// The protocols under which calls on other internet sockets are counted: PROTOCOLS in network.py.
enum network_other {
	NETWORK_OTHER_SCTP,
	NETWORK_OTHER_UDPLITE,
	NETWORK_OTHER_DCCP,
	NETWORK_OTHER_ICMP,
	NETWORK_OTHER_RAW,
	NETWORK_OTHER_SMC,
	NETWORK_OTHER,
};
#define NETWORK_OTHERS 0x200 // what network_call() adds to these

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

// Connections that came in this run and that no thread has used yet.
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

static __always_inline u16 network_family(struct sock *sk)
{
	u16 family = 0;

	bpf_probe_read_kernel(&family, sizeof(family), &sk->__sk_common.skc_family);
	return family;
}

static __always_inline u16 network_type(struct sock *sk)
{
	u16 type = 0;

	bpf_probe_read_kernel(&type, sizeof(type), &sk->sk_type);
	return type;
}

// Whether this is an internet socket of this type.  Only then has its protocol number the usual meaning: netlink has
// numbers of its own, and a raw socket may have any.
static __always_inline bool network_is(struct sock *sk, u16 type)
{
	u16 family;

	if (network_type(sk) != type)
		return false;
	family = network_family(sk);
	return family == AF_INET || family == AF_INET6;
}

// The enum network_other, plus NETWORK_OTHERS, for calls on a socket that are in no other figure; 0: no internet socket.
static __always_inline u16 network_other_call(struct sock *sk, u16 protocol)
{
	u16 family = network_family(sk);

	if (family == NETWORK_SMC)
		return NETWORK_OTHERS + NETWORK_OTHER_SMC;
	if (family != AF_INET && family != AF_INET6)
		return 0;
	if (network_type(sk) == NETWORK_RAW)
		return NETWORK_OTHERS + NETWORK_OTHER_RAW;
	switch (protocol) {
	case 132: // IPPROTO_SCTP
		return NETWORK_OTHERS + NETWORK_OTHER_SCTP;
	case 136: // IPPROTO_UDPLITE
		return NETWORK_OTHERS + NETWORK_OTHER_UDPLITE;
	case 33: // IPPROTO_DCCP
		return NETWORK_OTHERS + NETWORK_OTHER_DCCP;
	case 1:  // IPPROTO_ICMP
	case 58: // IPPROTO_ICMPV6
		return NETWORK_OTHERS + NETWORK_OTHER_ICMP;
	}
	return NETWORK_OTHERS + NETWORK_OTHER;
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

// Whether the record of a socket says already if the current thread's work on it counts: the thread's process used it last,
// and has not moved, as it may between cgroups.
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

#ifdef CB_HAS_MPTCP
// The MPTCP connection that a TCP socket is a path of; NULL if it is not one.
static __always_inline struct sock *network_connection(struct sock *sk)
{
	struct inet_connection_sock *path = (struct inet_connection_sock *)sk;
	const struct tcp_ulp_ops *layer = NULL;
	struct mptcp_subflow_context *context = NULL;
	struct sock *connection = NULL;
	char name[8] = {};

	bpf_probe_read_kernel(&layer, sizeof(layer), &path->icsk_ulp_ops);
	if (!layer)
		return NULL;
	bpf_probe_read_kernel(name, sizeof(name), layer->name);
	if (name[0] != 'm' || name[1] != 'p' || name[2] != 't' || name[3] != 'c' ||
	    name[4] != 'p' || name[5])
		return NULL;
	bpf_probe_read_kernel(&context, sizeof(context), &path->icsk_ulp_data);
	bpf_probe_read_kernel(&connection, sizeof(connection), &context->conn);
	return connection;
}

// The path that a connection began with; it counts as the connection.
static __always_inline struct sock *network_first_path(struct sock *connection)
{
	struct sock *first = NULL;

	bpf_probe_read_kernel(&first, sizeof(first), &((struct mptcp_sock *)connection)->first);
	return first;
}

// The current thread uses an MPTCP connection, and so the path that it began with.
static __always_inline void network_use_connection(struct cb_event *ev, struct cb_network *network,
						   struct sock *connection, bool counted)
{
	struct network_socket used = { .tgid = bpf_get_current_pid_tgid() >> 32,
				       .counted = counted };
	struct sock *first = network_first_path(connection);

	if (first)
		network_use(ev, network, first, network_sockets.lookup(&first), counted);
	if (network_sockets.update(&connection, &used))
		cb_lose_key();
}

// A further path of a connection is established: it belongs to the user of the connection, and is not a connection itself.
static __always_inline bool network_joins(struct cb_event *ev, struct cb_network *network,
					  struct sock *sk)
{
	struct sock *connection = network_connection(sk);
	struct network_socket *socket = network_sockets.lookup(&connection), used = {};

	if (!connection || network_first_path(connection) == sk)
		return false;
	network_waiting.delete(&sk);
	if (socket) {
		used.tgid = socket->tgid;
		used.counted = socket->counted;
		if (network_sockets.update(&sk, &used))
			cb_lose_key();
	}
	return true;
}

static __always_inline void network_connection_changes(struct cb_event *ev,
						       struct cb_network *network, struct sock *sk,
						       int newstate)
{
	if (newstate == TCP_CLOSE)
		network_sockets.delete(&sk);
	else if (newstate != TCP_LISTEN && network_is_owned(sk) && !network_sockets.lookup(&sk))
		network_use_connection(ev, network, sk, cb_current_counts(ev));
}
#else
static __always_inline void network_use_connection(struct cb_event *ev, struct cb_network *network,
						   struct sock *connection, bool counted)
{
}

static __always_inline bool network_joins(struct cb_event *ev, struct cb_network *network,
					  struct sock *sk)
{
	return false;
}

static __always_inline void network_connection_changes(struct cb_event *ev,
						       struct cb_network *network, struct sock *sk,
						       int newstate)
{
}
#endif

// The record of a TCP socket whose lock is held: by a packet, by a timer, or, where it says `owned`, by the current
// thread.  NULL if no thread has used it in this run.
static __always_inline struct network_socket *
network_user(struct cb_event *ev, struct cb_network *network, struct sock *sk)
{
	struct network_socket *socket = network_sockets.lookup(&sk);

	if (socket || !network_is_owned(sk))
		return socket;
	network_use(ev, network, sk, NULL, cb_current_counts(ev));
	return network_sockets.lookup(&sk);
}
