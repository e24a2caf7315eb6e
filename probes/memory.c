// SPDX-License-Identifier: GPL-2.0-only
// memory.c - page faults, what the kernel allocates, the OOM killer, and the CPU's own caches.

#include "lib/task.h"
#include "generated/events.h"
#include "generated/memory.h"

// include/linux/slab.h: kfree() takes addresses up to ZERO_SIZE_PTR, and there is nothing to free.
#define MEMORY_ZERO_SIZE_PTR 16

// The originator of an event: a counted thread, an interrupt (which counts for the whole machine only), or another one.
// Interrupts are checked first: they must not touch the record of the thread that they stopped.
enum memory_owner {
	MEMORY_NOBODY,
	MEMORY_INTERRUPT,
	MEMORY_THREAD,
};

static __always_inline enum memory_owner memory_owner(struct cb_event *ev)
{
	if (cb_in_interrupt())
		return ev->config->target == CB_MACHINE ? MEMORY_INTERRUPT : MEMORY_NOBODY;
	return cb_current_counts(ev) ? MEMORY_THREAD : MEMORY_NOBODY;
}

static __always_inline struct cb_process *memory_process(struct cb_event *ev)
{
	return cb_process_of(ev, bpf_get_current_pid_tgid() >> 32);
}

static __always_inline void memory_on_minor_fault(struct cb_event *ev, struct cb_memory *memory)
{
	struct cb_process *process;

	if (!cb_current_counts(ev))
		return;
	memory->page_faults_minor++;
	process = memory_process(ev);
	if (process)
		__sync_fetch_and_add(&process->memory_page_faults_minor, 1);
}

static __always_inline void memory_on_major_fault(struct cb_event *ev, struct cb_memory *memory)
{
	struct cb_process *process;

	if (!cb_current_counts(ev))
		return;
	memory->page_faults_major++;
	process = memory_process(ev);
	if (process)
		__sync_fetch_and_add(&process->memory_page_faults_major, 1);
}

static __always_inline void memory_on_kmalloc(struct cb_event *ev, struct cb_memory *memory,
					      void *object, size_t bytes)
{
	u64 weight = cb_weight(ev), all = weight * bytes;
	enum memory_owner owner;
	struct cb_process *process;

	if (!weight || !object) // NULL: there was no memory
		return;
	owner = memory_owner(ev);
	if (owner == MEMORY_NOBODY)
		return;
	memory->kmalloc_count += weight;
	memory->kmalloc_bytes += all;
	memory->kmalloc_squares += all * bytes;
	process = owner == MEMORY_THREAD ? memory_process(ev) : NULL;
	if (process)
		__sync_fetch_and_add(&process->memory_kmalloc_bytes, all);
}

static __always_inline void memory_on_kfree(struct cb_event *ev, struct cb_memory *memory,
					    void *object)
{
	u64 weight = cb_weight(ev);

	if (weight && (u64)object > MEMORY_ZERO_SIZE_PTR && memory_owner(ev) != MEMORY_NOBODY)
		memory->kfree_count += weight;
}

static __always_inline void memory_on_mm_page_alloc(struct cb_event *ev, struct cb_memory *memory,
						    struct page *page, u32 order)
{
	if (page && memory_owner(ev) != MEMORY_NOBODY)
		memory->page_allocs += 1ULL << (order & 63);
}

// Before Linux 72ba14deb40a ("mm: update mark_victim tracepoints fields") (v6.8, and since then in the stable kernels) only
// the pid of the victim is known.  With a cgroup as target, it then counts only if it was seen running in this run.
static __always_inline void memory_on_mark_victim(struct cb_event *ev, struct cb_memory *memory,
						  struct task_struct *victim, u32 pid)
{
	bool counts;

