// SPDX-License-Identifier: GPL-2.0-only
// calls.h - the state machine of a system call; it turns entries and exits into calls with a duration and a result.
//
//            sys_enter                      sys_exit
//   NONE ----------------> READ, FUTEX, … ----------> NONE
//
// Only the calls that CALLS in probes/hooks.py names are followed; their numbers are the agent's business.  Raised, for
// modules to handle: call_begins, then call_done.  A call that was under way when the run began is cut there; it is seen
// when it returns, and both are raised then.

#pragma once

// What a system call number stands for, as enum cb_call; written by the agent only.
struct cb_call_kinds {
	u32 of_64bit;
	u32 of_32bit;
};
BPF_ARRAY(cb_call_kinds, struct cb_call_kinds, CB_CALL_NUMBERS);

static __always_inline u32 cb_call_kind(u64 number)
{
	struct cb_call_kinds *kinds;
	int index = number;

	if (number >= CB_CALL_NUMBERS)
		return CB_CALL_NONE;
	kinds = cb_call_kinds.lookup(&index);
	if (!kinds || (kinds->of_64bit == CB_CALL_NONE && kinds->of_32bit == CB_CALL_NONE))
		return CB_CALL_NONE;
	return cb_is_32bit_call() ? kinds->of_32bit : kinds->of_64bit;
}

static __always_inline void calls_on_sys_enter(struct cb_event *ev, struct pt_regs *regs, long id)
{
	struct cb_task *task = cb_current_task(ev);
	u32 kind;

	if (!task)
		return;
	kind = cb_call_kind(id);
	task->call = kind;
	if (kind == CB_CALL_NONE)
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
		kind = cb_call_kind(regs->CB_SYSCALL_NUMBER);
		task->call_ns = task->begin_ns;
		if (kind != CB_CALL_NONE)
			cb_raise_call_begins(ev, task, regs, kind);
	}
	task->call = CB_CALL_NONE;
	if (kind != CB_CALL_NONE)
		cb_raise_call_done(ev, task, regs, kind, ret, cb_now(ev) - task->call_ns);
}
