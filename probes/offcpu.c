// SPDX-License-Identifier: GPL-2.0-only
// offcpu.c - time that user threads spent off the CPUs, and why.
//
// Every interval is accounted exactly by its wait key (offcpu.h).  The function of the kernel that a thread was blocked in
// is in its stack.  The stack is walked when the thread is woken: the length of the wait is known then, so that stacks are
// sampled in proportion to time, and waits that began before the run have a stack too.  A walk takes 1.6 us.
//
// A wait as long as the threshold or longer is always walked.  A shorter one is walked with the probability length /
// threshold, and then stands for as much time as the threshold: the sums are right on average, whatever the rhythm.  The
// threshold rises where walks would take more than a small part of a CPU.

#include "offcpu.h"

#define OFFCPU_THRESHOLD_NS 1000000ULL
#define OFFCPU_THRESHOLD_LIMIT_NS (1ULL << 31)
#define OFFCPU_PERIOD_NS 100000000ULL
#define OFFCPU_PERIOD_WALKS 400 // 0.64 % of a CPU
#define OFFCPU_FRAMES 16
// A thread that waits for completions of io_uring: its own frames, and those of its waker, which show what completed.
#define OFFCPU_OWN_FRAMES 10
#define OFFCPU_WAKER_FRAMES (OFFCPU_FRAMES - OFFCPU_OWN_FRAMES)
#define OFFCPU_WAKER_SKIP 4 // this program, and what leads to it

BPF_TABLE("percpu_hash", u32, u64, offcpu_blocked_ns, OFFCPU_BLOCKED_NS_ENTRIES);

// Blocked time of one wait and one stack.
struct offcpu_sampled {
	u64 exact_ns;     // of the waits that were long enough to be walked each
	u64 observed_ns;  // of the shorter ones that were walked
	u64 weight_ns;    // what these stand for
	u64 walks;        // how many they were
	u64 variance_us2; // of weight_ns: the sum of (1 - p) * threshold^2
};

struct offcpu_stack {
	u32 wait;
	u8 pad[4];
	u64 stack; // a hash of its frames; 0: they are not known
};
BPF_TABLE("hash", struct offcpu_stack, struct offcpu_sampled, offcpu_sampled_ns,
	  OFFCPU_SAMPLED_NS_ENTRIES);

struct offcpu_thread {
	u64 begin_ns;
	u32 tid;
	u32 wait;
};
// The least recently used entry is evicted: after a burst of short threads, later ones still get entries of their own.
BPF_TABLE("lru_hash", struct offcpu_thread, u64, offcpu_by_thread_ns, OFFCPU_BY_THREAD_NS_ENTRIES);

struct offcpu_thread_stack {
	u64 begin_ns;
	u32 tid;
	u32 wait;
	u64 stack;
};
BPF_TABLE("lru_hash", struct offcpu_thread_stack, struct offcpu_sampled, offcpu_sampled_by_thread,
	  OFFCPU_SAMPLED_BY_THREAD_ENTRIES);

// The function that blocked is near the end of the stack.
struct offcpu_frames {
	u64 address[OFFCPU_FRAMES]; // innermost first, 0 behind the last
	u64 called; // by the innermost: the scheduler's function, or a lock's; walks leave these out
};
BPF_TABLE("hash", u64, struct offcpu_frames, offcpu_stacks, OFFCPU_STACKS_ENTRIES);
BPF_PERCPU_ARRAY(offcpu_walked, struct offcpu_frames, 1);

struct offcpu_threshold {
	u64 threshold_ns;
	u64 period_ns; // when the present period began
	u32 walks;     // in it
	u32 run;
};
BPF_PERCPU_ARRAY(offcpu_thresholds, struct offcpu_threshold, 1);

// Whether the thread's sleep counts: that of kernel threads is idleness, unless they are in a target.
static __always_inline bool offcpu_wants(struct cb_event *ev, struct cb_task *task)
{
	return !task->kthread || ev->config->target != CB_MACHINE;
}

// Reads whether the current thread's call is a 32-bit one, and its table of descriptors.
static __always_inline void offcpu_read_current(struct offcpu_blocked_task *of,
						struct task_struct *me)
{
	struct files_struct *files = me->files;

	of->compat = cb_is_32bit_call();
	if (files) {
		struct fdtable *table = files->fdt;

		of->descriptors = table->max_fds;
		of->files = table->fd;
	}
}

static __always_inline void offcpu_on_task_blocks(struct cb_event *ev, struct cb_offcpu *offcpu,
						  struct cb_task *task, u32 state)
{
	struct task_struct *me = (struct task_struct *)CB_CURRENT_TASK();
	struct offcpu_blocked_task of = { .regs = task->regs, .state = state };

