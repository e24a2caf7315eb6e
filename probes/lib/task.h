// SPDX-License-Identifier: GPL-2.0-only
// task.h - one record per thread, shared by all modules and state machines.
//
// The record is a slot of an array, not of a hash: a lookup is an addition.  The agent reads the records through mmap
// at the end of the run, to cut the intervals that are still open.

#pragma once

#include "lib/compat.h"
#include "lib/process.h"
#include "lib/target.h"

enum cb_task_state {
	CB_FREE,
	CB_UNSEEN, // no edge seen in this run yet
	CB_RUNNING,
	CB_PREEMPTED, // left a CPU while runnable
	CB_RUNNABLE,  // woken
	CB_BLOCKED,
	CB_THROTTLED, // could run, if its cgroup's CPU quota, or that of one above, were not used up
};

#define CB_WAIT_UNKNOWN 0xffffffff
#define CB_EXEC_UNKNOWN (~0ULL)

// Members that every switch and wake-up needs lie in the first cache line.
struct cb_task {
	u64 since_ns; // when the present state began
	u64 on_cpu_ns;
	u64 runnable_ns;
	u64 blocked_ns;
	u64 regs; // address of the saved user registers; 0 for a kernel thread
	u32 tid;
	u32 run;
	u32 tgid;
	u32 wait;  // what it is blocked in: see offcpu.h
	u32 moves; // cb_config.moves when `counted` was decided
	u8 state;
	u8 counted; // in the target
	u8 kthread;
	u8 ended : 1; // it has begun to exit
	u8 quota : 7; // enum cb_quota; see quota.h

	u64 begin_ns; // when the thread was born, or the run began
	u64 throttled_ns;
	u64 css_set; // the cgroups it was in when `counted` was decided
	u64 call_ns; // when the system call under way began; see calls.h
	u64 noted; // a module's note on the call under way: io.c on a read, locks.c on a wait on a futex
	u32 born; // its first number: a thread that executes a program takes the leader's
	u16 file; // the type of the file that the call is made on; see io.c
	u8 call;  // enum cb_call
	u8 pages; // enum io_pages
	u64 exec_ns; // se.sum_exec_runtime when it last left a CPU, or was off them; or CB_EXEC_UNKNOWN
	u64 unseen_ns; // after a missed switch: how long before `since_ns` it was last seen entering a CPU

	char comm[16];
	u64 mapping;     // the file whose pages the read under way brings; see enum io_pages
	u64 futex_waits; // calls that waited on a futex and have returned
	u64 futex_waited_ns;
	u64 since_birth; // true: in the target since it was born
	u8 pad[16];      // to whole lines of the cache
};
BPF_F_TABLE("array", u32, struct cb_task, cb_tasks, CB_TASKS, BPF_F_MMAPABLE);

// The sums over all ended threads.  Some of them have a record of their own as well (cb_ended_threads).
struct cb_ended {
	u64 threads;
	u64 wall_ns;
	u64 on_cpu_ns;
	u64 runnable_ns;
	u64 blocked_ns;
	u64 throttled_ns;
	u64 futex_waits;
	u64 futex_waited_ns;
	// our account and the kernel's own, of threads that died: see cb_store_last_word()
	u64 checked_on_cpu_ns;
	u64 checked_runnable_ns;
	u64 kernel_on_cpu_ns;
	u64 kernel_runnable_ns;
};
BPF_PERCPU_ARRAY(cb_ended, struct cb_ended, 1);

struct cb_thread_key {
	u64 begin_ns;
	u32 tid;
	u32 tgid;
};

struct cb_thread {
	u64 wall_ns;
	u64 on_cpu_ns;
	u64 runnable_ns;
	u64 blocked_ns;
	u64 throttled_ns;
	u64 futex_waits;
	u64 futex_waited_ns;
	char comm[16];
};
BPF_TABLE("hash", struct cb_thread_key, struct cb_thread, cb_ended_threads, CB_ENDED_THREADS);

// How many have a record.  The more there are, the longer a thread must have lived to get one: twice as long for every
// CB_ENDED_PER_OCTAVE, so that thousands of short threads leave room for later ones that live long.
BPF_ARRAY(cb_recorded_ended, u64, 1);
#define CB_ENDED_PER_OCTAVE (CB_ENDED_THREADS / 32)

