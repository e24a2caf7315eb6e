// SPDX-License-Identifier: GPL-2.0-only
// returns.h - saves the arguments of a kernel function until a kretprobe sees it return.
//
// The agent empties the hash before a run, so that every entry belongs to a call of this run.  Only for functions that may
// sleep: those are never called inside of a lock of the hash.

#pragma once

#include "lib/task.h"

struct cb_entered_key {
	u32 tid;
	u32 function; // the number of the program in the unit
};

struct cb_entered {
	u64 with[CB_ENTERED_WITH]; // the hook's parameters that are known at the entry
};
BPF_TABLE("hash", struct cb_entered_key, struct cb_entered, cb_entered, CB_ENTERED_ENTRIES);

// Runs before the run too: a call may begin then, and return in the run.  The kernel follows a limited number of calls of a
// function at once (Debian's 5.10 as many as there are CPUs); the returns of others are not seen.
static __always_inline void cb_enter(struct cb_event *ev, u32 function, struct cb_entered *entered)
{
	struct cb_entered_key key = { .tid = bpf_get_current_pid_tgid(), .function = function };
	bool counts = ev->config->phase == CB_ON;

	if (!cb_entered.insert(&key, entered))
		return;
	counts = counts && cb_current_counts(ev);
	if (cb_entered.update(&key, entered)) {
		if (counts)
			cb_lose_key();
	} else if (counts) {
		cb_lose_return();
	}
}

// Whether the entry of the call that returns was seen; if so, with its parameters.
static __always_inline bool cb_return(u32 function, struct cb_entered *entered)
{
	struct cb_entered_key key = { .tid = bpf_get_current_pid_tgid(), .function = function };
	struct cb_entered *found = cb_entered.lookup(&key);

	if (!found)
		return false;
	*entered = *found;
	cb_entered.delete(&key);
	return true;
}
