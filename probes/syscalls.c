// SPDX-License-Identifier: GPL-2.0-only
// syscalls.c - system calls made, by number, and those that failed, by error.

#include "lib/task.h"
#include "generated/syscalls.h"

static __always_inline void syscalls_on_sys_enter(struct cb_event *ev, struct cb_syscalls *syscalls,
						  struct pt_regs *regs, long id)
{
	u64 weight = cb_weight(ev);
	struct cb_process *process;

	if (!weight || !cb_current_counts(ev))
		return;
	syscalls->total += weight;
	process = cb_current_process(ev);
	if (process)
		__sync_fetch_and_add(&process->syscalls_total, weight);
	if ((u64)id >= SYSCALLS_CALLS_ENTRIES)
		syscalls->unknown_calls += weight;
	else if (cb_is_32bit_call())
		syscalls->calls_32bit[cb_clamp(id, SYSCALLS_CALLS_32BIT_ENTRIES)] += weight;
	else
		syscalls->calls[cb_clamp(id, SYSCALLS_CALLS_ENTRIES)] += weight;
}

#define SYSCALLS_UNKNOWN_CALL 0xffffffff // a number above every known one
#define SYSCALLS_NO_CALL -1 // after a signal's handler no call returns, but what it interrupted

struct syscalls_failure {
	u32 call;
	u16 error;
	u16 of_32bit;
};
BPF_TABLE("hash", struct syscalls_failure, u64, syscalls_failures, SYSCALLS_FAILURES_ENTRIES);

// Errors are few, so they are looked for first, and each is counted even if entries are sampled.
static __always_inline void syscalls_on_call_returns(struct cb_event *ev,
						     struct cb_syscalls *syscalls,
						     struct pt_regs *regs, long ret)
{
	struct syscalls_failure failure = { .error = cb_call_error(ret) };
	u64 none = 0, *count, number;
	struct cb_process *process;

	if (!failure.error || !cb_current_counts(ev))
		return;
	number = regs->CB_SYSCALL_NUMBER;
	if ((int)number == SYSCALLS_NO_CALL)
		return;
	if (cb_is_restart(failure.error)) {
		syscalls->interrupted++;
		return;
	}
	syscalls->failed++;
	process = cb_current_process(ev);
	if (process)
		__sync_fetch_and_add(&process->syscalls_failed, 1);
	failure.call = number < SYSCALLS_CALLS_ENTRIES ? number : SYSCALLS_UNKNOWN_CALL;
	failure.of_32bit = cb_is_32bit_call();
	count = syscalls_failures.lookup_or_try_init(&failure, &none);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		cb_lose_key();
}
