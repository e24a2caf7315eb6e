// SPDX-License-Identifier: GPL-2.0-only
// interrupts.h - whether the present thread is the one at work, or was only stopped by an interrupt.
//
// arm64 keeps the preemption count in the thread; elsewhere it is a per-CPU variable, which lies at the distance
// CB_PREEMPT_COUNT from the CPU's run queue (chainbench_agent/kernel/interrupts.py).

#pragma once

#define CB_INTERRUPT_BITS \
	0x00ff0100 // include/linux/preempt.h: NMI, hard interrupt, serving a soft one

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

		*place = (u64)cpu + (CB_PREEMPT_COUNT);
	}
	bpf_probe_read_kernel(&count, sizeof(count), (void *)*place);
#endif
	return count & CB_INTERRUPT_BITS;
}
