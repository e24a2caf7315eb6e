// SPDX-License-Identifier: GPL-2.0-only
// runqlat.c - run-queue latency: how long runnable threads waited for a CPU.

#include "lib/task.h"
#include "generated/runqlat.h"

static __always_inline void runqlat_on_task_waited(struct cb_event *ev, struct cb_runqlat *runqlat,
						   struct cb_task *task, u64 ns, bool woken)
{
	struct cb_process *process = cb_process_of(ev, task->tgid);

	cb_observe(ev, &runqlat->latency_ns, ns);
	runqlat->wait_ns += ns;
	if (process)
		__sync_fetch_and_add(&process->runqlat_wait_ns, ns);
}
