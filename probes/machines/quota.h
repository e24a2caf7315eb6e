// SPDX-License-Identifier: GPL-2.0-only
// quota.h - divides a thread's wait for a CPU into time throttled by a CPU quota and time in the run queue.
//
// A cgroup's quota holds for all cgroups below it.  When it is used up, the kernel throttles the run queues that these groups
// have on the CPU; when the next period begins, it unthrottles them.  No tracepoint shows either.  But the kernel has a
// stopwatch in each run queue: how long it has been throttled so far, because of any group above it.  It is read when a
// thread begins to wait, and again when the thread enters a CPU: the difference is throttled time, the rest of the wait is
// time in the run queue.
//
// There are two models, which differ in a member of task_struct:
// - Linux before v6.18 takes the whole run queue away: all threads in it wait, and so do those that are woken into it.
// - Linux e1fad12dcb66 ("sched/fair: Switch to task based throttle model") (in v6.18) takes threads away one by one, when
//   they return to user space.  Until then they run, and wait for a CPU, as all others do.

#pragma once

#include "lib/task.h"

#define CB_QUOTA_LEVELS 10 // cgroups above each other that are looked at
#define CB_FIRST_FAIR_PRIORITY \
	100 // include/linux/sched/prio.h: MAX_RT_PRIO; quotas are for what comes after

enum cb_quota {
	CB_QUOTA_NONE, // no quota above it, when it last left a CPU
	CB_QUOTA_ABOVE,
	CB_QUOTA_TIMED,       // waits, and the stopwatch was read when that began
	CB_QUOTA_TIMED_WOKEN, // the same, and the wait began with a wake-up
};

// The stopwatch when a thread began to wait; and when a thread, or its process, came into its present cgroup.
struct cb_quota_wait {
	u64 queue; // the cfs_rq whose stopwatch it is
	u64 throttled_ns;
	u64 moved_ns;
	u32 tid;
	u32 moved; // the thread that was moved, or the process
};
BPF_ARRAY(cb_quota_waits, struct cb_quota_wait, CB_TASKS);

#ifdef CB_HAS_TASK_GROUP_CFS_BANDWIDTH

#define CB_READ_QUEUE(to, queue, member)         \
	bpf_probe_read_kernel(&(to), sizeof(to), \
			      (void *)(queue) + __builtin_offsetof(struct cfs_rq, member))
#define CB_READ_CPU_QUEUE(to, cpu_queue, member) \
	bpf_probe_read_kernel(&(to), sizeof(to), \
			      (void *)(cpu_queue) + __builtin_offsetof(struct rq, member))

static __always_inline bool cb_queue_is_throttled(u64 queue)
{
	int count = 0;

	CB_READ_QUEUE(count, queue, throttle_count);
	return count > 0;
}

// The stopwatch: how long the run queue was throttled.  `under_way`: up to now, else up to when it was last unthrottled.
static __always_inline u64 cb_queue_throttled_ns(u64 queue, bool under_way)
{
	u64 cpu = 0, passed = 0, since = 0, now = 0;

#if defined(CB_HAS_CFS_RQ_THROTTLED_CLOCK_SELF_TIME)
	// Linux 677ea015f231 ("sched: add throttled time stat for throttled children") (in v6.6): wall time
	CB_READ_QUEUE(passed, queue, throttled_clock_self_time);
	if (!under_way)
		return passed;
	CB_READ_QUEUE(since, queue, throttled_clock_self);
	if (!since)
		return passed;
	CB_READ_QUEUE(cpu, queue, rq);
	CB_READ_CPU_QUEUE(now, cpu, clock);
#elif defined(CB_HAS_CFS_RQ_THROTTLED_CLOCK_PELT_TIME)
	// Linux 64eaf50731ac ("sched/fair: Decay task PELT values during wakeup migration") (in v6.0): by the clock that
	// goes slower while the CPU runs below its highest frequency
	u64 idle = 0;

	CB_READ_QUEUE(passed, queue, throttled_clock_pelt_time);
	if (!under_way || !cb_queue_is_throttled(queue))
		return passed;
	CB_READ_QUEUE(since, queue, throttled_clock_pelt);
	CB_READ_QUEUE(cpu, queue, rq);
	CB_READ_CPU_QUEUE(now, cpu, clock_pelt);
	CB_READ_CPU_QUEUE(idle, cpu, lost_idle_time);
	now -= idle;
#else
	// by the clock that stands still while the CPU handles interrupts, or runs another guest
	CB_READ_QUEUE(passed, queue, throttled_clock_task_time);
	if (!under_way || !cb_queue_is_throttled(queue))
		return passed;
	CB_READ_QUEUE(since, queue, throttled_clock_task);
	CB_READ_QUEUE(cpu, queue, rq);
	CB_READ_CPU_QUEUE(now, cpu, clock_task);
#endif
	return now > since ? passed + now - since : passed;
}

static __always_inline void cb_time_quota(struct cb_task *task, u64 queue, bool woken)
{
	u32 index = task->tid & (CB_TASKS - 1);
	struct cb_quota_wait *wait = cb_quota_waits.lookup(&index);

	if (!wait)
		return;
	wait->queue = queue;
	wait->throttled_ns = cb_queue_throttled_ns(queue, true);
	wait->tid = task->tid;
	task->quota = woken ? CB_QUOTA_TIMED_WOKEN : CB_QUOTA_TIMED;
}

