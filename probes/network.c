// SPDX-License-Identifier: GPL-2.0-only
// network.c - what went through TCP, MPTCP and UDP sockets, over IPv4 and IPv6.
//
// network.h finds the owners of TCP sockets.

#include "generated/events.h"
#include "network.h"

#define NETWORK_PEEK 0x02     // MSG_PEEK: it will be received again
#define NETWORK_ERRORS 0x2000 // MSG_ERRQUEUE: it was sent from here
#define NETWORK_FIRST 16      // segments of a socket that are all looked at
#define NETWORK_SAMPLING 16

static __always_inline void network_on_inet_sock_set_state(struct cb_event *ev,
							   struct cb_network *network,
							   struct sock *sk, int oldstate,
							   int newstate)
{
	bool answered = newstate == TCP_ESTABLISHED || newstate == TCP_SYN_RECV;
	u64 one = 1;
	struct network_socket *socket;
	u16 protocol = network_protocol(sk);

	if (protocol == NETWORK_MPTCP)
		network_connection_changes(ev, network, sk, newstate);
	if (protocol != IPPROTO_TCP)
		return;
	if (newstate == TCP_SYN_SENT) // perhaps for a second time: its counts begin again
		network_sockets.delete(&sk);
	if (oldstate == TCP_LISTEN && newstate == TCP_SYN_RECV && network_waiting.update(&sk, &one))
		cb_lose_key();
	if (newstate == TCP_ESTABLISHED && network_joins(ev, network, sk))
		return;
	socket = network_user(ev, network, sk);
	if (newstate == TCP_ESTABLISHED && (oldstate == TCP_SYN_SENT || oldstate == TCP_SYN_RECV))
		__sync_fetch_and_add(&network->established, 1);
	if (socket && oldstate == TCP_SYN_SENT && answered) {
		network_count_connection(ev, network, socket);
		if (socket->counted)
			__sync_fetch_and_add(&network->tcp_connects, 1);
	}
	if (socket)
		network_count_segments(network, sk, socket);
}

// After the last state, but before the socket forgets its counts.  `sk` may be NULL, or none that was ever used.
static __always_inline void network_on_tcp_send_reset(struct cb_event *ev,
						      struct cb_network *network, struct sock *sk)
{
	struct network_socket *socket = network_sockets.lookup(&sk);

	if (socket)
		network_count_segments(network, sk, socket);
}

static __always_inline void network_on_tcp_destroy_sock(struct cb_event *ev,
							struct cb_network *network, struct sock *sk)
{
	network_sockets.delete(&sk);
	network_waiting.delete(&sk);
}

// Looks at each of the first segments, then at one in NETWORK_SAMPLING: the round trip is smoothed over about as many, and
// the socket itself counts all segments.
static __always_inline void network_on_tcp_probe(struct cb_event *ev, struct cb_network *network,
						 struct sock *sk)
{
	struct network_socket *socket = network_sockets.lookup(&sk);
	struct tcp_sock *tcp = (struct tcp_sock *)sk;
	u32 srtt = 0; // in eighths of a microsecond

	if (!socket || !socket->counted)
		return;
	if (socket->probes++ >= NETWORK_FIRST && socket->probes % NETWORK_SAMPLING)
		return;
	network_count_segments(network, sk, socket);
	bpf_probe_read_kernel(&srtt, sizeof(srtt), &tcp->srtt_us);
	if (srtt)
		cb_observe(ev, &network->tcp_rtt_ns, (u64)(srtt >> 3) * 1000);
}

static __always_inline void network_count_retransmitted(struct cb_event *ev,
							struct cb_network *network,
							struct network_socket *socket, u32 segments)
{
	if (!socket)
		__sync_fetch_and_add(&network->unattributed_tcp_retransmissions, segments);
	else if (socket->counted)
		__sync_fetch_and_add(&network->tcp_retransmissions, segments);
	if (socket && socket->counted)
		cb_emit(ev, NETWORK_EVENT_RETRANSMIT, socket->tgid, segments);
}

