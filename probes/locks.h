// SPDX-License-Identifier: GPL-2.0-only
// locks.h - the order in which threads take mutexes: those that each thread holds, and those that it requests meanwhile.
//
// Held → wanted is an edge of a graph; user space looks for cycles (probes/lock_order.py).  An edge is made when the lock
// is requested, so that a deadlock which really happens is seen too.
//
// A mutex is identified by its address in one program of one process; for mutexes of the kernel the tgid is 0.  When a
// mutex is initialised or destroyed, its address begins a new life: it may be another mutex from then on.

#pragma once

#include "lib/task.h"
#include "machines/lock_wait.h"
#include "generated/events.h"
#include "generated/locks.h"

struct locks_holder {
	u32 tid;
	u32 side; // enum locks_side: the kernel's mutexes and the program's have a record each
};

#define LOCKS_DEPTH 8
struct locks_held {
	u64 start_ns;  // of the thread; its number may have had another owner
	u64 exec;      // how many programs its process has executed
	u64 wanted;    // the lock that it has requested; 0: none
	u64 wanted_at; // where it called for that
	u64 calls;     // a C library may call its own functions for that
	u64 count;
	struct {
		u64 lock;
		u64 caller; // where it was taken
		u64 times;  // more than once: it is recursive
	} of[LOCKS_DEPTH];
};
BPF_TABLE("hash", struct locks_holder, struct locks_held, locks_holders, LOCKS_HOLDERS_ENTRIES);

struct locks_mutex {
	u64 address;
	u32 tgid;
	u32 exec;
};
// How often a mutex that is in an edge has begun a new life.
BPF_TABLE("hash", struct locks_mutex, u64, locks_lives, LOCKS_LIVES_ENTRIES);

struct locks_edge_key {
	u64 held;
	u64 wanted;
	u32 held_life;
	u32 wanted_life;
	u32 tgid;
	u32 exec;
};
struct locks_edge {
	u64 first_ns;
	u64 held_at; // where the first thread had taken what it held; 0: not known
	u64 wanted_at;
	u32 tid;       // the first thread that made it,
	u32 other_tid; // and another one, if there is
	s32 stack;     // of the first thread, where it requested the lock; negative: none
	u8 pad[4];
};
BPF_TABLE("hash", struct locks_edge_key, struct locks_edge, locks_edges, LOCKS_EDGES_ENTRIES);
// Deeper than the stacks of waits: the frame that shows which part of a program locks is often far from the innermost.
struct locks_frames {
	u64 address[64];
};
BPF_TABLE("stacktrace", int, struct locks_frames, locks_stacks, LOCKS_STACKS_ENTRIES);

#define LOCKS_USER_STACK (1 << 8) // BPF_F_USER_STACK

// The owner of a mutex.  The handlers pass it, because the verifier does not let a program look at the bits of a pointer.
enum locks_side {
	LOCKS_OF_USER,
	LOCKS_OF_KERNEL,
};

// The identity of a lock that the current thread uses: the kernel's belong to no process.
static __always_inline struct locks_mutex locks_mutex_of(u64 exec, u32 side, u64 lock)
{
	struct locks_mutex mutex = { .address = lock };

	if (side == LOCKS_OF_USER) {
		mutex.tgid = bpf_get_current_pid_tgid() >> 32;
		mutex.exec = exec;
	}
	return mutex;
}

// The record of what the current thread holds.  Where it has none: NULL, or with `or_new` a new record.
static __always_inline struct locks_held *locks_held_by_current(u32 side, bool or_new)
{
	struct task_struct *thread = (struct task_struct *)bpf_get_current_task();
	struct locks_holder holder = { .tid = bpf_get_current_pid_tgid(), .side = side };
	struct locks_held *held = locks_holders.lookup(&holder), none = {};

	if (held && held->start_ns == thread->start_time && held->exec == thread->self_exec_id)
		return held;
	if (!or_new)
		return NULL;
	none.start_ns = thread->start_time;
	none.exec = thread->self_exec_id;
	if (locks_holders.update(&holder, &none)) {
		cb_lose_key();
		return NULL;
	}
	return locks_holders.lookup(&holder);
}

static __always_inline void locks_forget(struct locks_held *held, u32 side)
{
	struct locks_holder holder = { .tid = bpf_get_current_pid_tgid(), .side = side };

	if (!held->count && !held->wanted)
		locks_holders.delete(&holder);
}

// The index of the lock among those that the thread holds; LOCKS_DEPTH: it does not hold it.
static __always_inline u64 locks_index(struct locks_held *held, u64 lock)
{
	u64 found = LOCKS_DEPTH;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < LOCKS_DEPTH; i++)
		if (i < held->count && held->of[i].lock == lock)
			found = i;
	return found;
}

static __always_inline u32 locks_life(struct locks_held *held, u32 side, u64 lock)
{
	struct locks_mutex mutex = locks_mutex_of(held->exec, side, lock);
	u64 *life = locks_lives.lookup(&mutex);

	return life ? *life : 0;
}

