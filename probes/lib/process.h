// SPDX-License-Identifier: GPL-2.0-only
// process.h - the main figures of single processes.
//
// The records lie in sets of four, so that finding one is an addition; processes that are born one after the other are in
// different sets.  A process without a record is counted in the modules' sums only: the difference between these and all
// records is reported as that of other processes.

#pragma once

#include "lib/common.h"
#include "generated/process.h"

#define CB_PROCESS_SETS (CB_PROCESSES / 4)

// struct cb_process is written from the declarations (loading/process_records.py): tgid, run, begin_ns, end_ns, comm, and a
// u64 MODULE_COUNTER for each Counter that is per process.
BPF_F_TABLE("array", u32, struct cb_process, cb_processes, CB_PROCESSES, BPF_F_MMAPABLE);

// How many CPUs are about to claim a record of a set.
BPF_ARRAY(cb_process_claims, u32, CB_PROCESS_SETS);

// After this time no other CPU still adds anything to the record of an ended process.
#define CB_PROCESS_GRACE_NS 1000000

static __always_inline struct cb_process *cb_process_at(u32 tgid, u32 way)
{
	u32 index = (tgid + way * CB_PROCESS_SETS) & (CB_PROCESSES - 1);

	return cb_processes.lookup(&index);
}

// The record of a process of which a counted thread was seen; NULL if it has none.
static __always_inline struct cb_process *cb_process_of(struct cb_event *ev, u32 tgid)
{
#pragma clang loop unroll(disable)
	for (u32 way = 0; way < 4; way++) {
		struct cb_process *process = cb_process_at(tgid, way);

		if (process && process->tgid == tgid && process->run == ev->config->run)
			return process;
	}
	return NULL;
}

// The record of the set that a new process gets: that of the former owner of its number, one that this run has not used,
// or that of the ended process with the shortest life; 4 if all are in use.
static __always_inline u32 cb_process_way(struct cb_event *ev, u32 tgid)
{
	u64 now_ns = cb_now(ev), shortest_ns = ~0ULL;
	u32 chosen = 4;

#pragma clang loop unroll(disable)
	for (u32 way = 0; way < 4; way++) {
		struct cb_process *process = cb_process_at(tgid, way);
		u64 lived_ns = ~0ULL;

		if (!process)
			return 4;
		if (process->run != ev->config->run)
			lived_ns = 0;
		else if (process->tgid == tgid)
			return way;
		else if (process->end_ns && now_ns > process->end_ns + CB_PROCESS_GRACE_NS)
			lived_ns = process->end_ns - process->begin_ns;
		if (lived_ns < shortest_ns) {
			shortest_ns = lived_ns;
			chosen = way;
		}
	}
	return chosen;
}

// Only for the CPU that has claimed the set: see cb_process_claims.
static __always_inline struct cb_process *cb_claim_process(struct cb_event *ev, u32 tgid,
							   struct task_struct *leader)
{
	u32 way = cb_process_way(ev, tgid);
	struct cb_process *process = way < 4 ? cb_process_at(tgid, way) : NULL;

	// another CPU may have been faster with the same process
	if (!process ||
	    (process->tgid == tgid && process->run == ev->config->run && !process->end_ns))
		return process;
	process->tgid = 0; // from now on its former owner does not find it
	asm volatile("" ::: "memory");
	__builtin_memset(process, 0, sizeof(*process));
	bpf_probe_read_kernel_str(&process->comm, sizeof(process->comm), leader->comm);
	process->begin_ns = cb_now(ev);
	process->run = ev->config->run;
	asm volatile("" ::: "memory");
	process->tgid = tgid;
	return process;
}

// The record of the process of a thread, a new one if it had none; NULL if its set has no room.
static __always_inline struct cb_process *cb_get_or_add_process(struct cb_event *ev,
								struct task_struct *thread)
{
	u32 tgid = thread->tgid;
	int set = tgid & (CB_PROCESS_SETS - 1);
	struct task_struct *leader = thread->group_leader;
	struct signal_struct *signal = thread->signal;
	struct cb_process *process = cb_process_of(ev, tgid);
	u32 *claims;

	// an ended record is this process's while its last thread ends; otherwise the number has a new owner
	if (process && (!process->end_ns || signal->live.counter == 0))
		return process;
	claims = cb_process_claims.lookup(&set);
	// without the claim, this event is counted with the processes without a record; the next one tries again
	if (!claims || !cb_try_claim(claims))
		return NULL;
	process = cb_claim_process(ev, tgid, leader);
	cb_release(claims);
	return process;
}

// The record of the process that makes a system call, a new one if it had none: it may run since before the run began.
static __always_inline struct cb_process *cb_current_process(struct cb_event *ev)
{
	struct cb_process *process = cb_process_of(ev, bpf_get_current_pid_tgid() >> 32);

	if (process && !process->end_ns)
		return process;
	return cb_get_or_add_process(ev, (struct task_struct *)bpf_get_current_task());
}

static __always_inline void cb_rename_process(struct cb_event *ev, struct task_struct *thread,
					      const char *comm)
{
	struct cb_process *process = cb_process_of(ev, thread->tgid);

	if (process)
		bpf_probe_read_kernel_str(&process->comm, sizeof(process->comm), comm);
}

// The last thread of a process ends.  All that this thread still does counts for the process.
static __always_inline void cb_process_ends(struct cb_event *ev, u32 tgid)
{
	struct cb_process *process = cb_process_of(ev, tgid);

	if (process)
		process->end_ns = cb_now(ev);
}
