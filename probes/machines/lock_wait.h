// SPDX-License-Identifier: GPL-2.0-only
// lock_wait.h - the waits for locks of the kernel that are under way: by which thread, for which lock, since when.
//
// A thread waits for a mutex, an rwsem or a semaphore wherever it is; meanwhile it may spin.  A spin lock is waited for
// on one CPU, and an interrupt may come and wait there for another.

#pragma once

#include "lib/task.h"

enum cb_lock_kind {
	CB_LOCK_UNKNOWN,
	CB_LOCK_MUTEX,
	CB_LOCK_RWSEM,
	CB_LOCK_SEMAPHORE,
	CB_LOCK_SPIN,
};

struct cb_lock_wait {
	u64 lock; // its address; 0: nothing is waited for
	u64 since_ns;
	u32 tid;
	u32 run;
	u32 kind;
	u32 pad;
};
BPF_F_TABLE("array", u32, struct cb_lock_wait, cb_lock_waits, CB_LOCK_WAITS, 0);

// The thread's own, then those of interrupts, each of which stopped the one before: soft, hard, not maskable.
#define CB_SPIN_NESTING 4
struct cb_lock_spins {
	struct cb_lock_wait of[CB_SPIN_NESTING];
};
BPF_PERCPU_ARRAY(cb_lock_spins, struct cb_lock_spins, 1);

static __always_inline bool cb_lock_is_on(struct cb_event *ev, struct cb_lock_wait *wait)
{
	return wait->lock && wait->run == ev->config->run;
}

// Whether a wait of the current thread counts.  Its record says so, if it has one; none may be made here.
static __always_inline bool cb_lock_counts(struct cb_event *ev)
{
	u64 id = bpf_get_current_pid_tgid();
	struct cb_task *task;
	u32 free;

	if (cb_is_agent(ev->config, id >> 32))
		return false;
	if (ev->config->target == CB_MACHINE)
		return true;
	task = cb_find(ev, id, &free);
	if (task)
		return task->counted;
	return cb_is_member(ev, (struct task_struct *)bpf_get_current_task());
}

static __always_inline struct cb_lock_wait *cb_lock_spin_slot(struct cb_event *ev, bool interrupt)
{
	int zero = 0;
	struct cb_lock_spins *spins = cb_lock_spins.lookup(&zero);

	if (!spins)
		return NULL;
	if (!interrupt) { // waits of interrupts that seem to go on have ended unseen
		spins->of[1].lock = spins->of[2].lock = spins->of[3].lock = 0;
		return &spins->of[0];
	}
#pragma clang loop unroll(disable)
	for (u32 level = 1; level < CB_SPIN_NESTING; level++)
		if (!cb_lock_is_on(ev, &spins->of[level]))
			return &spins->of[level];
	return NULL;
}

// The slot of the thread; a free one if it has none.
static __always_inline struct cb_lock_wait *cb_lock_slot(struct cb_event *ev, u32 tid, bool or_free)
{
	struct cb_lock_wait *wait, *free = NULL;

#pragma clang loop unroll(disable)
	for (u32 way = 0; way < 4; way++) {
		u32 index = (tid & (CB_LOCK_WAITS - 1)) ^ way;

		wait = cb_lock_waits.lookup(&index);
		if (!wait)
			return NULL;
		if (!cb_lock_is_on(ev, wait))
			free = free ? free : wait;
		else if (wait->tid == tid)
			return wait;
	}
	return or_free ? free : NULL;
}

static __always_inline void cb_lock_begins(struct cb_event *ev, u64 lock, u32 kind)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct cb_lock_wait *wait;
	bool interrupt;

	if (!cb_lock_counts(ev))
		return;
	if (kind == CB_LOCK_SPIN) {
		interrupt = cb_in_interrupt();
		if (interrupt && ev->config->target != CB_MACHINE)
			return; // it is not the thread's that it stopped
		wait = cb_lock_spin_slot(ev, interrupt);
	} else {
		wait = cb_lock_slot(ev, tid, true);
	}
	if (!wait) {
		cb_lose_key();
		return;
	}
	if (kind != CB_LOCK_SPIN && cb_lock_is_on(ev, wait)) {
		if (wait->lock == lock)
			return; // it spun for a mutex, and goes to sleep now
		cb_lose_key();  // it waits for another lock before it has the first
	}
	wait->lock = lock;
	wait->since_ns = cb_now(ev);
	wait->tid = tid;
	wait->run = ev->config->run;
	wait->kind = kind;
}

// The same, for a function that waits only once: a thread that seems to wait in it already was not seen to leave.
static __always_inline void cb_lock_enters(struct cb_event *ev, u64 lock, u32 kind)
{
	struct cb_lock_wait *wait = NULL;

	if (kind != CB_LOCK_SPIN)
		wait = cb_lock_slot(ev, bpf_get_current_pid_tgid(), false);
	if (wait) {
		wait->lock = 0;
		if (cb_lock_counts(ev))
			cb_lose_return();
	}
	cb_lock_begins(ev, lock, kind);
}

// How long the lock (0: whichever it is) was waited for, if that was seen to begin, and of what kind it is.
static __always_inline u64 cb_lock_ends(struct cb_event *ev, struct cb_lock_wait *wait, u64 lock,
					u32 *kind)
{
	*kind = CB_LOCK_UNKNOWN;
	if (!wait || !cb_lock_is_on(ev, wait) || (lock && wait->lock != lock))
		return 0;
	*kind = wait->kind;
	wait->lock = 0;
	return cb_now(ev) - wait->since_ns;
}
