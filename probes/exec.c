// SPDX-License-Identifier: GPL-2.0-only
// exec.c - programs and processes started, and programs that could not be.

#include "lib/call_kinds.h"
#include "lib/task.h"
#include "generated/events.h"
#include "generated/exec.h"

struct exec_command {
	char name[16]; // TASK_COMM_LEN
};
BPF_TABLE("hash", struct exec_command, u64, exec_commands, EXEC_COMMANDS_ENTRIES);

static __always_inline void exec_on_sched_process_exec(struct cb_event *ev, struct cb_exec *exec,
						       struct task_struct *task, int old_pid,
						       struct linux_binprm *bprm)
{
	struct exec_command command = {};
	u64 none = 0, *count;
	struct cb_process *process;

	if (!cb_current_counts(ev))
		return;
	exec->exec_count++;
	cb_emit_current(ev, EXEC_EVENT_EXEC, old_pid);
	process = cb_current_process(ev);
	if (process)
		__sync_fetch_and_add(&process->exec_exec_count, 1);
	bpf_probe_read_kernel_str(&command.name, sizeof(command.name), task->comm);
	count = exec_commands.lookup_or_try_init(&command, &none);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		cb_lose_key();
}

static __always_inline void exec_on_sched_process_fork(struct cb_event *ev, struct cb_exec *exec,
						       struct task_struct *parent,
						       struct task_struct *child)
{
	struct cb_process *process;

	if (!cb_current_counts(ev))
		return;
	process = cb_current_process(ev);
	if (child->pid == child->tgid) {
		exec->forks++;
		if (process)
			__sync_fetch_and_add(&process->exec_forks, 1);
	} else {
		exec->threads_created++;
		if (process)
			__sync_fetch_and_add(&process->exec_threads_created, 1);
	}
}

// Failures are few, so they are looked for first.  No entry is required: a call that seccomp refuses has only an exit.
static __always_inline void exec_on_sys_exit(struct cb_event *ev, struct cb_exec *exec,
					     struct pt_regs *regs, long ret)
{
	u32 error = cb_call_error(ret);
	struct cb_process *process;

	if (!error || cb_is_restart(error) ||
	    cb_call_kind(regs->CB_SYSCALL_NUMBER) != CB_CALL_EXEC || !cb_current_counts(ev))
		return;
	exec->exec_failures++;
	process = cb_current_process(ev);
	if (process)
		__sync_fetch_and_add(&process->exec_exec_failures, 1);
}
