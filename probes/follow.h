// SPDX-License-Identifier: GPL-2.0-only
// follow.h - what a fork, an end and an exec mean for the target's members and for the records; told before anything else.

#pragma once

// Runs from the moment the agent begins to look around, before anything counts.
static __always_inline void follow_on_sched_process_fork(struct cb_event *ev,
							 struct task_struct *parent,
							 struct task_struct *child)
{
	u32 from = parent->tgid, to = child->tgid;

	cb_thread_begins(ev, child->pid);
	if (ev->config->target == CB_TREE && from != to && cb_members.lookup(&from))
		cb_enrol(to);
}

static __always_inline void follow_on_sched_process_exit(struct cb_event *ev,
							 struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	u32 tgid = task->tgid;

	// it still has to leave its CPU: whether that counts is decided while it is a member
	if (ev->config->phase == CB_ON)
		cb_thread_ends(ev, task);
	// the leader may end before its threads: what counts is that no thread lives
	if (signal->live.counter != 0)
		return;
	if (ev->config->phase == CB_ON)
		cb_process_ends(ev, tgid);
	cb_members.delete(&tgid);
}

static __always_inline void follow_on_sched_process_exec(struct cb_event *ev,
							 struct task_struct *execed, int old_pid,
							 struct linux_binprm *bprm)
{
	cb_rename_process(ev, execed);
}

// What a move means for the records stands in sched.h; the hook is here because every run needs it.
static __always_inline void follow_on_cgroup_attach_task(struct cb_event *ev, struct cgroup *into,
							 char *path, struct task_struct *leader,
							 bool whole)
{
}