// Makes the lives of the mutex count from now on; false if there is no room.
static __always_inline bool locks_watch(struct locks_held *held, u32 side, u64 lock)
{
	struct locks_mutex mutex = locks_mutex_of(held->exec, side, lock);
	u64 first = 0;

	return locks_lives.lookup_or_try_init(&mutex, &first);
}

// Emits an event when two threads have taken two mutexes in both orders: once, unless two CPUs find it at the same moment.
// Longer cycles are found in user space.  `first_tid`: the only thread that had made this edge before the current one did;
// 0: none had.
static __always_inline void locks_emit_violation(struct cb_event *ev, u32 side,
						 struct locks_edge_key *key, u32 first_tid)
{
#ifdef CB_EVENTS
	u32 tid = bpf_get_current_pid_tgid();
	struct locks_edge_key back = { .held = key->wanted,
				       .wanted = key->held,
				       .held_life = key->wanted_life,
				       .wanted_life = key->held_life,
				       .tgid = key->tgid,
				       .exec = key->exec };
	struct locks_edge *edge = locks_edges.lookup(&back);

	if (!edge || (edge->tid == tid && !edge->other_tid))
		return; // only this thread
	if (first_tid && (edge->tid != first_tid || edge->other_tid))
		return; // emitted before this thread came
	if (side == LOCKS_OF_USER)
		cb_emit_current(ev, LOCKS_EVENT_ORDER_VIOLATION, key->wanted);
	else
		cb_emit_current(ev, LOCKS_EVENT_KERNEL_ORDER_VIOLATION, key->wanted);
#endif
}

static __always_inline bool locks_new_edge(struct cb_event *ev, u32 side,
					   struct locks_edge_key *key, u64 held_at, u64 wanted_at)
{
	u64 flags = side == LOCKS_OF_USER ? LOCKS_USER_STACK : 0;
	struct locks_edge edge = {
		.first_ns = cb_now(ev),
		.held_at = held_at,
		.wanted_at = wanted_at,
		.tid = bpf_get_current_pid_tgid(),
		.stack = locks_stacks.get_stackid(ev->ctx, flags),
	};
	int refused = locks_edges.insert(key, &edge);

	if (refused && refused != CB_EXISTS)
		cb_lose_key();
	return !refused;
}

static __always_inline void locks_edge(struct cb_event *ev, struct locks_held *held, u32 side,
				       u32 index, u64 lock, u64 caller)
{
	struct locks_mutex mutex = locks_mutex_of(held->exec, side, lock);
	u32 tid = bpf_get_current_pid_tgid(), first_tid = 0;
	struct locks_edge_key key = {
		.held = held->of[index].lock, .wanted = lock, .tgid = mutex.tgid, .exec = mutex.exec
	};
	struct locks_edge *edge;
	bool news = false;

	key.held_life = locks_life(held, side, key.held);
	key.wanted_life = locks_life(held, side, lock);
	edge = locks_edges.lookup(&key);
	if (edge) {
		news = edge->tid != tid && !edge->other_tid;
		first_tid = edge->tid;
		if (news)
			edge->other_tid = tid;
	} else if (locks_watch(held, side, key.held) && locks_watch(held, side, lock)) {
		news = locks_new_edge(ev, side, &key, held->of[index].caller, caller);
	} else {
		cb_lose_key();
	}
	if (news)
		locks_emit_violation(ev, side, &key, first_tid);
}

// The thread may wait for the lock while it holds others: each of these makes an edge.
static __always_inline void locks_order(struct cb_event *ev, struct locks_held *held, u32 side,
					u64 lock, u64 caller)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < LOCKS_DEPTH; i++)
		if (i < held->count && held->of[i].lock != lock)
			locks_edge(ev, held, side, i, lock, caller);
}

static __always_inline void locks_take(struct locks_held *held, u64 lock, u64 caller)
{
	u64 index = locks_index(held, lock);

	if (index < LOCKS_DEPTH) {
		held->of[cb_clamp(index, LOCKS_DEPTH)].times++;
		return;
	}
	// read again: older verifiers (6.1's) remember its value from the loop, and follow paths that cannot happen
	index = *(volatile u64 *)&held->count;
	if (index >= LOCKS_DEPTH) {
		cb_lose_held();
		return;
	}
	index = cb_clamp(index, LOCKS_DEPTH);
	held->of[index].lock = lock;
	held->of[index].caller = caller;
	held->of[index].times = 1;
	held->count++;
}