	if (!offcpu_wants(ev, task))
		return;
	offcpu->block_count++;
	offcpu_read_current(&of, me);
	of.iowait = cb_current_byte(CB_IN_IOWAIT_BYTE);
	task->wait = offcpu_key(&of);
}

// The wait key of a thread that fell asleep before the run.  Its state is no longer known.
static __always_inline u32 offcpu_wait_of(struct cb_task *task, struct task_struct *woken)
{
	struct files_struct *files = woken->files;
	struct offcpu_blocked_task of = { .regs = task->regs };
	struct fdtable *table = NULL;

	of.compat = cb_task_is_in_32bit_call(woken);
	if (files) {
		bpf_probe_read_kernel(&table, sizeof(table), &files->fdt);
		bpf_probe_read_kernel(&of.descriptors, sizeof(of.descriptors), &table->max_fds);
		bpf_probe_read_kernel(&of.files, sizeof(of.files), &table->fd);
	}
	bpf_probe_read_kernel(&of.iowait, sizeof(of.iowait), (void *)woken + CB_IN_IOWAIT_BYTE);
	return offcpu_key(&of);
}

// Whether the current thread wakes another by writing into a file of cgroup v1: it lets go on what is frozen.  Since v6.1 a
// thread freezes in the very sleep that it is in, and nothing else shows how that ended.
static __always_inline bool offcpu_thaws(void)
{
	struct task_struct *me = (struct task_struct *)CB_CURRENT_TASK();
	struct offcpu_blocked_task of = { .regs = (u64)me->stack + CB_REGS_OFFSET };

	if (me->flags & CB_PF_KTHREAD)
		return false;
	offcpu_read_current(&of, me);
	return offcpu_key(&of) >> OFFCPU_FILE_SHIFT == OFFCPU_FILE_CGROUP_V1;
}

// The present threshold of this CPU: lower again after calm periods.
static __always_inline u64 offcpu_threshold(struct cb_event *ev, struct offcpu_threshold *at)
{
	u64 periods = (ev->now_ns - at->period_ns) / OFFCPU_PERIOD_NS;

	if (at->run != ev->config->run) {
		at->run = ev->config->run;
		at->threshold_ns = OFFCPU_THRESHOLD_NS;
	} else if (!periods) {
		return at->threshold_ns;
	} else if (at->walks < OFFCPU_PERIOD_WALKS / 4 || periods > 1) {
		at->threshold_ns >>= periods < 31 ? periods : 31;
		if (at->threshold_ns < OFFCPU_THRESHOLD_NS)
			at->threshold_ns = OFFCPU_THRESHOLD_NS;
	}
	at->walks = 0;
	at->period_ns = ev->now_ns;
	return at->threshold_ns;
}

static __always_inline void offcpu_count_walk(struct cb_event *ev, struct offcpu_threshold *at)
{
	at->walks++;
	if (at->walks < OFFCPU_PERIOD_WALKS || at->threshold_ns >= OFFCPU_THRESHOLD_LIMIT_NS)
		return;
	at->threshold_ns <<= 1;
	at->walks = 0;
	at->period_ns = ev->now_ns;
}

