// SPDX-License-Identifier: GPL-2.0-only
// network.c - what went through TCP and UDP sockets, over IPv4 and IPv6.
//
// A call is its caller's.  Segments, retransmissions and round trips are a socket's, and are seen in whatever context
// a packet or a timer came: they are charged to the process that used the socket last.  The hooks of these run under
// the socket's lock, so no two of them change one record; calls are seen when the lock is free again, and change only
// whose it is.

#define NETWORK_STREAM 1 // enum sock_type; a raw socket may bear the protocol's number as well
#define NETWORK_DATAGRAM 2
#define NETWORK_PEEK 0x02        // MSG_PEEK: it will be received again
#define NETWORK_ERRORS 0x2000    // MSG_ERRQUEUE: it was sent from here
#define NETWORK_RCV_SHUTDOWN 0x1 // RCV_SHUTDOWN: nothing can come
#define NETWORK_FIRST 16
#define NETWORK_SAMPLING 16

// A TCP socket that was used or born in this run.
struct network_socket {
	u32 tgid;    // of the process that used it last; 0: accepted by nobody so far
	u32 counted; // that process is in the target
	u32 segs_in; // as the socket said when they were last counted
	u32 segs_out;
	u32 probes; // segments that came while it was established
	u32 pad;
};
BPF_TABLE("hash", struct sock *, struct network_socket, network_sockets, NETWORK_SOCKETS_ENTRIES);

