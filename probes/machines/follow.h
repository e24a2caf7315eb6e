// SPDX-License-Identifier: GPL-2.0-only
// follow.h - follows the target: updates its members and the records at a fork, an exit, an exec and a new name.
//
// These handlers run before all others of a hook.

#pragma once

#include "lib/task.h"

// Runs from the moment when the agent begins to find out what is in the target, before anything counts.
static __always_inline void follow_on_sched_process_fork(struct cb_event *ev,
							 struct task_struct *parent,
							 struct task_struct *child)
{
	u32 from = parent->tgid, to = child->tgid;

	cb_thread_begins(ev, child->pid);
	if (ev->config->target == CB_TREE && from != to && cb_members.lookup(&from))
		cb_add_member(to);
}

static __always_inline void follow_on_sched_process_exit(struct cb_event *ev,
							 struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	u32 tgid = task->tgid;

	// it still has to leave its CPU: decide while it is a member whether that counts
	if (ev->config->phase == CB_ON)
		cb_thread_ends(ev, task);
	// the leader may end before its threads: the process has ended when no thread lives
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
	cb_rename_process(ev, execed, execed->comm);
}

// The last name is reported: servers name their threads after they were born.  The kernel is about to copy `comm`.
static __always_inline void follow_on_task_rename(struct cb_event *ev, struct task_struct *task,
						  char *comm)
{
	u32 unused;
	struct cb_task *known = cb_find(ev, task->pid, &unused);

	// a thread that executes a program has its leader's number already, but not yet its record
	if (known && (!known->regs || known->regs == (u64)task->stack + CB_REGS_OFFSET))
		bpf_probe_read_kernel_str(&known->comm, sizeof(known->comm), comm);
	if (task->pid == task->tgid)
		cb_rename_process(ev, task, comm);
}

// sched.h updates the records; this handler makes the hook one that every run attaches.
static __always_inline void follow_on_cgroup_attach_task(struct cb_event *ev, struct cgroup *into,
							 char *path, struct task_struct *leader,
							 bool whole)
{
}
