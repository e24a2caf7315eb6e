// SPDX-License-Identifier: GPL-2.0-only
// sched.h - the state machine of a thread; it turns scheduler events into closed intervals.
//
//            sched_switch: in                    sched_switch: out
//   RUNNABLE ----------------> RUNNING ---------------------------------> PREEMPTED (still runnable) or BLOCKED
//      ^                                                                              |
//      +------------------------------- sched_wakeup ---------------------------------+
//
// Each edge closes an interval and raises a hook that modules handle:
//   task_ran (left a CPU), task_waited (entered one), task_throttled (entered one, and for a part of the wait before
//   that its quota was used up: see quota.h), task_blocks (falls asleep), task_blocked (was woken), task_cut (runs on, but
//   out of the target).
// An interval that was open when the run began is cut at the beginning of the run.

#pragma once

#include "lib/task.h"
#include "machines/quota.h"
#include "generated/raised.h"

// The numbers of a switch, each read once: a read is a call of a helper.
struct cb_switch {
	u32 from;
	u32 to;
	u32 entered; // the number that thread `from` had when this CPU was last seen entering it
};

// Records that this CPU goes from `prev` to `next`; false if it was last seen entering another thread than `prev`.
static __always_inline bool cb_continuous(struct cb_event *ev, struct task_struct *prev,
					  struct task_struct *next, struct cb_switch *at)
{
	int zero = 0;
	struct cb_on_cpu *cpu = cb_on_cpu.lookup(&zero);
	bool first, continuous;

	at->entered = at->from;
	if (!cpu)
		return false;
	first = cpu->run != ev->config->run;
	continuous = first || cpu->thread == (u64)prev;
	if (continuous && !first)
		at->entered = cpu->tid;
	cpu->thread = (u64)next;
	cpu->tid = at->to;
	cpu->run = ev->config->run;
	return continuous;
}

// A thread that executes a program exchanges numbers with its leader, which has ended or is about to leave its CPU for
// good: de_thread() in fs/exec.c.  So do their records.
static __always_inline void cb_exchange(struct cb_event *ev, u32 from, u32 to)
{
	u32 free, unused;
	struct cb_task *task = cb_find(ev, from, &unused), *leader = cb_find(ev, to, &free);
	u64 *one, *other, word;

	if (!leader)
		leader = cb_tasks.lookup(&free);
	if (!task || !leader)
		return;
	one = (u64 *)task;
	other = (u64 *)leader;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < sizeof(*task) / sizeof(word); i++) {
		word = one[i];
		one[i] = other[i];
		other[i] = word;
	}
	task->tid = from;
	leader->tid = to;
	// under its new number it was seen before the exchange was, and was taken for another thread
	if (task->state == CB_UNSEEN)
		task->state = CB_FREE;
}

// The record of a thread that leaves its CPU.  It may have another number now than when it `entered` the CPU.
static __always_inline struct cb_task *cb_leaving(struct cb_event *ev, struct task_struct *prev,
						  struct cb_switch *at, bool dead)
{
	u32 unused;
	struct cb_task *task;

	if (at->entered != at->from && dead) {
		// a leader whose number was taken: its record has followed if the other thread was seen first
		task = cb_find(ev, at->from, &unused);
		return task && task->born == at->entered ? task : cb_find(ev, at->entered, &unused);
	}
	if (at->entered != at->from)
		cb_exchange(ev, at->entered, at->from);
	return cb_task_with(ev, prev, at->from);
}

// How long the current thread, which leaves its CPU, was on a CPU since it last left one.  `ns`: as much of that as was seen.
// Where a switch was missed, the kernel's own account says how much of the time in between was spent on a CPU; the rest is
// attributed to nothing.  docs/decisions/0003
static __always_inline u64 cb_ran(struct cb_event *ev, struct cb_task *task, bool seen, u64 exec_ns)
{
	u64 ns = seen ? ev->now_ns - task->since_ns : 0, all_ns;

	if (seen && !task->unseen_ns)
		return ns;
	all_ns = ev->now_ns - task->since_ns + task->unseen_ns;
	task->unseen_ns = 0;
	if (task->exec_ns == CB_EXEC_UNKNOWN || exec_ns < task->exec_ns + ns)
		return ns;
	return exec_ns - task->exec_ns < all_ns ? exec_ns - task->exec_ns : all_ns;
}

// A dying thread leaves its last CPU: records the kernel's own account of it next to ours.  The kernel's has the time before
// the run as well.  The agent knows that of the threads of a tree, but not of a cgroup's, which may have joined.
static __always_inline void cb_store_last_word(struct cb_event *ev, struct cb_task *task,
					       u64 exec_ns)
{
#ifdef CB_HAS_SCHED_INFO
	struct task_struct *dead = (struct task_struct *)CB_CURRENT_TASK();
	int zero = 0;
	struct cb_ended *ended = cb_ended.lookup(&zero);

	if (!ended || (ev->config->target != CB_TREE && !task->since_birth))
		return;
	ended->checked_on_cpu_ns += task->on_cpu_ns;
	ended->checked_runnable_ns += task->runnable_ns;
	ended->kernel_on_cpu_ns += exec_ns;
	ended->kernel_runnable_ns += dead->sched_info.run_delay;
#endif
}

