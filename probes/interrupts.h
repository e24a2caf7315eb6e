// SPDX-License-Identifier: GPL-2.0-only
// interrupts.h - whether the present thread is the one at work, or was only stopped by an interrupt.
//
// arm64 keeps the preemption count in the thread; elsewhere it is a per-CPU variable, which lies at the distance
// CB_PREEMPT_COUNT from the CPU's run queue (chainbench_agent/kernel/interrupts.py).

#pragma once

#define CB_INTERRUPT_BITS \
	0x00ff0100 // include/linux/preempt.h: NMI, hard interrupt, serving a soft one

static __always_inline bool cb_in_interrupt(void)
{
	struct task_struct *current = (struct task_struct *)bpf_get_current_task();
	u32 count = 0;
#if defined(CB_HAS_THREAD_INFO_PREEMPT_COUNT)
	count = current->thread_info.preempt_count;
#elif defined(CB_PREEMPT_COUNT)
	struct cfs_rq *queue =
		current->se.cfs_rq; // every thread's, in whatever class, on the CPU it runs on
	struct rq *cpu = queue->rq;

	bpf_probe_read_kernel(&count, sizeof(count), (void *)cpu + (CB_PREEMPT_COUNT));
#endif
	return count & CB_INTERRUPT_BITS;
}
