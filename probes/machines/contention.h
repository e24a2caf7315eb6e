// SPDX-License-Identifier: GPL-2.0-only
// contention.h - the state machine of a wait for a lock of the kernel.
//
//         contention_begin, or the slow path is entered             contention_end, or it is left
//   FREE -----------------------------------------------> WAITING -------------------------------> FREE
//
// Raised at its end, for modules to handle: mutex_waited, rwsem_waited, semaphore_waited, spin_waited.
//
// The waits under way are in lock_wait.h.  Handlers run inside of locks, also those of BPF's hashes: they only look things up
// in hashes, and write only to arrays.

#pragma once

#include "machines/lock_wait.h"
#include "generated/raised.h"

// Ends the wait for the spin lock `lock`.  0: the lock is not known; it is the one of the innermost interrupt, or else the
// thread's.  True if there was such a wait.
static __always_inline bool contention_spin_ends(struct cb_event *ev, u64 lock)
{
	u32 tid = bpf_get_current_pid_tgid(), kind;
	int zero = 0;
	struct cb_lock_spins *spins = cb_lock_spins.lookup(&zero);
	struct cb_lock_wait *wait = NULL;
	u64 ns;

	if (!spins)
		return false;
#pragma clang loop unroll(disable)
	for (u32 level = 0; level < CB_SPIN_NESTING; level++)
		if (spins->of[level].tid == tid && cb_lock_is_on(ev, &spins->of[level]) &&
		    (!lock || spins->of[level].lock == lock))
			wait = &spins->of[level];
	ns = cb_lock_ends(ev, wait, lock, &kind);
	if (kind == CB_LOCK_SPIN)
		cb_raise_spin_waited(ev, ns);
	return kind == CB_LOCK_SPIN;
}

static __always_inline u64 contention_thread_ends(struct cb_event *ev, u64 lock, u32 *kind)
{
	u32 tid = bpf_get_current_pid_tgid();

	return cb_lock_ends(ev, cb_lock_slot(ev, tid, false), lock, kind);
}

// ---- kernels that have tracepoints of contention

// include/trace/events/lock.h
#define CB_LCB_F_SPIN 0x01
#define CB_LCB_F_READ 0x02
#define CB_LCB_F_WRITE 0x04
#define CB_LCB_F_RT 0x08
#define CB_LCB_F_PERCPU 0x10
#define CB_LCB_F_MUTEX 0x20

static __always_inline u32 contention_kind(u32 flags)
{
	if (flags & CB_LCB_F_MUTEX)
		return CB_LOCK_MUTEX;
	if (flags & (CB_LCB_F_PERCPU | CB_LCB_F_RT))
		return CB_LOCK_UNKNOWN;
	if (flags & CB_LCB_F_SPIN)
		return CB_LOCK_SPIN;
	return flags & (CB_LCB_F_READ | CB_LCB_F_WRITE) ? CB_LOCK_RWSEM : CB_LOCK_SEMAPHORE;
}

static __always_inline void contention_on_contention_begin(struct cb_event *ev, void *lock,
							   unsigned int flags)
{
	u32 kind = contention_kind(flags);

	if (kind != CB_LOCK_UNKNOWN)
		cb_lock_begins(ev, (u64)lock, kind);
}

static __always_inline void contention_thread_waited(struct cb_event *ev, u32 kind, u64 ns)
{
	if (kind == CB_LOCK_MUTEX)
		cb_raise_mutex_waited(ev, ns);
	else if (kind == CB_LOCK_RWSEM)
		cb_raise_rwsem_waited(ev, ns);
	else if (kind == CB_LOCK_SEMAPHORE)
		cb_raise_semaphore_waited(ev, ns);
}

static __always_inline void contention_on_contention_end(struct cb_event *ev, void *lock)
{
	u32 kind;
	u64 ns;

	if (contention_spin_ends(ev, (u64)lock))
		return;
	ns = contention_thread_ends(ev, (u64)lock, &kind);
	contention_thread_waited(ev, kind, ns);
}

// ---- kernels without: the functions that wait are traced; each is for locks of one kind, which is a constant

static __always_inline void contention_on_slow_path_enter(struct cb_event *ev, void *lock, u32 kind)
{
	cb_lock_enters(ev, (u64)lock, kind);
}

static __always_inline void contention_on_slow_path_leave(struct cb_event *ev, void *lock, u32 kind)
{
	u32 waited_for;
	u64 ns;

	if (kind == CB_LOCK_SPIN) {
		contention_spin_ends(ev, (u64)lock);
		return;
	}
	ns = contention_thread_ends(ev, (u64)lock, &waited_for);
	if (waited_for == kind)
		contention_thread_waited(ev, kind, ns);
}
