// SPDX-License-Identifier: GPL-2.0-only
// A program as BCC's tools write them: it must compile with the full header tree, unchanged.

#include <uapi/linux/ptrace.h>
#include <linux/sched.h>
#include <linux/blk-mq.h>
#include <linux/fs.h>
#include <net/sock.h>
#include <net/inet_sock.h>
#include <linux/nsproxy.h>
#include <linux/mm_types.h>
#include <bcc/proto.h>

struct key_t {
	u32 pid;
	char comm[TASK_COMM_LEN];
	char name[DNAME_INLINE_LEN];
};

BPF_HASH(starts, struct request *);
BPF_HASH(counts, struct key_t);
BPF_HISTOGRAM(dist);
BPF_STACK_TRACE(stacks, 1000);
BPF_PERCPU_ARRAY(totals, u64, 8);
BPF_TABLE("lru_hash", u32, u64, recent, 128);
BPF_RINGBUF_OUTPUT(events, 8);
BPF_PERF_OUTPUT(old_events);

int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx->args[1];
	struct key_t key = {.pid = prev->tgid};
	u64 now = bpf_ktime_get_ns();

	bpf_get_current_comm(&key.comm, sizeof(key.comm));
	counts.increment(key);
	stacks.get_stackid(ctx, BPF_F_USER_STACK);
	events.ringbuf_output(&now, sizeof(now), 0);
	dist.increment(bpf_log2l(prev->nsproxy->pid_ns_for_children->ns.inum));
	return 0;
}

int on_request(struct pt_regs *ctx, struct request *rq)
{
	u64 now = bpf_ktime_get_ns();

	starts.update(&rq, &now);
	dist.increment(bpf_log2l(rq->__data_len / 1024));
	return PT_REGS_RC(ctx);
}

int on_connect(struct pt_regs *ctx, struct sock *sk)
{
	u64 port = ntohs(sk->sk_dport), *total = totals.lookup(&(int){0});

	if (total && sk->sk_family == AF_INET && sk->sk_state == TCP_SYN_SENT)
		*total += port + inet_sk(sk)->inet_num;
	return 0;
}
