// SPDX-License-Identifier: GPL-2.0-only
// compat.h - every difference between kernels, in one place.
//
// CB_HAS_<NAME> is defined when this kernel's BTF has the member that FIELDS in probes/hooks.py names.

#pragma once

// Linux 2f064a59a11f ("sched: Change task_struct::state") (in v5.14) renamed `state` and made it 32 bits wide.
static __always_inline u32 cb_task_state(struct task_struct *task)
{
#ifdef CB_HAS_TASK___STATE
	return task->__state;
#else
	return task->state;
#endif
}

// include/linux/sched.h: the same on all kernels since 4.14; macros are not in BTF.
#define CB_TASK_UNINTERRUPTIBLE 0x0002
#define CB_TASK_DEAD 0x0080
#define CB_PF_KTHREAD 0x00200000
#define CB_NO_QUOTA (~0ULL) // kernel/sched/sched.h: RUNTIME_INF

// The user registers lie at the top of a thread's kernel stack (task_pt_regs()); the agent checks this at start-up
// by finding its own bpf(2) call there.
#if defined(CONFIG_ARM64)
#define CB_THREAD_SIZE 16384
#define CB_STACK_PADDING 0
#define CB_SYSCALL_OFFSET __builtin_offsetof(struct pt_regs, syscallno)
#else
#ifdef CONFIG_KASAN
#define CB_THREAD_SIZE 32768
#else
#define CB_THREAD_SIZE 16384
#endif
// Linux 65c9cc9e2c14 ("x86/fred: Reserve space for the FRED stack frame") (in v6.9)
#ifdef CONFIG_X86_FRED
#define CB_STACK_PADDING 16
#else
#define CB_STACK_PADDING 0
#endif
#define CB_SYSCALL_OFFSET __builtin_offsetof(struct pt_regs, orig_ax)
#endif
#define CB_REGS_OFFSET (CB_THREAD_SIZE - CB_STACK_PADDING - sizeof(struct pt_regs))

// Whether an interrupt stopped the present thread and is at work now.  arm64 keeps the preemption count in the thread;
// elsewhere it is a per-CPU variable, at the distance CB_PREEMPT_COUNT from the CPU's run queue (kernel/interrupts.py).
// The bits are those of include/linux/preempt.h: NMI, hard interrupt, serving a soft one.
#define CB_INTERRUPT_BITS 0x00ff0100

// Where this CPU's lies; 0 until it was looked for.
BPF_PERCPU_ARRAY(cb_preempt_count, u64, 1);

static __always_inline bool cb_in_interrupt(void)
{
	struct task_struct *current = (struct task_struct *)bpf_get_current_task();
	u32 count = 0;
#ifdef CB_HAS_THREAD_INFO_PREEMPT_COUNT
	count = current->thread_info.preempt_count;
#elif defined(CB_PREEMPT_COUNT)
	int zero = 0;
	u64 *place = cb_preempt_count.lookup(&zero);

	if (!place)
		return false;
	if (!*place) {
		struct cfs_rq *queue = current->se.cfs_rq; // of every thread, in whatever class
		struct rq *cpu = queue->rq;

		if (!cpu)
			return false;
		*place = (u64)cpu + (CB_PREEMPT_COUNT);
	}
	bpf_probe_read_kernel(&count, sizeof(count), (void *)*place);
#endif
	return count & CB_INTERRUPT_BITS;
}