// The kernel's account of the current thread, which is up to date when a switch raises its event.
static __always_inline u64 cb_exec_ns(void)
{
	struct task_struct *leaving = (struct task_struct *)CB_CURRENT_TASK();

	return leaving->se.sum_exec_runtime;
}

static __always_inline void cb_leave_cpu(struct cb_event *ev, struct task_struct *prev,
					 struct cb_switch *at, bool preempt, u32 prev_state,
					 bool continuous)
{
	struct cb_task *task = cb_leaving(ev, prev, at, prev_state & CB_TASK_DEAD);
	bool voluntary = !preempt && prev_state;
	bool seen = continuous;
	u64 exec_ns, ns;

	if (!task)
		return;
	exec_ns = cb_exec_ns();
	if (!continuous || (task->state != CB_RUNNING && task->state != CB_UNSEEN)) {
		cb_lose_switch();
		seen = false;
	}
	ns = cb_ran(ev, task, seen, exec_ns);
	task->exec_ns = exec_ns;
	task->on_cpu_ns += ns;
	if (task->counted)
		cb_raise_task_ran(ev, task, prev, ns, voluntary);
	task->since_ns = ev->now_ns;
	if (prev_state & CB_TASK_DEAD) {
		if (task->counted) {
			cb_end(ev, task, ev->now_ns);
			cb_store_last_word(ev, task, exec_ns);
		}
		task->state = CB_FREE;
	} else if (!voluntary) {
		task->state = cb_quota_left_runnable(task);
	} else {
		task->state = CB_BLOCKED;
		cb_quota_left_blocked(task);
		if (task->counted)
			cb_raise_task_blocks(ev, task, prev_state);
	}
}

// Thread `next` enters a CPU after a wait: first throttled, if its quota was used up, then in the run queue.
static __always_inline void cb_waited(struct cb_event *ev, struct cb_task *task,
				      struct task_struct *next)
{
	u64 ns = ev->now_ns - task->since_ns, throttled_ns = 0;
	bool woken = task->state == CB_RUNNABLE || task->quota == CB_QUOTA_TIMED_WOKEN;

	if (task->quota >= CB_QUOTA_TIMED)
		throttled_ns = cb_quota_throttled_ns(task, next, ns);
	task->throttled_ns += throttled_ns;
	task->runnable_ns += ns - throttled_ns;
	if (!task->counted)
		return;
	if (throttled_ns)
		cb_raise_task_throttled(ev, task, throttled_ns);
	cb_raise_task_waited(ev, task, ns - throttled_ns, woken);
}

static __always_inline void cb_enter_cpu(struct cb_event *ev, struct task_struct *next, u32 tid)
{
	struct cb_task *task = cb_task_with(ev, next, tid);

	if (!task)
		return;
	// A thread that went to sleep with a signal pending was never dequeued: BLOCKED without a wake-up is a wait too.
	if (task->state == CB_RUNNING) {
		cb_lose_switch();
		task->unseen_ns += ev->now_ns - task->since_ns;
	} else if (task->state != CB_UNSEEN || !cb_quota_unknown(next)) {
		cb_waited(ev, task, next);
	}
	task->quota = 0;
	task->state = CB_RUNNING;
	task->since_ns = ev->now_ns;
}

static __always_inline void sched_on_sched_switch(struct cb_event *ev, bool preempt,
						  struct task_struct *prev,
						  struct task_struct *next, u32 prev_state)
{
	// the thread that leaves is still the current one: that needs no read
	struct cb_switch at = { .from = bpf_get_current_pid_tgid(), .to = next->pid };
	bool continuous = cb_continuous(ev, prev, next, &at);

	cb_leave_cpu(ev, prev, &at, preempt, prev_state, continuous);
	cb_enter_cpu(ev, next, at.to);
}

static __always_inline void sched_on_sched_wakeup(struct cb_event *ev, struct task_struct *woken)
{
	struct cb_task *task;

	ev->wakes = true;
	task = cb_task_of(ev, woken);
	if (!task)
		return;
	if (task->state == CB_UNSEEN && woken->on_cpu) {
		task->state = CB_RUNNING; // woken before it fell asleep
		return;
	}
	if (task->state != CB_BLOCKED && task->state != CB_UNSEEN)
		return;
	task->blocked_ns += ev->now_ns - task->since_ns;
	if (task->counted)
		cb_raise_task_blocked(ev, task, woken, ev->now_ns - task->since_ns);
	task->state = cb_quota_woken(task, woken);
	task->since_ns = ev->now_ns;
}