// The open intervals of threads whose process was moved out of the target's cgroup, cut at the move.  The accounts of the
// threads have them already; the agent adds them to the modules' figures.
struct cb_cut {
	u64 begin_ns;
	u64 since_ns;
	u32 tid;
	u32 tgid;
	u32 wait;
	u32 state;
};
BPF_TABLE("hash", struct cb_cut, u64, cb_cuts, CB_MEMBERS);

// The thread that each CPU entered last.  If another one leaves, a switch in between was missed.
struct cb_on_cpu {
	u64 thread; // its task_struct, which it keeps when its number changes
	u32 tid;    // the number under which it has its record
	u32 run;
};
BPF_PERCPU_ARRAY(cb_on_cpu, struct cb_on_cpu, 1);

// The thread is in the target from `since_ns` on, when its present state began.
static __always_inline void cb_join(struct cb_event *ev, struct cb_task *task,
				    struct task_struct *of)
{
	struct cb_population *population;
	int zero = 0;

	task->begin_ns = task->since_ns;
	task->on_cpu_ns = 0;
	task->runnable_ns = 0;
	task->blocked_ns = 0;
	task->throttled_ns = 0;
	task->futex_waits = 0;
	task->futex_waited_ns = 0;
	task->since_birth = false;
	task->call = CB_CALL_UNSEEN;
	bpf_probe_read_kernel_str(&task->comm, sizeof(task->comm), of->comm);
	population = cb_population.lookup(&zero);
	if (population)
		population->threads++;
	cb_get_or_add_process(ev, of);
	if (ev->config->target == CB_CGROUP)
		cb_add_member(of->tgid);
}

// The thread ends or leaves the target: adds its times to the sums, and stores its record while there is room.
static __always_inline void cb_end(struct cb_event *ev, struct cb_task *task, u64 until_ns)
{
	struct cb_thread_key key = { .begin_ns = task->begin_ns,
				     .tid = task->born,
				     .tgid = task->tgid };
	struct cb_thread thread = {};
	int zero = 0;
	struct cb_ended *ended = cb_ended.lookup(&zero);
	u64 *kept;

	if (!ended)
		return;
	thread.wall_ns = until_ns - task->begin_ns;
	thread.on_cpu_ns = task->on_cpu_ns;
	thread.runnable_ns = task->runnable_ns;
	thread.blocked_ns = task->blocked_ns;
	thread.throttled_ns = task->throttled_ns;
	thread.futex_waits = task->futex_waits;
	thread.futex_waited_ns = task->futex_waited_ns;
	__builtin_memcpy(thread.comm, task->comm, sizeof(thread.comm));
	ended->threads++;
	ended->wall_ns += thread.wall_ns;
	ended->on_cpu_ns += thread.on_cpu_ns;
	ended->runnable_ns += thread.runnable_ns;
	ended->blocked_ns += thread.blocked_ns;
	ended->throttled_ns += thread.throttled_ns;
	ended->futex_waits += thread.futex_waits;
	ended->futex_waited_ns += thread.futex_waited_ns;
	kept = cb_recorded_ended.lookup(&zero);
	if (ev->config->target == CB_MACHINE || !kept ||
	    thread.wall_ns < 1000ULL << ((*kept / CB_ENDED_PER_OCTAVE) & 31))
		return;
	if (!cb_ended_threads.update(&key, &thread))
		__sync_fetch_and_add(kept, 1);
}

static __always_inline void cb_adopt(struct cb_event *ev, struct cb_task *task,
				     struct task_struct *of, u32 tid, bool counted)
{
	// a record that had another owner in this run says nothing about the time before
	task->since_ns = task->run == ev->config->run ? cb_now(ev) : ev->config->started_ns;
	task->kthread = !!(of->flags & CB_PF_KTHREAD);
	task->regs = task->kthread ? 0 : (u64)of->stack + CB_REGS_OFFSET;
	task->css_set = (u64)of->cgroups;
	task->moves = ev->config->moves;
	task->tid = tid;
	task->born = tid;
	task->tgid = of->tgid;
	task->run = ev->config->run;
	task->wait = CB_WAIT_UNKNOWN;
	task->state = CB_UNSEEN;
	task->ended = false;
	task->quota = 0;
	// for a running thread it is late by up to a tick, so it is not used
	task->exec_ns = of == (struct task_struct *)bpf_get_current_task()
				? CB_EXEC_UNKNOWN
				: of->se.sum_exec_runtime;
	task->unseen_ns = 0;
	task->counted = counted;
	if (task->counted)
		cb_join(ev, task, of);
}