// The lock that was taken last moves to the place of the released one: the order of the locks that are held means nothing.
static __always_inline void locks_release(u32 side, u64 lock)
{
	struct locks_held *held = locks_held_by_current(side, false);
	u64 index, last;

	if (!held)
		return;
	index = locks_index(held, lock);
	if (index >= LOCKS_DEPTH)
		return;
	index = cb_clamp(index, LOCKS_DEPTH);
	if (--held->of[index].times)
		return;
	last = cb_clamp(*(volatile u64 *)&held->count - 1, LOCKS_DEPTH);
	held->of[index].lock = held->of[last].lock;
	held->of[index].caller = held->of[last].caller;
	held->of[index].times = held->of[last].times;
	held->count--;
	locks_forget(held, side);
}

// From now on another mutex is at this address.
static __always_inline void locks_begins_new_life(u32 side, u64 lock)
{
	struct task_struct *thread = (struct task_struct *)bpf_get_current_task();
	struct locks_mutex mutex = locks_mutex_of(thread->self_exec_id, side, lock);
	u64 *life = locks_lives.lookup(&mutex);

	if (life)
		__sync_fetch_and_add(life, 1);
}

// The thread calls a function that takes the mutex, or tries to; `waits`: it may have to wait for it.
static __always_inline bool locks_wants(struct cb_event *ev, u32 side, u64 lock, u64 caller,
					bool waits)
{
	struct locks_held *held;

	if (!cb_current_counts(ev))
		return false;
	held = locks_held_by_current(side, true);
	if (!held)
		return false;
	if (held->wanted == lock) {
		held->calls++;
		return true;
	}
	if (held->wanted) // the answer to the last request was not seen
		cb_lose_return();
	held->wanted = lock;
	held->calls = 1;
	held->wanted_at = caller;
	if (waits && held->count && locks_index(held, lock) == LOCKS_DEPTH)
		locks_order(ev, held, side, lock, caller);
	return true;
}

// That function returns; the thread has the mutex if it was `taken`.
static __always_inline bool locks_answered(u32 side, bool taken)
{
	struct locks_held *held = locks_held_by_current(side, false);

	if (!held || !held->wanted)
		return false;
	if (!taken && held->calls > 1) { // a function that the C library called for another one
		held->calls--;
		return false;
	}
	if (taken)
		locks_take(held, held->wanted, held->wanted_at);
	held->wanted = 0;
	locks_forget(held, side);
	return taken;
}

// ---- the option `hold`: how long this CPU has held which spin locks
//
// The programs run inside of every spin lock, those of BPF's hashes too: they only look things up there, and write only to
// memory of this CPU.  A spin lock is released on the CPU that took it.  An interrupt releases all that it took before the
// code that it interrupted continues, even if that was one of these programs.

#define LOCKS_SPINS 8
struct locks_spins {
	struct {
		u64 lock; // 0: this place is free
		u64 since_ns;
		u64 weight; // how many it stands for
		u64 run;
	} of[LOCKS_SPINS];
};
BPF_PERCPU_ARRAY(locks_spins, struct locks_spins, 1);

// Where to remember a lock: a free place, or the oldest one, whose release was not seen.  A place that the lock itself
// still has is given up on the way: it was released unseen.
static __always_inline u64 locks_spin_place(struct cb_event *ev, struct locks_spins *spins,
					    u64 lock)
{
	u64 place = 0, oldest_ns = ~0ULL;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < LOCKS_SPINS; i++) {
		u64 since_ns = spins->of[i].since_ns;

		if (spins->of[i].lock == lock || spins->of[i].run != ev->config->run)
			spins->of[i].lock = 0;
		if (!spins->of[i].lock)
			since_ns = 0;
		if (since_ns < oldest_ns) {
			oldest_ns = since_ns;
			place = i;
		}
	}
	return cb_clamp(place, LOCKS_SPINS);
}

static __always_inline void locks_spin_taken(struct cb_event *ev, u64 lock)
{
	int zero = 0;
	struct locks_spins *spins = locks_spins.lookup(&zero);
	u64 place, weight;

	if (!spins || !cb_lock_counts(ev))
		return;
	place = locks_spin_place(ev, spins, lock);
	weight = cb_weight(ev);
	// with a target, what an interrupt does on top of its thread is not the thread's
	if (!weight || (ev->config->target != CB_MACHINE && cb_in_interrupt()))
		return;
	if (spins->of[place].lock)
		cb_lose_held();
	spins->of[place].lock = lock;
	spins->of[place].weight = weight;
	spins->of[place].run = ev->config->run;
	spins->of[place].since_ns = cb_now(ev);
}

static __always_inline void locks_spin_released(struct cb_event *ev, struct cb_locks *locks,
						u64 lock)
{
	int zero = 0;
	struct locks_spins *spins = locks_spins.lookup(&zero);

	if (!spins)
		return;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < LOCKS_SPINS; i++) {
		if (spins->of[i].lock != lock)
			continue;
		spins->of[i].lock = 0;
		if (spins->of[i].run == ev->config->run)
			cb_observe_sampled(ev, &locks->spin_hold_ns,
					   cb_now(ev) - spins->of[i].since_ns, spins->of[i].weight);
		return;
	}
}