static __always_inline void sched_on_sched_wakeup_new(struct cb_event *ev, struct task_struct *born)
{
	struct cb_task *task = cb_task_of(ev, born);

	if (!task)
		return;
	task->quota = CB_QUOTA_ABOVE; // perhaps: to look later is cheaper
	task->state = cb_quota_woken(task, born);
	task->since_ns = ev->now_ns;
	task->begin_ns = ev->now_ns;
	task->since_birth = true;
	task->exec_ns = 0;
}

// The thread has executed a program: it has another name now, and, if it was not the leader, the leader's number.
static __always_inline void sched_on_sched_process_exec(struct cb_event *ev,
							struct task_struct *execed, int old_pid,
							struct linux_binprm *bprm)
{
	int zero = 0;
	struct cb_on_cpu *cpu = cb_on_cpu.lookup(&zero);
	struct cb_task *task;

	if (cpu && old_pid != execed->pid &&
	    (cpu->run != ev->config->run || cpu->tid != execed->pid)) {
		cb_exchange(ev, old_pid, execed->pid);
		cpu->tid = execed->pid;
	}
	task = cb_task_of(ev, execed);
	if (task)
		bpf_probe_read_kernel_str(&task->comm, sizeof(task->comm), execed->comm);
}

// The thread leaves the target: its open interval counts until now.
static __always_inline void cb_cut(struct cb_event *ev, struct cb_task *task,
				   struct task_struct *of)
{
	u64 ns = ev->now_ns > task->since_ns ? ev->now_ns - task->since_ns : 0;

	if (task->state == CB_BLOCKED) {
		task->blocked_ns += ns;
		cb_raise_task_blocked(ev, task, of, ns);
	} else if (task->state == CB_THROTTLED || task->state == CB_PREEMPTED ||
		   task->state == CB_RUNNABLE) {
		cb_waited(ev, task, of);
		task->quota = CB_QUOTA_NONE; // how much its new cgroup has used up is not known
		if (task->state == CB_THROTTLED)
			task->state = CB_PREEMPTED;
	} else {
		task->on_cpu_ns += ns;
		cb_raise_task_cut(ev, task, ns);
	}
}

// The record of a thread that has none yet and is in the target, or was before the move; its state is as when the run began.
static __always_inline struct cb_task *cb_unseen(struct cb_event *ev, struct task_struct *of,
						 u32 tid, u32 free, bool counts)
{
	bool counted = cb_seeded.lookup(&tid) != NULL;
	struct cb_task *task = cb_tasks.lookup(&free);
	struct cb_loss *loss;

	if (counted == counts)
		return NULL;
	if (task) {
		cb_adopt(ev, task, of, tid, counted);
		return task;
	}
	loss = cb_lost();
	if (loss)
		loss->task_collisions++;
	return NULL;
}

// Moves the record of thread `of`; true if the thread came into the target or left it.
static __always_inline bool cb_move_thread(struct cb_event *ev, struct task_struct *of)
{
	bool counts = cb_is_member(ev, of);
	u32 tid = of->pid, free;
	struct cb_task *task = cb_find(ev, tid, &free);

	if (!task)
		task = cb_unseen(ev, of, tid, free, counts);
	if (!task)
		return false;
	task->css_set = (u64)of->cgroups;
	if (task->state == CB_UNSEEN && !of->on_cpu)
		task->state = cb_task_state(of) ? CB_BLOCKED : CB_PREEMPTED;
	if (task->counted == counts)
		return false;
	if (task->counted) {
		cb_cut(ev, task, of);
		cb_end(ev, task, ev->now_ns);
	}
	task->since_ns = ev->now_ns;
	if (counts)
		cb_join(ev, task, of);
	task->counted = counts;
	return true;
}

// Records that a process was moved as a whole, so that its other threads are cut at this moment later.
static __always_inline void cb_move_process(struct cb_event *ev, struct task_struct *leader)
{
	struct signal_struct *signal = leader->signal;
	struct cb_move move = { .last_ns = ev->now_ns }, *last;
	u32 tgid = leader->tgid;

	if (signal->live.counter < 2)
		return;
	last = cb_moves.lookup(&tgid);
	if (last)
		move.before_ns = last->last_ns;
	if (cb_moves.update(&tgid, &move))
		cb_lose_move();
	__sync_fetch_and_add(&ev->config->moves, 1);
}

// A thread, or a process whose leader this is, was moved to another cgroup: its open interval is cut at this moment.  To do
// this for one thread takes the verifier 50,000 steps.  So the other threads of a process are cut at this moment too, but
// later: when they are seen next (cb_follow()), or by the agent at the end.
static __always_inline void sched_on_cgroup_attach_task(struct cb_event *ev, struct cgroup *into,
							char *path, struct task_struct *leader,
							bool whole)
{
	cb_quota_moved(ev, leader->pid);
	if (ev->config->target == CB_CGROUP && cb_move_thread(ev, leader) && whole)
		cb_move_process(ev, leader);
}