// The state that thread `of` has been in since its time began.
static __always_inline u32 cb_state_until_now(struct cb_event *ev, struct cb_task *task,
					      struct task_struct *of)
{
	if (task->state != CB_UNSEEN)
		return task->state;
	if (of == (struct task_struct *)bpf_get_current_task())
		return CB_RUNNING;
	return ev->wakes ? CB_BLOCKED : CB_PREEMPTED;
}

// The thread left the target at `until_ns`: closes its open interval there.
static __always_inline void cb_cut_at(struct cb_event *ev, struct cb_task *task,
				      struct task_struct *of, u64 until_ns)
{
	u32 state = cb_state_until_now(ev, task, of);
	struct cb_cut cut = { .begin_ns = task->begin_ns,
			      .since_ns = task->since_ns,
			      .tid = task->born,
			      .tgid = task->tgid,
			      .wait = task->wait,
			      .state = state };
	u64 ns = until_ns - task->since_ns;

	if (state == CB_RUNNING)
		task->on_cpu_ns += ns;
	else if (state == CB_BLOCKED)
		task->blocked_ns += ns;
	else if (state == CB_THROTTLED)
		task->throttled_ns += ns;
	else
		task->runnable_ns += ns;
	if (cb_cuts.update(&cut, &until_ns))
		cb_lose_key();
	task->since_ns = until_ns;
}

// A thread may have moved to another cgroup without an event, when its process was moved as a whole (sched.h).  Its open
// interval is cut at the move.  Between the move and its event lie some µs: a thread that runs meanwhile is cut now.  Where
// the moment is unknown, the whole interval belongs to the cgroup in which it ends.
static __always_inline void cb_follow(struct cb_event *ev, struct cb_task *task,
				      struct task_struct *of)
{
	u64 set, moved_ns;
	bool counted;

	if (ev->config->target != CB_CGROUP)
		return;
	set = (u64)of->cgroups;
	if (set == task->css_set && task->moves == ev->config->moves)
		return;
	task->css_set = set;
	task->moves = ev->config->moves;
	counted = cb_is_member(ev, of);
	moved_ns = cb_moved_after(task->tgid, task->since_ns);
	if (counted == task->counted)
		return;
	if (!moved_ns && of == (struct task_struct *)bpf_get_current_task())
		moved_ns = cb_now(ev);
	if (counted) {
		if (moved_ns > task->since_ns)
			task->since_ns = moved_ns;
		cb_join(ev, task, of);
	} else {
		if (moved_ns > task->since_ns)
			cb_cut_at(ev, task, of, moved_ns);
		cb_end(ev, task, task->since_ns);
	}
	task->counted = counted;
}

// Whether a thread without a record was in the target when its time began: now, or when the run began.
static __always_inline bool cb_counted_at_first(struct cb_event *ev, struct task_struct *of,
						u32 tid, bool counts)
{
	u32 tgid = of->tgid;
	struct cb_move *move;

	if (ev->config->target != CB_CGROUP || !ev->config->moves)
		return counts;
	move = cb_moves.lookup(&tgid);
	if (!move || of->start_time > ev->config->started_ns)
		return counts;
	return cb_seeded.lookup(&tid) != NULL;
}

static __always_inline bool cb_is_free(struct cb_event *ev, struct cb_task *task)
{
	return task->run != ev->config->run || task->state == CB_FREE;
}