#ifndef CB_HAS_TASK_THROTTLED
// Whether a quota holds for the current thread: its group's, or that of one above.
static __always_inline bool cb_current_has_quota(void)
{
	struct task_struct *current_task = (struct task_struct *)CB_CURRENT_TASK();
	struct task_group *group = current_task->sched_task_group;

	if (current_task->prio < CB_FIRST_FAIR_PRIORITY)
		return false;
#pragma clang loop unroll(disable)
	for (u32 level = 0; level < CB_QUOTA_LEVELS; level++) {
		if (!group)
			return false;
		if (group->cfs_bandwidth.quota != CB_NO_QUOTA)
			return true;
		group = group->parent;
	}
	return true;
}
#endif

// The state of the current thread, which leaves its CPU although it could run on.
static __always_inline u8 cb_quota_left_runnable(struct cb_task *task)
{
	struct task_struct *prev = (struct task_struct *)CB_CURRENT_TASK();
	u64 queue;

	task->quota = CB_QUOTA_NONE;
#ifdef CB_HAS_TASK_THROTTLED
	if (!prev->throttled)
		return CB_PREEMPTED;
	cb_time_quota(task, (u64)prev->se.cfs_rq, false);
	return CB_THROTTLED;
#else
	if (!cb_current_has_quota())
		return CB_PREEMPTED;
	queue = (u64)prev->se.cfs_rq;
	cb_time_quota(task, queue, false);
	return cb_queue_is_throttled(queue) ? CB_THROTTLED : CB_PREEMPTED;
#endif
}

// The current thread falls asleep: records whether a quota may throttle it when it is woken.
static __always_inline void cb_quota_left_blocked(struct cb_task *task)
{
	task->quota = CB_QUOTA_NONE;
#ifndef CB_HAS_TASK_THROTTLED
	if (cb_current_has_quota())
		task->quota = CB_QUOTA_ABOVE;
#endif
}

// The state of a thread that was woken.
static __always_inline u8 cb_quota_woken(struct cb_task *task, struct task_struct *woken)
{
#ifndef CB_HAS_TASK_THROTTLED
	u64 queue = 0;

	if (task->quota != CB_QUOTA_ABOVE)
		return CB_RUNNABLE;
	bpf_probe_read_kernel(&queue, sizeof(queue), &woken->se.cfs_rq);
	cb_time_quota(task, queue, true);
	if (cb_queue_is_throttled(queue))
		return CB_THROTTLED;
#endif
	return CB_RUNNABLE;
}

// A thread, or a process as a whole, is in another cgroup from now on.
static __always_inline void cb_quota_moved(struct cb_event *ev, u32 tid)
{
	u32 index = tid & (CB_TASKS - 1);
	struct cb_quota_wait *wait = cb_quota_waits.lookup(&index);

	if (!wait)
		return;
	wait->moved_ns = ev->now_ns;
	wait->moved = tid;
}

// When thread `tid`, which has waited since `since_ns`, was moved; 0 if it was not.
static __always_inline u64 cb_quota_moved_ns(u32 tid, u64 since_ns)
{
	u32 index = tid & (CB_TASKS - 1);
	struct cb_quota_wait *wait = cb_quota_waits.lookup(&index);

	return wait && wait->moved == tid && wait->moved_ns >= since_ns ? wait->moved_ns : 0;
}

// How much of the `ns` that thread `next` waited before it enters a CPU it was throttled.
static __always_inline u64 cb_quota_throttled_ns(struct cb_task *task, struct task_struct *next,
						 u64 ns)
{
	u32 index = task->tid & (CB_TASKS - 1);
	struct cb_quota_wait *wait = cb_quota_waits.lookup(&index);
	u64 of = 0, group = 0, passed, moved_ns;
	struct cb_loss *loss;

	if (!wait || wait->tid != task->tid) {
		loss = cb_lost();
		if (loss)
			loss->task_collisions++;
		return task->state == CB_THROTTLED ? ns : 0;
	}
	CB_READ_QUEUE(of, wait->queue, tg);
	bpf_probe_read_kernel(&group, sizeof(group), &next->sched_task_group);
	passed = cb_queue_throttled_ns(wait->queue, of != group);
	if (of != group) { // in another cgroup now: it was throttled until it was moved, at most
		moved_ns = cb_quota_moved_ns(task->tid, task->since_ns);
		if (!moved_ns)
			moved_ns = cb_quota_moved_ns(task->tgid, task->since_ns);
		if (moved_ns)
			ns = moved_ns - task->since_ns;
	}
	if (passed <
	    wait->throttled_ns) // throttled already when the wait began, and nothing has ended since
		return 0;
	passed -= wait->throttled_ns;
	return passed < ns ? passed : ns;
}

// Whether a thread that is seen for the first time may have been throttled when the run began; until when is unknown.
static __always_inline bool cb_quota_unknown(struct task_struct *next)
{
	u64 queue = 0;

	bpf_probe_read_kernel(&queue, sizeof(queue), &next->se.cfs_rq);
	return cb_queue_throttled_ns(queue, false) > 0;
}

#else // CB_HAS_TASK_GROUP_CFS_BANDWIDTH: without quotas nothing is throttled

#define cb_quota_left_runnable(task) CB_PREEMPTED
#define cb_quota_left_blocked(task) ((void)(task))
#define cb_quota_woken(task, woken) CB_RUNNABLE
#define cb_quota_throttled_ns(task, next, ns) 0
#define cb_quota_unknown(next) false
#define cb_quota_moved(ev, tid) ((void)(tid))

#endif
