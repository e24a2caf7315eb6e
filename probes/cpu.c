// SPDX-License-Identifier: GPL-2.0-only
// cpu.c - what the scheduler, the interrupts and the power management did.

#ifdef CB_FUSED // the agent's: one program per hook, see chainbench_agent/loading/fuse.py

struct cpu_bandwidth {
	u64 throttled_count;
	u64 throttled_ns;
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

// CFS bandwidth control keeps its own counters; they are read when a thread of a limited group leaves a CPU.
// It is the current one still.
static __always_inline void cpu_read_bandwidth(struct cb_event *ev)
{
#ifdef CB_HAS_TASK_GROUP_CFS_BANDWIDTH
	struct task_struct *leaving = (struct task_struct *)CB_CURRENT_TASK();
	struct task_group *group = leaving->sched_task_group;
	struct cpu_bandwidth now = {}, *before;
	struct kernfs_node *node;
	struct cgroup *cgroup;
	u64 id;

	if (group->cfs_bandwidth.quota == CB_NO_QUOTA)
		return;
	now.throttled_count = group->cfs_bandwidth.nr_throttled;
	now.throttled_ns = group->cfs_bandwidth.throttled_time;
	cgroup = group->css.cgroup;
	node = cgroup->kn;
	id = node->id;
	before = cpu_throttled_groups.lookup(&id);
	if (before && now.throttled_count > before->throttled_count)
		cb_tell(ev, CPU_EVENT_THROTTLED, leaving->tgid,
			now.throttled_count - before->throttled_count);
	if (cpu_throttled_groups.update(&id, &now))
		cb_lose_key();
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

static __always_inline void cpu_on_local_timer_entry(struct cb_event *ev, struct cb_cpu *cpu,
						     int vector)
{
	cpu->interrupts++;
	cpu->vector_interrupts[0]++;
}

static __always_inline void cpu_on_reschedule_entry(struct cb_event *ev, struct cb_cpu *cpu,
						    int vector)
{
	cpu->interrupts++;
	cpu->vector_interrupts[1]++;
}

static __always_inline void cpu_on_call_function_entry(struct cb_event *ev, struct cb_cpu *cpu,
						       int vector)
{
	cpu->interrupts++;
	cpu->vector_interrupts[2]++;
}

static __always_inline void cpu_on_call_function_single_entry(struct cb_event *ev,
							      struct cb_cpu *cpu, int vector)
{
	cpu->interrupts++;
	cpu->vector_interrupts[3]++;
}

static __always_inline void cpu_on_irq_work_entry(struct cb_event *ev, struct cb_cpu *cpu,
						  int vector)
{
	cpu->interrupts++;
	cpu->vector_interrupts[4]++;
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

#else // CB_FUSED

// Without the agent: a plain BCC program, which attaches itself when it is loaded.
//
//   b = BPF(src_file="probes/cpu.c")
//   b["cpu_events"].items()       # EVENT_… -> count, per CPU
//   b["wakeup_latency_us"].print_log2_hist("usecs")
//
//   tracepoints sched_switch, sched_wakeup, sched_migrate_task, irq_handler_entry, softirq_entry, cpu_frequency,
//   cpu_idle: attached by BPF() itself
//   trace_throttle_cfs_rq    kprobe throttle_cfs_rq    calls: every throttling, and from 6.16 on some that are none

enum cpu_event {
	EVENT_VOLUNTARY_SWITCH,
	EVENT_INVOLUNTARY_SWITCH,
	EVENT_MIGRATION,
	EVENT_INTERRUPT,
	EVENT_SOFTIRQ,
	EVENT_FREQUENCY_CHANGE,
	EVENT_IDLE,
	EVENT_THROTTLE,
	EVENTS,
};
BPF_PERCPU_ARRAY(cpu_events, u64, EVENTS);
BPF_HASH(woken_ns, u32, u64);
BPF_HISTOGRAM(wakeup_latency_us);

TRACEPOINT_PROBE(sched, sched_switch)
{
	u32 next = args->next_pid;
	u64 *woken = woken_ns.lookup(&next);

	cpu_events.increment(args->prev_state ? EVENT_VOLUNTARY_SWITCH : EVENT_INVOLUNTARY_SWITCH);
	if (woken) {
		wakeup_latency_us.increment(bpf_log2l((bpf_ktime_get_ns() - *woken) / 1000));
		woken_ns.delete(&next);
	}
	return 0;
}

TRACEPOINT_PROBE(sched, sched_wakeup)
{
	u64 now_ns = bpf_ktime_get_ns();
	u32 pid = args->pid;

	woken_ns.update(&pid, &now_ns);
	return 0;
}

TRACEPOINT_PROBE(sched, sched_migrate_task)
{
	cpu_events.increment(EVENT_MIGRATION);
	return 0;
}

TRACEPOINT_PROBE(irq, irq_handler_entry)
{
	cpu_events.increment(EVENT_INTERRUPT);
	return 0;
}

TRACEPOINT_PROBE(irq, softirq_entry)
{
	cpu_events.increment(EVENT_SOFTIRQ);
	return 0;
}

TRACEPOINT_PROBE(power, cpu_frequency)
{
	cpu_events.increment(EVENT_FREQUENCY_CHANGE);
	return 0;
}

TRACEPOINT_PROBE(power, cpu_idle)
{
	if (args->state != (u32)-1)
		cpu_events.increment(EVENT_IDLE);
	return 0;
}

int trace_throttle_cfs_rq(struct pt_regs *ctx)
{
	cpu_events.increment(EVENT_THROTTLE);
	return 0;
}

#endif // CB_FUSED
