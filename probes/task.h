// SPDX-License-Identifier: GPL-2.0-only
// task.h - one record per thread, shared by all scheduler consumers.
//
// The record is a slot of an array, not of a hash: a lookup is an addition.  The agent reads the records through mmap
// at the end of the run, to cut the intervals that are still open.

#pragma once

enum cb_task_state {
	CB_FREE,
	CB_UNSEEN, // no edge seen in this run yet
	CB_RUNNING,
	CB_PREEMPTED, // left a CPU while runnable
	CB_RUNNABLE,  // woken
	CB_BLOCKED,
};

#define CB_WAIT_UNKNOWN 0xffffffff
#define CB_NO_STACK (-1)

struct cb_task {
	u64 since_ns; // when the present state began
	u64 regs;     // address of the saved user registers; 0 for a kernel thread
	u32 tid;
	u32 run;
	u32 wait;  // what it is blocked in: see offcpu.c
	s32 stack; // sampled kernel stack of that, or CB_NO_STACK
	u8 state;
	u8 counted; // 0: the agent's own
	u8 kthread;
	u8 pad[5];
};
BPF_F_TABLE("array", u32, struct cb_task, cb_tasks, CB_TASKS, BPF_F_MMAPABLE);

// The thread that each CPU entered last.  If another one leaves, a switch in between was not seen.
struct cb_on_cpu {
	u32 tid;
	u32 run;
};
BPF_PERCPU_ARRAY(cb_on_cpu, struct cb_on_cpu, 1);

static __always_inline void cb_adopt(struct cb_event *ev, struct cb_task *task,
				     struct task_struct *of, u32 tid)
{
	task->since_ns = ev->config->started_ns;
	task->kthread = !!(of->flags & CB_PF_KTHREAD);
	task->regs = task->kthread ? 0 : (u64)of->stack + CB_REGS_OFFSET;
	task->tid = tid;
	task->run = ev->config->run;
	task->wait = CB_WAIT_UNKNOWN;
	task->stack = CB_NO_STACK;
	task->state = CB_UNSEEN;
	task->counted = !cb_is_agent(ev->config, of->tgid);
}

// The record of thread `of`; null for the idle task and, counted as loss, when another live thread holds the slot.
static __always_inline struct cb_task *cb_task_of(struct cb_event *ev, struct task_struct *of)
{
	u32 tid = of->pid;
	u32 index = tid & (CB_TASKS - 1);
	struct cb_task *task;

	if (!tid)
		return NULL;
	task = cb_tasks.lookup(&index);
	if (!task)
		return NULL;
	if (task->tid == tid && task->run == ev->config->run && task->state != CB_FREE)
		return task;
	if (task->run == ev->config->run && task->state != CB_FREE) {
		struct cb_loss *loss = cb_lost();

		if (loss)
			loss->task_collisions++;
		return NULL;
	}
	cb_adopt(ev, task, of, tid);
	return task;
}