// The stack of a thread that has just been woken, by the hash of its frames; 0 if it is not known.
static __always_inline u64 offcpu_walk(struct cb_event *ev, u32 wait, struct task_struct *woken)
{
	int zero = 0;
	struct offcpu_frames *frames = offcpu_walked.lookup(&zero);
	u64 hash = 0;

	if (!frames)
		return 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < OFFCPU_FRAMES; i++)
		frames->address[i] = 0;
	frames->called = 0;
	if (bpf_get_task_stack(woken, frames->address, sizeof(frames->address), 0) <= 0)
		return 0;
	frames->called = cb_called_before(frames->address[0]);
	if (wait >> OFFCPU_FILE_SHIFT == OFFCPU_FILE_IO_URING)
		bpf_get_stack(ev->ctx, frames->address + OFFCPU_OWN_FRAMES,
			      OFFCPU_WAKER_FRAMES * sizeof(u64), OFFCPU_WAKER_SKIP);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < OFFCPU_FRAMES; i++) {
		hash = (hash ^ frames->address[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	if (!hash)
		hash = 1;
	if (offcpu_stacks.lookup(&hash) || !offcpu_stacks.update(&hash, frames))
		return hash;
	cb_lose_key();
	return 0;
}

static __always_inline void offcpu_add_sample(struct offcpu_sampled *to, u64 ns, u64 threshold_ns)
{
	if (ns >= threshold_ns) {
		__sync_fetch_and_add(&to->exact_ns, ns);
		return;
	}
	__sync_fetch_and_add(&to->observed_ns, ns);
	__sync_fetch_and_add(&to->weight_ns, threshold_ns);
	__sync_fetch_and_add(&to->walks, 1);
	__sync_fetch_and_add(&to->variance_us2, (threshold_ns - ns) / 1000 * (threshold_ns / 1000));
}

static __always_inline void offcpu_sample(struct cb_event *ev, struct cb_task *task,
					  struct task_struct *woken, u64 ns)
{
	int zero = 0;
	struct offcpu_threshold *at = offcpu_thresholds.lookup(&zero);
	struct offcpu_sampled none = {}, *sampled;
	struct offcpu_thread_stack of_thread = { .begin_ns = task->begin_ns,
						 .tid = task->born,
						 .wait = task->wait };
	struct offcpu_stack key = { .wait = task->wait };
	u64 threshold_ns;

	if (!at)
		return;
	threshold_ns = offcpu_threshold(ev, at);
	// with the probability ns / threshold; neither side has more than 64 bits
	if (ns < threshold_ns && (u64)bpf_get_prandom_u32() * threshold_ns >= ns << 32)
		return;
	offcpu_count_walk(ev, at);
	key.stack = offcpu_walk(ev, task->wait, woken);
	sampled = offcpu_sampled_ns.lookup_or_try_init(&key, &none);
	if (sampled)
		offcpu_add_sample(sampled, ns, threshold_ns);
	else
		cb_lose_key();
	if (ev->config->target == CB_MACHINE)
		return;
	of_thread.stack = key.stack;
	sampled = offcpu_sampled_by_thread.lookup_or_try_init(&of_thread, &none);
	if (sampled)
		offcpu_add_sample(sampled, ns, threshold_ns);
}

static __always_inline void offcpu_of_thread(struct cb_task *task, u64 ns)
{
	struct offcpu_thread key = { .begin_ns = task->begin_ns,
				     .tid = task->born,
				     .wait = task->wait };
	u64 none = 0, *blocked = offcpu_by_thread_ns.lookup_or_try_init(&key, &none);

	if (blocked)
		__sync_fetch_and_add(blocked, ns);
}

static __always_inline void offcpu_add(struct cb_event *ev, struct cb_offcpu *offcpu,
				       struct cb_task *task, u64 ns)
{
	struct cb_process *process = cb_process_of(ev, task->tgid);

	offcpu->off_cpu_ns += ns;
	if (process)
		__sync_fetch_and_add(&process->offcpu_off_cpu_ns, ns);
}

static __always_inline void offcpu_on_task_throttled(struct cb_event *ev, struct cb_offcpu *offcpu,
						     struct cb_task *task, u64 ns)
{
	if (!offcpu_wants(ev, task))
		return;
	offcpu_add(ev, offcpu, task, ns);
	offcpu->throttled_wait_ns += ns;
}

static __always_inline void offcpu_on_task_blocked(struct cb_event *ev, struct cb_offcpu *offcpu,
						   struct cb_task *task, struct task_struct *woken,
						   u64 ns)
{
	u64 none = 0, *blocked;
	u32 wait;

	if (!offcpu_wants(ev, task))
		return;
	offcpu_add(ev, offcpu, task, ns);
	offcpu->asleep_ns += ns;
	if (task->wait == CB_WAIT_UNKNOWN)
		task->wait = offcpu_wait_of(task, woken);
	if (ns >= OFFCPU_THRESHOLD_NS &&
	    !(task->wait & (OFFCPU_UNINTERRUPTIBLE | OFFCPU_STOPPED)) && offcpu_thaws())
		task->wait |= OFFCPU_STOPPED;
	wait = task->wait;
	blocked = offcpu_blocked_ns.lookup_or_try_init(&wait, &none);
	if (blocked)
		*blocked += ns;
	else
		cb_lose_key();
	if (ev->config->target != CB_MACHINE)
		offcpu_of_thread(task, ns);
	if (ev->typed)
		offcpu_sample(ev, task, woken, ns);
}

static __always_inline void offcpu_on_task_waited(struct cb_event *ev, struct cb_offcpu *offcpu,
						  struct cb_task *task, u64 ns, bool woken)
{
	if (!offcpu_wants(ev, task))
		return;
	offcpu_add(ev, offcpu, task, ns);
	if (woken)
		offcpu->woken_wait_ns += ns;
	else
		offcpu->preempted_wait_ns += ns;
}
