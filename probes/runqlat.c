// SPDX-License-Identifier: GPL-2.0-only
// runqlat.c - run-queue latency: how long runnable threads waited for a CPU.

static __always_inline void runqlat_on_task_waited(struct cb_event *ev, struct cb_runqlat *runqlat,
						   struct cb_task *task, u64 ns, bool woken)
{
	cb_observe(ev, &runqlat->latency_ns, ns);
}
