// SPDX-License-Identifier: GPL-2.0-only
// locks.c - waiting for locks: those of the kernel (contention.h), and futexes, which user space makes its locks of.

#include "locks.h"

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
	cb_emit(ev, LOCKS_EVENT_RCU_STALL, 0, 0);
}

// ---- the option `order`: see locks.h

#define LOCKS_EOWNERDEAD 130 // uapi/asm-generic/errno.h: taken, and its previous owner is dead

static __always_inline void locks_on_pthread_wants(struct cb_event *ev, struct cb_locks *locks,
						   unsigned long mutex, unsigned long caller)
{
	locks_wants(ev, LOCKS_OF_USER, mutex, caller, true);
}

static __always_inline void locks_on_pthread_tries(struct cb_event *ev, struct cb_locks *locks,
						   unsigned long mutex, unsigned long caller)
{
	locks_wants(ev, LOCKS_OF_USER, mutex, caller, false);
}

static __always_inline void locks_on_pthread_answers(struct cb_event *ev, struct cb_locks *locks,
						     int answer)
{
	if (locks_answered(LOCKS_OF_USER, !answer || answer == LOCKS_EOWNERDEAD))
		locks->pthread_mutex_locks++;
}

static __always_inline void locks_on_pthread_unlocks(struct cb_event *ev, struct cb_locks *locks,
						     unsigned long mutex)
{
	locks_release(LOCKS_OF_USER, mutex);
}

// The condition's mutex is released, and requested again while the thread holds all its other mutexes.
static __always_inline void locks_on_pthread_cond_waits(struct cb_event *ev, struct cb_locks *locks,
							unsigned long mutex, unsigned long caller)
{
	struct locks_held *held = locks_held_by_current(LOCKS_OF_USER, false);

	if (held)
		locks_order(ev, held, LOCKS_OF_USER, mutex, caller);
}

static __always_inline void locks_on_pthread_renews(struct cb_event *ev, struct cb_locks *locks,
						    unsigned long mutex)
{
	locks_begins_new_life(LOCKS_OF_USER, mutex);
}

static __always_inline void locks_on_order_lock(struct cb_event *ev, struct cb_locks *locks,
						struct mutex *lock)
{
	// mutex_lock() does not return without the mutex, so its return need not be seen
	if (locks_wants(ev, LOCKS_OF_KERNEL, (u64)lock, 0, true) &&
	    locks_answered(LOCKS_OF_KERNEL, true))
		locks->kernel_mutex_locks++;
}

static __always_inline void locks_on_order_wait(struct cb_event *ev, struct cb_locks *locks,
						struct mutex *lock)
{
	locks_wants(ev, LOCKS_OF_KERNEL, (u64)lock, 0, true);
}

static __always_inline void locks_on_order_wait_answers(struct cb_event *ev, struct cb_locks *locks,
							int answer)
{
	if (locks_answered(LOCKS_OF_KERNEL, !answer))
		locks->kernel_mutex_locks++;
}

static __always_inline void locks_on_order_trylock(struct cb_event *ev, struct cb_locks *locks,
						   struct mutex *lock)
{
	locks_wants(ev, LOCKS_OF_KERNEL, (u64)lock, 0, false);
}

static __always_inline void locks_on_order_trylock_answers(struct cb_event *ev,
							   struct cb_locks *locks, int answer)
{
	if (locks_answered(LOCKS_OF_KERNEL, answer == 1))
		locks->kernel_mutex_locks++;
}

static __always_inline void locks_on_order_unlock(struct cb_event *ev, struct cb_locks *locks,
						  struct mutex *lock)
{
	locks_release(LOCKS_OF_KERNEL, (u64)lock);
}

static __always_inline void locks_on_order_init(struct cb_event *ev, struct cb_locks *locks,
						struct mutex *lock)
{
	locks_begins_new_life(LOCKS_OF_KERNEL, (u64)lock);
}

// ---- the option `hold`

static __always_inline void locks_on_raw_lock(struct cb_event *ev, struct cb_locks *locks,
					      raw_spinlock_t *lock)
{
	locks_spin_taken(ev, (u64)lock);
}

static __always_inline void locks_on_raw_trylock(struct cb_event *ev, struct cb_locks *locks,
						 raw_spinlock_t *lock, int taken)
{
	if (taken)
		locks_spin_taken(ev, (u64)lock);
}

static __always_inline void locks_on_raw_unlock(struct cb_event *ev, struct cb_locks *locks,
						raw_spinlock_t *lock)
{
	locks_spin_released(ev, locks, (u64)lock);
}

// ---- waits on futexes

// include/linux/errno.h, uapi/asm-generic/errno.h: the wait was ended by a signal, or by its own time limit.
#define LOCKS_EINTR 4
#define LOCKS_ETIMEDOUT 110

// How often the current thread has given up its CPU to wait for something.
static __always_inline u64 locks_switches(void)
{
	struct task_struct *task = (struct task_struct *)CB_CURRENT_TASK();

	return task->nvcsw;
}

// Whether a call under way when the run began has slept before is unknown: it is taken to have waited.
static __always_inline void locks_on_call_begins(struct cb_event *ev, struct cb_locks *locks,
						 struct cb_task *task, struct pt_regs *regs,
						 u32 kind)
{
	if (kind != CB_CALL_FUTEX_WAIT && kind != CB_CALL_FUTEX_LOCK)
		return;
	task->noted = locks_switches();
	if (task->call == CB_CALL_UNSEEN)
		task->noted--;
}

// A call that sleeps and then succeeds, times out or is interrupted has waited; so has one that a wake-up ended before it
// slept.  A call that takes a free lock also succeeds, but has not waited.  A call that failed otherwise did not wait; most
// often the futex had changed (EAGAIN).
static __always_inline bool locks_has_waited(struct cb_task *task, u32 kind, long ret)
{
	if (kind == CB_CALL_FUTEX_WAIT && ret >= 0)
		return true;
	if (kind != CB_CALL_FUTEX_WAIT && kind != CB_CALL_FUTEX_LOCK)
		return false;
	if (ret < 0 && ret != -LOCKS_EINTR && ret != -LOCKS_ETIMEDOUT &&
	    !cb_is_restart(cb_call_error(ret)))
		return false;
	return locks_switches() != task->noted;
}

static __always_inline void locks_on_call_done(struct cb_event *ev, struct cb_locks *locks,
					       struct cb_task *task, struct pt_regs *regs, u32 kind,
					       long ret, u64 ns)
{
	struct cb_process *process;

	if (kind == CB_CALL_FUTEX_WAKE && ret >= 0)
		locks->futex_wakes++;
	if (!locks_has_waited(task, kind, ret))
		return;
	locks->futex_waits++;
	locks->futex_waited_ns += ns;
	task->futex_waits++;
	task->futex_waited_ns += ns;
	cb_observe(ev, &locks->futex_wait_ns, ns);
	process = cb_process_of(ev, task->tgid);
	if (process) {
		__sync_fetch_and_add(&process->locks_futex_waits, 1);
		__sync_fetch_and_add(&process->locks_futex_waited_ns, ns);
	}
}
