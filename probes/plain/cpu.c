// SPDX-License-Identifier: GPL-2.0-only
// plain/cpu.c - switches, migrations, interrupts and wake-up latency.
//
// A plain BCC program, which attaches itself when it is loaded.
//
//   b = BPF(src_file="probes/plain/cpu.c")
//   b["cpu_events"].items()       # EVENT_… -> count, per CPU
//   b["wakeup_latency_us"].print_log2_hist("usecs")
//
//   tracepoints sched_switch, sched_wakeup, sched_migrate_task, irq_handler_entry, softirq_entry, cpu_frequency,
//   cpu_idle: attached by BPF() itself
//   trace_throttle_cfs_rq    kprobe throttle_cfs_rq    calls: every throttling; from 6.16 on, more than these

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
