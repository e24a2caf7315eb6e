// SPDX-License-Identifier: GPL-2.0-only
// process.h - the main figures of single processes.
//
// The records lie in sets of four slots, so that finding one is an addition.  A process that finds no slot is in the
// modules' own counters only: what these are more than all records is what the agent reports as other processes'.

#pragma once

// struct cb_process is generated from the declarations: tgid, run, begin_ns, end_ns, comm, and a u64 MODULE_COUNTER for
// each Counter that is kept per process.
BPF_F_TABLE("array", u32, struct cb_process, cb_processes, CB_PROCESSES, BPF_F_MMAPABLE);

// The record of a process in which a counted thread was seen; NULL if there is none.
static __always_inline struct cb_process *cb_process_of(struct cb_event *ev, u32 tgid)
{
#pragma unroll
	for (u32 way = 0; way < 4; way++) {
		u32 index = (tgid & (CB_PROCESSES - 1)) ^ way;
		struct cb_process *process = cb_processes.lookup(&index);

		if (process && process->tgid == tgid && process->run == ev->config->run)
			return process;
	}
	return NULL;
}

// A slot for another process: one that this run has not used, or that of the ended process which lived shortest.
static __always_inline struct cb_process *cb_process_slot(struct cb_event *ev, u32 tgid)
{
	u32 chosen = CB_PROCESSES;
	u64 shortest_ns = ~0ULL;

#pragma unroll
	for (u32 way = 0; way < 4; way++) {
		u32 index = (tgid & (CB_PROCESSES - 1)) ^ way;
		struct cb_process *process = cb_processes.lookup(&index);
		u64 lived_ns = ~0ULL;

		if (!process)
			return NULL;
		if (process->run != ev->config->run)
			lived_ns = 0;
		else if (process->end_ns)
			lived_ns = process->end_ns - process->begin_ns;
		if (lived_ns < shortest_ns) {
			shortest_ns = lived_ns;
			chosen = index;
		}
	}
	return cb_processes.lookup(&chosen);
}

// A thread of the process is seen for the first time.
static __always_inline void cb_meet_process(struct cb_event *ev, struct task_struct *thread)
{
	u32 tgid = thread->tgid;
	struct task_struct *leader = thread->group_leader;
	struct cb_process *process = cb_process_of(ev, tgid);

	if (process && !process->end_ns)
		return;
	if (!process) // otherwise the number has a new owner
		process = cb_process_slot(ev, tgid);
	if (!process)
		return;
	__builtin_memset(process, 0, sizeof(*process));
	bpf_probe_read_kernel_str(&process->comm, sizeof(process->comm), leader->comm);
	process->begin_ns = cb_now(ev);
	process->tgid = tgid;
	process->run = ev->config->run;
}

// The record of the current thread's process.  Where no switches are watched, this is where it is met.
static __always_inline struct cb_process *cb_current_process(struct cb_event *ev)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct cb_process *process = cb_process_of(ev, tgid);

	if (process)
		return process;
	cb_meet_process(ev, (struct task_struct *)bpf_get_current_task());
	return cb_process_of(ev, tgid);
}

static __always_inline void cb_rename_process(struct cb_event *ev, struct task_struct *execed)
{
	struct cb_process *process = cb_process_of(ev, execed->tgid);

	if (process)
		bpf_probe_read_kernel_str(&process->comm, sizeof(process->comm), execed->comm);
}

// Its last thread ends.  What it still does on the way is its own.
static __always_inline void cb_process_ends(struct cb_event *ev, u32 tgid)
{
	struct cb_process *process = cb_process_of(ev, tgid);

	if (process)
		process->end_ns = cb_now(ev);
}
