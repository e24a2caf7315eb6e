// SPDX-License-Identifier: GPL-2.0-only
// offcpu.c - time that user threads spent off the CPUs, and why.
//
// Every interval is accounted exactly by what the thread was blocked in: the system call, read from the user
// registers saved at the top of its kernel stack, and whether a signal could have woken it.  To name the blocking
// function as well takes a stack walk of over a microsecond, so a walk is made for the first blocks of a kind in a
// run and one in OFFCPU_SAMPLING later.

#define OFFCPU_NO_SYSCALL 511 // a page fault or another exception
#define OFFCPU_UNINTERRUPTIBLE 512
#define OFFCPU_FIRST 16
#define OFFCPU_SAMPLING 64

struct offcpu_stack {
	u32 wait;
	s32 stack;
};
BPF_TABLE("hash", struct offcpu_stack, u64, offcpu_sampled_ns, OFFCPU_SAMPLED_NS_ENTRIES);

struct offcpu_thread {
	u64 begin_ns;
	u32 tid;
	u32 wait;
};
// What was used longest ago makes room: a storm of short threads does not keep those after it from being told apart.
BPF_TABLE("lru_hash", struct offcpu_thread, u64, offcpu_by_thread_ns, OFFCPU_BY_THREAD_NS_ENTRIES);

// The function that blocked is near the end of the stack; all 127 frames would take four times the memory.
struct offcpu_frames {
	u64 address[32];
};
BPF_TABLE("stacktrace", int, struct offcpu_frames, offcpu_stacks, OFFCPU_STACKS_ENTRIES);

// The sleep of kernel threads is idleness, unless they are what is asked about.
static __always_inline bool offcpu_wants(struct cb_event *ev, struct cb_task *task)
{
	return !task->kthread || ev->config->target != CB_MACHINE;
}

static __always_inline u32 offcpu_wait(struct cb_task *task, u32 state)
{
	u64 number = OFFCPU_NO_SYSCALL;

	if (task->regs)
		bpf_probe_read_kernel(&number, sizeof(number),
				      (void *)task->regs + CB_SYSCALL_OFFSET);
	if (number > OFFCPU_NO_SYSCALL)
		number = OFFCPU_NO_SYSCALL;
	return number | (state & CB_TASK_UNINTERRUPTIBLE ? OFFCPU_UNINTERRUPTIBLE : 0);
}

static __always_inline void offcpu_on_task_blocks(struct cb_event *ev, struct cb_offcpu *offcpu,
						  struct cb_task *task, u32 state)
{
	u64 wait, nth, run;

	if (!offcpu_wants(ev, task))
		return;
	task->wait = offcpu_wait(task, state);
	task->stack = CB_NO_STACK;
	wait = cb_clamp(task->wait, OFFCPU_BLOCK_COUNTS_ENTRIES);
	offcpu->block_counts[wait]++;
	run = (u64)ev->config->run << 32;
	nth = offcpu->nth_in_run[wait];
	nth = (nth & 0xffffffff00000000) == run ? nth + 1 : run;
	offcpu->nth_in_run[wait] = nth;
	nth &= 0xffffffff;
	if (nth < OFFCPU_FIRST || nth % OFFCPU_SAMPLING == 0) {
		task->stack = offcpu_stacks.get_stackid(ev->ctx, 0);
		// another stack has its place: without the first frame, which is this program's, it gets another one
		if (task->stack == CB_EXISTS)
			task->stack = offcpu_stacks.get_stackid(ev->ctx, 1);
	}
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
						   struct cb_task *task, u64 ns)
{
	struct offcpu_stack key = {};
	u64 none = 0, *sampled;

	if (!offcpu_wants(ev, task))
		return;
	offcpu_add(ev, offcpu, task, ns);
	if (task->wait == CB_WAIT_UNKNOWN) // it fell asleep before the run
		task->wait = offcpu_wait(task, 0);
	offcpu->blocked_ns[cb_clamp(task->wait, OFFCPU_BLOCKED_NS_ENTRIES)] += ns;
	if (ev->config->target != CB_MACHINE)
		offcpu_of_thread(task, ns);
	if (task->stack < 0)
		return;
	key.wait = task->wait;
	key.stack = task->stack;
	sampled = offcpu_sampled_ns.lookup_or_try_init(&key, &none);
	if (sampled)
		__sync_fetch_and_add(sampled, ns);
	else
		cb_lose_key();
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