	if (victim)
		counts = cb_is_member(ev, victim);
	else if (ev->config->target == CB_TREE)
		counts = cb_members.lookup(&pid) != NULL;
	else
		counts = ev->config->target == CB_MACHINE || cb_process_of(ev, pid);
	if (!counts)
		return;
	memory->oom_kills++;
	cb_emit(ev, MEMORY_EVENT_OOM_KILL, victim ? victim->tgid : pid, 0);
}

// ---- PMU counters, read where a counted thread enters a CPU and where it leaves it

#define MEMORY_COUNTERS (MEMORY_COUNTERS_ENTRIES / 3)
#define MEMORY_CPUS 1024 // as in loading/pmu_events.py

// [counter * MEMORY_CPUS + cpu]; the agent puts the perf events here for the time of a run.
BPF_PERF_ARRAY(cb_counter_events, MEMORY_COUNTERS *MEMORY_CPUS);

// The values of this CPU's counters when its present thread entered it.
struct memory_span {
	u32 tid;
	u32 run;
	struct bpf_perf_event_value since[MEMORY_COUNTERS];
};
BPF_PERCPU_ARRAY(memory_span, struct memory_span, 1);

// CB_COUNTERS has a bit for each counter that this machine offers; where it offers none, nothing of this is compiled.
static __always_inline bool memory_read(u32 counter, struct bpf_perf_event_value *value)
{
	u64 index = counter * MEMORY_CPUS + bpf_get_smp_processor_id();

	return (CB_COUNTERS & (1 << counter)) &&
	       !cb_counter_events.perf_counter_value(index, value, sizeof(*value));
}

static __always_inline void memory_enter(struct cb_event *ev, struct cb_task *task)
{
	int zero = 0;
	struct memory_span *span;

	if (!CB_COUNTERS || ev->config->target == CB_MACHINE)
		return;
	span = memory_span.lookup(&zero);
	if (!span)
		return;
	span->tid = task->tid;
	span->run = ev->config->run;
#pragma clang loop unroll(disable)
	for (u32 counter = 0; counter < MEMORY_COUNTERS; counter++)
		memory_read(counter, &span->since[counter]);
}

static __always_inline void memory_on_task_waited(struct cb_event *ev, struct cb_memory *memory,
						  struct cb_task *task, u64 ns, bool woken)
{
	memory_enter(ev, task);
}

static __always_inline void memory_on_task_throttled(struct cb_event *ev, struct cb_memory *memory,
						     struct cb_task *task, u64 ns)
{
	memory_enter(ev, task);
}

static __always_inline void memory_on_task_ran(struct cb_event *ev, struct cb_memory *memory,
					       struct cb_task *task, struct task_struct *prev,
					       u64 ns, bool voluntary)
{
	int zero = 0;
	struct memory_span *span;

	if (!CB_COUNTERS || ev->config->target == CB_MACHINE)
		return;
	span = memory_span.lookup(&zero);
	if (!span)
		return;
	if (task->state == CB_UNSEEN && task->since_ns == ev->config->started_ns) {
		// on this CPU since the run began, when the counters stood at zero
		__builtin_memset(span->since, 0, sizeof(span->since));
	} else if (!ns || span->tid != task->tid || span->run != ev->config->run) {
		return; // it was not seen entering, or others were there since (then sched.h knows of no time)
	}
#pragma clang loop unroll(disable)
	for (u32 counter = 0; counter < MEMORY_COUNTERS; counter++) {
		struct bpf_perf_event_value now = {}, *since = &span->since[counter];

		if (!memory_read(counter, &now))
			continue;
		memory->counters[cb_clamp(counter, MEMORY_COUNTERS_ENTRIES)] +=
			now.counter - since->counter;
		memory->counters[cb_clamp(MEMORY_COUNTERS + counter, MEMORY_COUNTERS_ENTRIES)] +=
			now.enabled - since->enabled;
		memory->counters[cb_clamp(2 * MEMORY_COUNTERS + counter,
					  MEMORY_COUNTERS_ENTRIES)] += now.running - since->running;
	}
	span->tid = 0;
	span->run = ev->config->run;
}