static __always_inline bool network_is(struct sock *sk, u16 type, u16 protocol)
{
	u16 family;

	if (sk->sk_protocol != protocol || sk->sk_type != type)
		return false;
	family = sk->__sk_common.skc_family;
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

	if (!socket->tgid) // whoever accepts it will be charged
		return;
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

// A record that has no process is a connection that was established and not used.  To delete it succeeds only once,
// whoever else is at it: so it is accepted only once.
static __always_inline void network_accept(struct cb_event *ev, struct cb_network *network,
					   struct sock *sk, struct network_socket socket)
{
	if (network_sockets.delete(&sk))
		return;
	network_sockets.update(&sk, &socket);
	network_count_connection(ev, network, &socket);
	if (!socket.counted)
		return;
	__sync_fetch_and_add(&network->tcp_accepts, 1);
	__sync_fetch_and_add(&network->tcp_packets_sent,
			     1); // the SYN-ACK, which was before the socket
}

// The current thread uses a TCP socket; false if it is another kind of socket.
static __always_inline bool network_use(struct cb_event *ev, struct cb_network *network,
					struct sock *sk, bool counted)
{
	struct network_socket used = { .tgid = bpf_get_current_pid_tgid() >> 32,
				       .counted = counted };
	struct network_socket *socket = network_sockets.lookup(&sk);

	if (!socket) {
		if (!network_is(sk, NETWORK_STREAM, IPPROTO_TCP))
			return false;
		network_read_segments(sk, &used.segs_in, &used.segs_out);
		if (!network_sockets.lookup_or_try_init(&sk, &used))
			cb_lose_key();
	} else if (!socket->tgid) {
		used.segs_in = socket->segs_in;
		used.segs_out = socket->segs_out;
		network_accept(ev, network, sk, used);
	} else if (socket->tgid != used.tgid || socket->counted != used.counted) {
		if (!socket->counted) // what was before is not the target's
			network_read_segments(sk, &socket->segs_in, &socket->segs_out);
		socket->tgid = used.tgid;
		socket->counted = used.counted;
	}
	return true;
}

// The record of a TCP socket whose lock is held: by a packet, by a timer, or, where it says `owned`, by the current
// thread.  NULL if nobody has used it in this run.
static __always_inline struct network_socket *
network_user(struct cb_event *ev, struct cb_network *network, struct sock *sk)
{
	struct network_socket *socket = network_sockets.lookup(&sk);

	if (!(socket && socket->tgid) && sk->sk_lock.owned) {
		network_use(ev, network, sk, cb_current_counts(ev));
		socket = network_sockets.lookup(&sk);
	}
	return socket && socket->tgid ? socket : NULL;
}

static __always_inline void network_on_inet_sock_set_state(struct cb_event *ev,
							   struct cb_network *network,
							   struct sock *sk, int oldstate,
							   int newstate)
{
	bool answered = newstate == TCP_ESTABLISHED || newstate == TCP_SYN_RECV;
	struct network_socket born = {};
	struct network_socket *socket;

	if (!network_is(sk, NETWORK_STREAM, IPPROTO_TCP))
		return;
	if (newstate == TCP_SYN_SENT)
		network_sockets.delete(&sk);
	if (oldstate == TCP_LISTEN && newstate == TCP_SYN_RECV &&
	    network_sockets.update(&sk, &born))
		cb_lose_key();
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
}

// Each of the first segments, then one in so many: the round trip is smoothed over as many, and the socket goes on
// counting.
static __always_inline void network_on_tcp_probe(struct cb_event *ev, struct cb_network *network,
						 struct sock *sk)
{
	struct network_socket *socket = network_user(ev, network, sk);
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

static __always_inline void network_count_retransmitted(struct cb_network *network,
							struct network_socket *socket, u32 segments)
{
	if (!socket || !socket->tgid)
		__sync_fetch_and_add(&network->unattributed_tcp_retransmissions, segments);
	else if (socket->counted)
		__sync_fetch_and_add(&network->tcp_retransmissions, segments);
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
	network_count_retransmitted(network, network_user(ev, network, sk), segments);
}

// Sent in the name of the listening socket, which is not locked.
static __always_inline void network_on_synack_again(struct cb_event *ev, struct cb_network *network,
						    struct sock *sk)
{
	network_count_retransmitted(network, network_sockets.lookup(&sk), 1);
}

// By which protocol a call on this socket counts: IPPROTO_TCP, IPPROTO_UDP, or 0, not at all.
static __always_inline u16 network_call(struct cb_event *ev, struct cb_network *network,
					struct sock *sk)
{
	bool counted = cb_current_counts(ev);
	u16 protocol = sk->sk_protocol;

	if (protocol == IPPROTO_TCP)
		return network_use(ev, network, sk, counted) && counted ? protocol : 0;
	if (protocol != IPPROTO_UDP || !counted)
		return 0;
	return network_is(sk, NETWORK_DATAGRAM, IPPROTO_UDP) ? protocol : 0;
}

static __always_inline void network_send(struct cb_event *ev, struct cb_network *network,
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
	network->udp_packets++;
	network->udp_packets_sent++;
	network->udp_bytes_sent += bytes;
	if (process)
		__sync_fetch_and_add(&process->network_udp_packets, 1);
}

static __always_inline void network_receive(struct cb_event *ev, struct cb_network *network,
					    struct sock *sk, int bytes, int flags)
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
	if (!bytes && sk->sk_shutdown & NETWORK_RCV_SHUTDOWN)
		return; // the end, and no datagram
	network->udp_packets++;
	network->udp_packets_received++;
	network->udp_bytes_received += bytes;
	if (process)
		__sync_fetch_and_add(&process->network_udp_packets, 1);
}

static __always_inline void network_on_sock_sent(struct cb_event *ev, struct cb_network *network,
						 struct sock *sk, int bytes)
{
	network_send(ev, network, sk, bytes);
}

static __always_inline void network_on_sock_sent6(struct cb_event *ev, struct cb_network *network,
						  struct sock *sk, int bytes)
{
	network_send(ev, network, sk, bytes);
}

static __always_inline void network_on_sent_pages(struct cb_event *ev, struct cb_network *network,
						  struct sock *sk, int bytes)
{
	network_send(ev, network, sk, bytes);
}

static __always_inline void network_on_sock_received(struct cb_event *ev,
						     struct cb_network *network, struct sock *sk,
						     int bytes, int flags)
{
	network_receive(ev, network, sk, bytes, flags);
}

static __always_inline void network_on_sock_received6(struct cb_event *ev,
						      struct cb_network *network, struct sock *sk,
						      int bytes, int flags)
{
	network_receive(ev, network, sk, bytes, flags);
}
