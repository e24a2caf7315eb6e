// SPDX-License-Identifier: GPL-2.0-only
// calls.h - the state machine of a system call; it turns entries and exits into calls with a duration and a result.
//
//            sys_enter                      sys_exit
//   NONE ----------------> READ, FUTEX, … ----------> NONE
//
// Only the calls of CALLS in probes/c_names.py are followed; the agent writes their numbers into cb_call_kinds.  Raised, for
// modules to handle: call_begins, then call_done.  A call that was under way when the run began is cut there; it is seen
// when it returns, and both are raised then.
//
// A futex wait that a stop interrupts (SIGSTOP, the freezer, a debugger) returns to the kernel at once, as the same call or,
// if it has a timeout, as restart_syscall(2): for the thread it is one wait.  It is INTERRUPTED until the next call of the
// thread, which either continues it, or shows that it was over when it was interrupted.

#pragma once

#include "lib/call_kinds.h"
#include "lib/task.h"
#include "generated/raised.h"

// include/uapi/linux/futex.h: futex(2) is many calls in one, distinguished by its second argument.
#define CALLS_FUTEX_COMMAND 0x7f
#define CALLS_FUTEX_WAIT (1U << 0)
#define CALLS_FUTEX_WAKE (1U << 1)
#define CALLS_FUTEX_REQUEUE (1U << 3)
#define CALLS_FUTEX_CMP_REQUEUE (1U << 4)
#define CALLS_FUTEX_WAKE_OP (1U << 5)
#define CALLS_FUTEX_LOCK_PI (1U << 6)
#define CALLS_FUTEX_UNLOCK_PI (1U << 7)
#define CALLS_FUTEX_WAIT_BITSET (1U << 9)
#define CALLS_FUTEX_WAKE_BITSET (1U << 10)
#define CALLS_FUTEX_WAIT_REQUEUE_PI (1U << 11)
#define CALLS_FUTEX_CMP_REQUEUE_PI (1U << 12)
#define CALLS_FUTEX_LOCK_PI2 (1U << 13)
#define CALLS_FUTEX_WAITS (CALLS_FUTEX_WAIT | CALLS_FUTEX_WAIT_BITSET | CALLS_FUTEX_WAIT_REQUEUE_PI)
#define CALLS_FUTEX_LOCKS (CALLS_FUTEX_LOCK_PI | CALLS_FUTEX_LOCK_PI2) // not FUTEX_TRYLOCK_PI
#define CALLS_FUTEX_WAKES                                                                         \
	(CALLS_FUTEX_WAKE | CALLS_FUTEX_WAKE_BITSET | CALLS_FUTEX_WAKE_OP | CALLS_FUTEX_REQUEUE | \
	 CALLS_FUTEX_CMP_REQUEUE | CALLS_FUTEX_CMP_REQUEUE_PI | CALLS_FUTEX_UNLOCK_PI)

static __always_inline u32 calls_kind(struct pt_regs *regs, u64 number)
{
	u32 kind = cb_call_kind(number), command;

	if (kind != CB_CALL_FUTEX)
		return kind;
	command = cb_call_argument(regs, 1) & CALLS_FUTEX_COMMAND;
	if (command > 13)
		return CB_CALL_NONE;
	command = 1U << command;
	if (command & CALLS_FUTEX_WAITS)
		return CB_CALL_FUTEX_WAIT;
	if (command & CALLS_FUTEX_LOCKS)
		return CB_CALL_FUTEX_LOCK;
	return command & CALLS_FUTEX_WAKES ? CB_CALL_FUTEX_WAKE : CB_CALL_NONE;
}

// When the wait of a thread was interrupted.
BPF_TABLE("hash", u32, u64, cb_interrupted, CB_INTERRUPTED);

static __always_inline void calls_interrupt(struct cb_event *ev, struct cb_task *task,
					    struct pt_regs *regs, long ret)
{
	u32 tid = task->tid;
	u64 now_ns = cb_now(ev);

	if (!cb_interrupted.update(&tid, &now_ns)) {
		task->call = CB_CALL_INTERRUPTED;
		return;
	}
	cb_lose_key(); // whether it continues will not be seen
	cb_raise_call_done(ev, task, regs, CB_CALL_FUTEX_WAIT, ret, now_ns - task->call_ns);
}

// The interrupted wait did not continue.
static __always_inline void calls_is_over(struct cb_event *ev, struct cb_task *task,
					  struct pt_regs *regs)
{
	u32 tid = task->tid;
	u64 *until_ns = cb_interrupted.lookup(&tid);

	if (until_ns && *until_ns > task->call_ns)
		cb_raise_call_done(ev, task, regs, CB_CALL_FUTEX_WAIT, -CB_ERESTARTSYS,
				   *until_ns - task->call_ns);
}

static __always_inline void calls_on_sys_enter(struct cb_event *ev, struct pt_regs *regs, long id)
{
	struct cb_task *task = cb_current_task(ev);
	u32 kind;

	if (!task)
		return;
	kind = calls_kind(regs, id);
	if (task->call == CB_CALL_INTERRUPTED) {
		if (kind == CB_CALL_RESTART || kind == CB_CALL_FUTEX_WAIT) {
			task->call = CB_CALL_FUTEX_WAIT;
			return;
		}
		calls_is_over(ev, task, regs);
	}
	task->call = kind == CB_CALL_RESTART ? CB_CALL_NONE : kind;
	if (task->call == CB_CALL_NONE)
		return;
	task->call_ns = cb_now(ev);
	cb_raise_call_begins(ev, task, regs, kind);
}

static __always_inline void calls_on_sys_exit(struct cb_event *ev, struct pt_regs *regs, long ret)
{
	struct cb_task *task = cb_current_task(ev);
	u32 kind;

	if (!task || task->call == CB_CALL_NONE)
		return;
	kind = task->call;
	if (kind == CB_CALL_UNSEEN) {
		kind = calls_kind(regs, regs->CB_SYSCALL_NUMBER);
		task->call_ns = task->begin_ns;
		if (kind == CB_CALL_RESTART) // it continues a call that began before the run
			kind = CB_CALL_NONE;
		if (kind != CB_CALL_NONE)
			cb_raise_call_begins(ev, task, regs, kind);
	}
	task->call = CB_CALL_NONE;
	if (kind == CB_CALL_FUTEX_WAIT && cb_is_restart(cb_call_error(ret)))
		calls_interrupt(ev, task, regs, ret);
	else if (kind != CB_CALL_NONE)
		cb_raise_call_done(ev, task, regs, kind, ret, cb_now(ev) - task->call_ns);
}

// A thread that is killed in a wait makes no further call.
static __always_inline void calls_on_sched_process_exit(struct cb_event *ev,
							struct task_struct *ends)
{
	struct cb_task *task = cb_current_known(ev);

	if (!task || task->call != CB_CALL_INTERRUPTED)
		return;
	task->call = CB_CALL_NONE;
	calls_is_over(ev, task, NULL);
}
