// SPDX-License-Identifier: GPL-2.0-only
// cpu.c - what the scheduler, the interrupts and the power management did.

#include "lib/task.h"
#include "machines/quota.h"
#include "generated/events.h"
#include "generated/cpu.h"

// A cgroup's own counters, which run since it was made.
struct cpu_bandwidth {
	u64 throttled_count;
	u64 throttled_ns;
	u64 first_count; // the same, when the target was first seen in it
	u64 first_ns;
	u32 claims; // CPUs that are about to change it
	u8 pad[4];
};
BPF_TABLE("hash", u64, struct cpu_bandwidth, cpu_throttled_groups, CPU_THROTTLED_GROUPS_ENTRIES);

struct cpu_idle_span {
	u64 since_ns;
	u32 state; // C-state, or CPU_NOT_IDLE
	u32 run;
};
BPF_PERCPU_ARRAY(cpu_idle_span, struct cpu_idle_span, 1);

#define CPU_NOT_IDLE 0xffffffff
#define CPU_IDLE_UNKNOWN (CPU_IDLE_NS_ENTRIES - 1) // idle since before the run

#ifdef CB_HAS_TASK_GROUP_CFS_BANDWIDTH
// One CPU at a time emits what is new, so that two do not emit the same; a CPU that comes meanwhile leaves it to the next.
static __always_inline void cpu_note_bandwidth(struct cb_event *ev, u64 id, u64 count, u64 ns,
					       u32 tgid)
{
	struct cpu_bandwidth *group = cpu_throttled_groups.lookup(&id);
	struct cpu_bandwidth first = { count, ns, count, ns };

	if (!group) {
		if (cpu_throttled_groups.update(&id, &first))
			cb_lose_key();
		return;
	}
	if (count <= group->throttled_count && ns <= group->throttled_ns)
		return;
	// as cb_try_claim(), but without a second look: here it would be verified for every level
	__sync_fetch_and_add(&group->claims, 1);
	if (*(volatile u32 *)&group->claims != 1) {
		cb_release(&group->claims);
		return;
	}
	if (count > group->throttled_count) {
		cb_emit(ev, CPU_EVENT_THROTTLED, tgid, count - group->throttled_count);
		group->throttled_count = count;
	}
	if (ns > group->throttled_ns)
		group->throttled_ns = ns;
	cb_release(&group->claims);
}
#endif

// Reads the counters of CFS bandwidth control when the current thread leaves its CPU: those of its group, and of each group
// above that has a quota.
static __always_inline void cpu_read_bandwidth(struct cb_event *ev)
{
#ifdef CB_HAS_TASK_GROUP_CFS_BANDWIDTH
	struct task_struct *leaving = (struct task_struct *)CB_CURRENT_TASK();
	struct task_group *group = leaving->sched_task_group;
	struct kernfs_node *node;
	struct cgroup *cgroup;

#pragma clang loop unroll(disable)
	for (u32 level = 0; level < CB_QUOTA_LEVELS; level++) {
		if (!group)
			return;
		if (group->cfs_bandwidth.quota != CB_NO_QUOTA) {
			cgroup = group->css.cgroup;
			node = cgroup->kn;
			cpu_note_bandwidth(ev, node->id, group->cfs_bandwidth.nr_throttled,
					   group->cfs_bandwidth.throttled_time, leaving->tgid);
		}
		group = group->parent;
	}
#endif
}

static __always_inline void cpu_on_task_ran(struct cb_event *ev, struct cb_cpu *cpu,
					    struct cb_task *task, struct task_struct *prev, u64 ns,
					    bool voluntary)
{
	struct cb_process *process = cb_process_of(ev, task->tgid);

	cpu->on_cpu_ns += ns;
	cpu->context_switches++;
	if (process) {
		__sync_fetch_and_add(&process->cpu_on_cpu_ns, ns);
		__sync_fetch_and_add(&process->cpu_context_switches, 1);
	}
	if (voluntary)
		cpu->voluntary_switches++;
	else
		cpu->involuntary_switches++;
	cpu_read_bandwidth(ev);
}

// It goes on running, out of the target.
static __always_inline void cpu_on_task_cut(struct cb_event *ev, struct cb_cpu *cpu,
					    struct cb_task *task, u64 ns)
{
	struct cb_process *process = cb_process_of(ev, task->tgid);

	cpu->on_cpu_ns += ns;
	if (process)
		__sync_fetch_and_add(&process->cpu_on_cpu_ns, ns);
}

static __always_inline void cpu_on_task_waited(struct cb_event *ev, struct cb_cpu *cpu,
					       struct cb_task *task, u64 ns, bool woken)
{
	if (woken)
		cb_observe(ev, &cpu->wakeup_latency_ns, ns);
}

static __always_inline void cpu_on_sched_migrate_task(struct cb_event *ev, struct cb_cpu *cpu,
						      struct task_struct *task, int dest_cpu)
{
	if (cb_is_member(ev, task))
		cpu->cpu_migrations++;
}

static __always_inline void cpu_on_irq_handler_entry(struct cb_event *ev, struct cb_cpu *cpu,
						     int irq)
{
	cpu->interrupts++;
	cpu->device_interrupts[cb_clamp(irq, CPU_DEVICE_INTERRUPTS_ENTRIES)]++;
}

static __always_inline void cpu_on_vector_entry(struct cb_event *ev, struct cb_cpu *cpu, u32 place)
{
	cpu->interrupts++;
	cpu->vector_interrupts[place]++; // a constant: see VECTORS in hooks.py
}

static __always_inline void cpu_on_softirq_entry(struct cb_event *ev, struct cb_cpu *cpu,
						 u32 vector)
{
	cpu->softirqs[cb_clamp(vector, CPU_SOFTIRQS_ENTRIES)]++;
}

static __always_inline void cpu_on_cpu_frequency(struct cb_event *ev, struct cb_cpu *cpu, u32 khz,
						 u32 of_cpu)
{
	cpu->frequency_changes++;
}

static __always_inline void cpu_on_cpu_idle(struct cb_event *ev, struct cb_cpu *cpu, u32 state)
{
	int zero = 0;
	struct cpu_idle_span *span = cpu_idle_span.lookup(&zero);

	if (!span)
		return;
	if (span->run != ev->config->run) {
		span->run = ev->config->run;
		span->since_ns = ev->config->started_ns;
		span->state = state == CPU_NOT_IDLE ? CPU_IDLE_UNKNOWN : CPU_NOT_IDLE;
	}
	if (span->state != CPU_NOT_IDLE)
		cpu->idle_ns[cb_clamp(span->state, CPU_IDLE_NS_ENTRIES)] +=
			ev->now_ns - span->since_ns;
	span->state = state;
	span->since_ns = ev->now_ns;
}