static __always_inline void network_on_tcp_retransmit_skb(struct cb_event *ev,
							  struct cb_network *network,
							  struct sock *sk, struct sk_buff *skb,
							  int error)
{
	struct tcp_skb_cb *tcp = (void *)skb + __builtin_offsetof(struct sk_buff, cb);
	u16 segments = 0;

	if (error)
		return;
	bpf_probe_read_kernel(&segments, sizeof(segments), &tcp->tcp_gso_segs);
	network_count_retransmitted(ev, network, network_sockets.lookup(&sk), segments);
}

// Sent in the name of the listening socket, which is not locked.
static __always_inline void network_on_synack_again(struct cb_event *ev, struct cb_network *network,
						    struct sock *sk)
{
	network_count_retransmitted(ev, network, network_sockets.lookup(&sk), 1);
}

// The protocol that a call on this socket counts for: IPPROTO_TCP, IPPROTO_UDP or network_other_call()'s; 0: for none.
static __always_inline u16 network_call(struct cb_event *ev, struct cb_network *network,
					struct sock *sk)
{
	struct network_socket *socket = network_sockets.lookup(&sk);
	u16 protocol;
	bool counted;

	if (network_knows(ev, socket)) // a lookup is faster than reading the socket
		return socket->counted ? IPPROTO_TCP : 0;
	protocol = network_protocol(sk);
	if (protocol == IPPROTO_TCP || protocol == NETWORK_MPTCP) {
		if (!network_is(sk, NETWORK_STREAM))
			protocol = network_other_call(sk, protocol);
	} else if (protocol != IPPROTO_UDP || !network_is(sk, NETWORK_DATAGRAM)) {
		protocol = network_other_call(sk, protocol);
	}
	if (!protocol)
		return 0;
	counted = cb_current_counts(ev);
	if (protocol == NETWORK_MPTCP)
		network_use_connection(ev, network, sk, counted);
	else if (protocol == IPPROTO_TCP)
		network_use(ev, network, sk, socket, counted);
	if (!counted)
		return 0;
	return protocol == NETWORK_MPTCP ? IPPROTO_TCP : protocol;
}

static __always_inline void network_count_other(struct cb_network *network, u16 protocol, u64 bytes)
{
	u64 index = protocol - NETWORK_OTHERS;

	network->other_protocol_calls[cb_clamp(index, NETWORK_OTHER_PROTOCOL_CALLS_ENTRIES)]++;
	network->other_protocol_bytes[cb_clamp(index, NETWORK_OTHER_PROTOCOL_BYTES_ENTRIES)] +=
		bytes;
}

static __always_inline void network_on_sock_sent(struct cb_event *ev, struct cb_network *network,
						 struct sock *sk, int bytes)
{
	u16 protocol = network_call(ev, network, sk);
	struct cb_process *process = cb_process_of(ev, bpf_get_current_pid_tgid() >> 32);

	if (!protocol || bytes < 0)
		return;
	if (protocol == IPPROTO_TCP) {
		network->tcp_bytes_sent += bytes;
		if (process)
			__sync_fetch_and_add(&process->network_tcp_bytes_sent, bytes);
		return;
	}
	if (protocol != IPPROTO_UDP) {
		network_count_other(network, protocol, bytes);
		return;
	}
	network->udp_packets++;
	network->udp_packets_sent++;
	network->udp_bytes_sent += bytes;
	if (process)
		__sync_fetch_and_add(&process->network_udp_packets, 1);
}

static __always_inline void network_on_sock_received(struct cb_event *ev,
						     struct cb_network *network, struct sock *sk,
						     int bytes, int flags)
{
	u16 protocol = network_call(ev, network, sk);
	struct cb_process *process = cb_process_of(ev, bpf_get_current_pid_tgid() >> 32);

	if (!protocol || bytes < 0 || flags & (NETWORK_PEEK | NETWORK_ERRORS))
		return;
	if (protocol == IPPROTO_TCP) {
		network->tcp_bytes_received += bytes;
		if (process)
			__sync_fetch_and_add(&process->network_tcp_bytes_received, bytes);
		return;
	}
	if (protocol != IPPROTO_UDP) {
		network_count_other(network, protocol, bytes);
		return;
	}
	if (!bytes && network_is_shut(sk))
		return; // no datagram: the socket was shut down
	network->udp_packets++;
	network->udp_packets_received++;
	network->udp_bytes_received += bytes;
	if (process)
		__sync_fetch_and_add(&process->network_udp_packets, 1);
}