// The record under `tid`, if there is one.  The first slot is almost always its own; three more are tried.  `free` is a
// slot that it could have.
static __always_inline struct cb_task *cb_find(struct cb_event *ev, u32 tid, u32 *free)
{
	struct cb_task *task;
	u32 index;

	*free = CB_TASKS;
#pragma clang loop unroll(disable)
	for (u32 way = 0; way < 4; way++) {
		index = (tid & (CB_TASKS - 1)) ^ way;
		task = cb_tasks.lookup(&index);
		if (!task)
			return NULL;
		if (cb_is_free(ev, task)) {
			if (*free == CB_TASKS)
				*free = index;
		} else if (task->tid == tid) {
			return task;
		}
	}
	return NULL;
}

// The record of thread `of`, whose id is `tid`.  A thread that finds no slot has no record, and is counted as lost.
static __always_inline struct cb_task *cb_task_with(struct cb_event *ev, struct task_struct *of,
						    u32 tid)
{
	struct cb_task *task;
	struct cb_loss *loss;
	bool counts, first;
	u32 free;

	if (!tid)
		return NULL;
	task = cb_find(ev, tid, &free);
	if (!task) {
		task = cb_tasks.lookup(&free);
		if (!task) {
			loss = cb_lost();
			if (loss)
				loss->task_collisions++;
			return NULL;
		}
		counts = cb_is_member(ev, of);
		first = cb_counted_at_first(ev, of, tid, counts);
		cb_adopt(ev, task, of, tid, first);
		if (first == counts)
			return task;
		task->css_set = 0; // it was moved before it was seen
	}
	cb_follow(ev, task, of);
	return task;
}

static __always_inline struct cb_task *cb_task_of(struct cb_event *ev, struct task_struct *of)
{
	return cb_task_with(ev, of, of->pid);
}

// The record of the current thread; NULL if the thread does not count.
static __always_inline struct cb_task *cb_current_task(struct cb_event *ev)
{
	u64 id = bpf_get_current_pid_tgid();
	struct cb_task *task;

	if (cb_is_agent(ev->config, id >> 32))
		return NULL;
	task = cb_task_with(ev, (struct task_struct *)bpf_get_current_task(), id);
	return task && task->counted ? task : NULL;
}

// The same, for hooks that make no records: small, because it is in most programs.
static __always_inline struct cb_task *cb_current_known(struct cb_event *ev)
{
	u32 unused;
	struct cb_task *task = cb_find(ev, bpf_get_current_pid_tgid(), &unused);

	return task && task->counted ? task : NULL;
}

// Whether the current thread counts.  Its record says so, if it has one and has not moved to another cgroup.
static __always_inline bool cb_current_counts(struct cb_event *ev)
{
	struct task_struct *current_task = (struct task_struct *)CB_CURRENT_TASK();
	u64 id = bpf_get_current_pid_tgid();
	struct cb_task *task;
	u32 unused;

	if (ev->config->target == CB_MACHINE)
		return !cb_is_agent(ev->config, id >> 32);
	task = cb_find(ev, id, &unused);
	if (task && (ev->config->target == CB_TREE || task->css_set == (u64)current_task->cgroups))
		return task->counted;
	return cb_is_member(ev, current_task);
}

// A thread has begun to exit.  All that it still does counts for it, so its record stays: until it leaves its CPU for the
// last time, or, in a run that attaches no switches, until another thread needs the record.
static __always_inline void cb_thread_ends(struct cb_event *ev, struct task_struct *of)
{
	struct cb_task *task = cb_task_of(ev, of);

	if (task)
		task->ended = true;
}

// The number `tid` is given to a new thread.  If the last switch of its former owner was not seen, the record of that is
// freed now; so is the record of another ended thread, if no slot is free.
static __always_inline void cb_thread_begins(struct cb_event *ev, u32 tid)
{
	struct cb_task *ended = NULL;
	bool room = false;

#pragma clang loop unroll(disable)
	for (u32 way = 0; way < 4; way++) {
		u32 index = (tid & (CB_TASKS - 1)) ^ way;
		struct cb_task *task = cb_tasks.lookup(&index);

		if (!task)
			return;
		if (!cb_is_free(ev, task) && task->ended && task->state == CB_UNSEEN) {
			if (task->tid == tid)
				task->state = CB_FREE;
			else
				ended = task;
		}
		room = room || cb_is_free(ev, task);
	}
	if (!room && ended)
		ended->state = CB_FREE;
}
