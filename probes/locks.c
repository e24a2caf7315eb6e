// SPDX-License-Identifier: GPL-2.0-only
// locks.c - waiting for locks: those of the kernel (contention.h), and futexes, which user space makes its locks of.

static __always_inline void locks_on_mutex_waited(struct cb_event *ev, struct cb_locks *locks,
						  u64 ns)
{
	struct cb_process *process = cb_process_of(ev, bpf_get_current_pid_tgid() >> 32);

	locks->mutex_contentions++;
	cb_observe(ev, &locks->mutex_wait_ns, ns);
	if (process)
		__sync_fetch_and_add(&process->locks_mutex_contentions, 1);
}

static __always_inline void locks_on_rwsem_waited(struct cb_event *ev, struct cb_locks *locks,
						  u64 ns)
{
	locks->rwsem_waits++;
	cb_observe(ev, &locks->rwsem_wait_ns, ns);
}

static __always_inline void locks_on_semaphore_waited(struct cb_event *ev, struct cb_locks *locks,
						      u64 ns)
{
	locks->semaphore_waits++;
}

static __always_inline void locks_on_spin_waited(struct cb_event *ev, struct cb_locks *locks,
						 u64 ns)
{
	locks->spin_contentions++;
	cb_observe(ev, &locks->spin_wait_ns, ns);
}

static __always_inline void locks_on_rcu_stall_warning(struct cb_event *ev, struct cb_locks *locks,
						       char *flavour)
{
	locks->rcu_stalls++;
}

// include/linux/errno.h, uapi/asm-generic/errno.h: the wait was ended by a signal, or by its own time limit.
#define LOCKS_EINTR 4
#define LOCKS_ETIMEDOUT 110
#define LOCKS_ERESTARTSYS 512
#define LOCKS_ERESTART_RESTARTBLOCK 516

// A call that failed otherwise did not wait; most often it found that the futex had changed (EAGAIN).
static __always_inline bool locks_has_waited(long ret)
{
	return ret >= 0 || ret == -LOCKS_EINTR || ret == -LOCKS_ETIMEDOUT ||
	       (ret <= -LOCKS_ERESTARTSYS && ret >= -LOCKS_ERESTART_RESTARTBLOCK);
}

static __always_inline void locks_on_call_done(struct cb_event *ev, struct cb_locks *locks,
					       struct cb_task *task, struct pt_regs *regs, u32 kind,
					       long ret, u64 ns)
{
	struct cb_process *process;

	if (kind == CB_CALL_FUTEX_WAKE && ret >= 0)
		locks->futex_wakes++;
	if (kind != CB_CALL_FUTEX_WAIT || !locks_has_waited(ret))
		return;
	locks->futex_waits++;
	locks->futex_waited_ns += ns;
	cb_observe(ev, &locks->futex_wait_ns, ns);
	process = cb_process_of(ev, task->tgid);
	if (process) {
		__sync_fetch_and_add(&process->locks_futex_waits, 1);
		__sync_fetch_and_add(&process->locks_futex_waited_ns, ns);
	}
}
