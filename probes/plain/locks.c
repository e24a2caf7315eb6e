// SPDX-License-Identifier: GPL-2.0-only
// plain/locks.c - calls of lock functions by process.
//
// A plain BCC program, to load and attach by hand.
//
//   b = BPF(src_file="probes/plain/locks.c")
//   b.attach_kprobe(event="mutex_lock", fn_name="trace_mutex_lock")
//   b["locks_by_pid"].items()    # pid -> mutex_locks, futex_waits, …
//
//   function                   attach to                               counts
//   trace_mutex_lock           kprobe mutex_lock                       calls, contended or not
//   trace_mutex_unlock         kprobe mutex_unlock                     likewise
//   trace_spin_lock            kprobe _raw_spin_lock                   likewise; every one of them: expensive
//   trace_spin_unlock          kprobe _raw_spin_unlock (from 5.15)     likewise
//   trace_futex_wait           kprobe futex_wait                       waits
//   trace_futex_wake           kprobe futex_wake                       wakes
//   trace_rcu_stall_warning    tracepoint rcu:rcu_stall_warning        warnings (from 5.15)
//   trace_sem_wait             kprobe down, down_interruptible, …      calls
//   trace_lock_acquire         tracepoint lock:contention_begin        contentions of any lock (from 5.19)

struct locks {
	u64 mutex_locks;
	u64 mutex_unlocks;
	u64 spin_locks;
	u64 spin_unlocks;
	u64 futex_waits;
	u64 futex_wakes;
	u64 semaphore_downs;
	u64 contentions;
	u64 rcu_stalls;
};
// A hash would take spin locks itself, which are what is counted: so an array, by pid.
BPF_ARRAY(locks_by_pid, struct locks, 65536);

static __always_inline struct locks *locks_of_current(void)
{
	u32 slot = (bpf_get_current_pid_tgid() >> 32) & 0xffff;

	return locks_by_pid.lookup(&slot);
}

int trace_mutex_lock(struct pt_regs *ctx)
{
	struct locks *locks = locks_of_current();

	if (locks)
		__sync_fetch_and_add(&locks->mutex_locks, 1);
	return 0;
}

int trace_mutex_unlock(struct pt_regs *ctx)
{
	struct locks *locks = locks_of_current();

	if (locks)
		__sync_fetch_and_add(&locks->mutex_unlocks, 1);
	return 0;
}

int trace_spin_lock(struct pt_regs *ctx)
{
	struct locks *locks = locks_of_current();

	if (locks)
		__sync_fetch_and_add(&locks->spin_locks, 1);
	return 0;
}

int trace_spin_unlock(struct pt_regs *ctx)
{
	struct locks *locks = locks_of_current();

	if (locks)
		__sync_fetch_and_add(&locks->spin_unlocks, 1);
	return 0;
}

int trace_futex_wait(struct pt_regs *ctx)
{
	struct locks *locks = locks_of_current();

	if (locks)
		__sync_fetch_and_add(&locks->futex_waits, 1);
	return 0;
}

int trace_futex_wake(struct pt_regs *ctx)
{
	struct locks *locks = locks_of_current();

	if (locks)
		__sync_fetch_and_add(&locks->futex_wakes, 1);
	return 0;
}

int trace_rcu_stall_warning(void *ctx)
{
	struct locks *locks = locks_of_current();

	if (locks)
		__sync_fetch_and_add(&locks->rcu_stalls, 1);
	return 0;
}

int trace_sem_wait(struct pt_regs *ctx)
{
	struct locks *locks = locks_of_current();

	if (locks)
		__sync_fetch_and_add(&locks->semaphore_downs, 1);
	return 0;
}

int trace_lock_acquire(void *ctx)
{
	struct locks *locks = locks_of_current();

	if (locks)
		__sync_fetch_and_add(&locks->contentions, 1);
	return 0;
}
