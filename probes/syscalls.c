// SPDX-License-Identifier: GPL-2.0-only
// syscalls.c - system calls made, by number.

// x86-64: arch/x86/include/asm/thread_info.h; a 32-bit call has the i386 numbers.
#define SYSCALLS_TS_COMPAT 0x0002

static __always_inline bool syscalls_is_32bit(void)
{
#if defined(CONFIG_X86_64) && defined(CONFIG_IA32_EMULATION)
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return task->thread_info.status & SYSCALLS_TS_COMPAT;
#else
	return false;
#endif
}

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
	else if (syscalls_is_32bit())
		syscalls->calls_32bit[cb_clamp(id, SYSCALLS_CALLS_32BIT_ENTRIES)] += weight;
	else
		syscalls->calls[cb_clamp(id, SYSCALLS_CALLS_ENTRIES)] += weight;
}
