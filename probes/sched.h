// SPDX-License-Identifier: GPL-2.0-only
// sched.h - the state machine of a thread; it turns scheduler events into closed intervals.
//
//            sched_switch: in                    sched_switch: out
//   RUNNABLE ----------------> RUNNING ---------------------------------> PREEMPTED (still runnable) or BLOCKED
//      ^                                                                              |
//      +------------------------------- sched_wakeup ---------------------------------+
//
// Each edge closes an interval and raises a hook that modules handle:
//   task_ran (left a CPU), task_waited (entered one), task_throttled (entered one, but was not allowed to
//   before), task_blocks (falls asleep), task_blocked (was woken).
// An interval that was open when the run began is cut at the beginning of the run.

#pragma once

// Notes that this CPU goes from `prev` to `next`; false if it was last seen entering another thread than `prev`.
static __always_inline bool cb_continuous(struct cb_event *ev, struct task_struct *prev,
					  struct task_struct *next)
{
	int zero = 0;
	struct cb_on_cpu *cpu = cb_on_cpu.lookup(&zero);
	bool continuous;

	if (!cpu)
		return false;
	continuous = cpu->run != ev->config->run || cpu->tid == prev->pid;
	cpu->tid = next->pid;
	cpu->run = ev->config->run;
	return continuous;
}

// Whether a thread that could go on was taken off its CPU because its group may not run.
static __always_inline bool cb_is_throttled(struct task_struct *prev)
{
#ifdef CB_HAS_TASK_GROUP_CFS_BANDWIDTH
	struct task_group *group = prev->sched_task_group;
	struct cfs_rq *queue;

	if (group->cfs_bandwidth.quota == CB_NO_QUOTA)
		return false;
	queue = prev->se.cfs_rq;
	return queue->throttle_count > 0;
#else
	return false;
#endif
}

static __always_inline void cb_leave_cpu(struct cb_event *ev, struct task_struct *prev,
					 bool preempt, u32 prev_state, bool continuous)
{
	struct cb_task *task = cb_task_of(ev, prev);
	bool voluntary = !preempt && prev_state;

	if (!task)
		return;
	if (!continuous || (task->state != CB_RUNNING && task->state != CB_UNSEEN)) {
		cb_lose_switch();
		task->since_ns = ev->now_ns;
	}
	task->on_cpu_ns += ev->now_ns - task->since_ns;
	if (task->counted)
		cb_raise_task_ran(ev, task, prev, ev->now_ns - task->since_ns, voluntary);
	task->since_ns = ev->now_ns;
	if (prev_state & CB_TASK_DEAD) {
		if (task->counted)
			cb_end(ev, task, ev->now_ns);
		task->state = CB_FREE;
	} else if (!voluntary) {
		task->state = cb_is_throttled(prev) ? CB_THROTTLED : CB_PREEMPTED;
	} else {
		task->state = CB_BLOCKED;
		if (task->counted)
			cb_raise_task_blocks(ev, task, prev_state);
	}
}

static __always_inline void cb_enter_cpu(struct cb_event *ev, struct task_struct *next)
{
	struct cb_task *task = cb_task_of(ev, next);

	if (!task)
		return;
	// A thread that went to sleep with a signal pending was never dequeued: BLOCKED without a wake-up is a wait too.
	if (task->state == CB_RUNNING) {
		cb_lose_switch();
	} else if (task->state == CB_THROTTLED) {
		task->throttled_ns += ev->now_ns - task->since_ns;
		if (task->counted)
			cb_raise_task_throttled(ev, task, ev->now_ns - task->since_ns);
	} else {
		task->runnable_ns += ev->now_ns - task->since_ns;
		if (task->counted)
			cb_raise_task_waited(ev, task, ev->now_ns - task->since_ns,
					     task->state == CB_RUNNABLE);
	}
	task->state = CB_RUNNING;
	task->since_ns = ev->now_ns;
}

static __always_inline void sched_on_sched_switch(struct cb_event *ev, bool preempt,
						  struct task_struct *prev,
						  struct task_struct *next, u32 prev_state)
{
	cb_leave_cpu(ev, prev, preempt, prev_state, cb_continuous(ev, prev, next));
	cb_enter_cpu(ev, next);
}

static __always_inline void sched_on_sched_wakeup(struct cb_event *ev, struct task_struct *woken)
{
	struct cb_task *task = cb_task_of(ev, woken);

	if (!task)
		return;
	if (task->state == CB_UNSEEN && woken->on_cpu) {
		task->state = CB_RUNNING; // woken before it got to sleep
		return;
	}
	if (task->state != CB_BLOCKED && task->state != CB_UNSEEN)
		return;
	task->blocked_ns += ev->now_ns - task->since_ns;
	if (task->counted)
		cb_raise_task_blocked(ev, task, ev->now_ns - task->since_ns);
	task->state = CB_RUNNABLE;
	task->since_ns = ev->now_ns;
}

static __always_inline void sched_on_sched_wakeup_new(struct cb_event *ev, struct task_struct *born)
{
	struct cb_task *task = cb_task_of(ev, born);

	if (!task)
		return;
	task->state = CB_RUNNABLE;
	task->since_ns = ev->now_ns;
	task->begin_ns = ev->now_ns;
}

// The thread carries another name from now on.
static __always_inline void sched_on_sched_process_exec(struct cb_event *ev,
							struct task_struct *execed, int old_pid,
							struct linux_binprm *bprm)
{
	struct cb_task *task = cb_task_of(ev, execed);

	if (task)
		bpf_probe_read_kernel_str(&task->comm, sizeof(task->comm), execed->comm);
}
