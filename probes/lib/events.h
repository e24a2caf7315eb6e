// SPDX-License-Identifier: GPL-2.0-only
// events.h - rare, notable events, told as they happen.  Only in a unit that was asked for them: elsewhere cb_tell() is
// nothing at all (loading/unit_text.py).
//
// What a module tells stands in its declaration, `events`; in C a kind is MODULE_EVENT_NAME.

#pragma once

#include "lib/process.h"
#include "generated/event_kinds.h"

struct cb_told {
	u64 at_ns;
	u64 value;
	u32 kind;
	u32 tgid; // 0: of no process, or of an unknown one
	u32 run;
	u32 pad;
	char comm[16];
};
BPF_RINGBUF_OUTPUT(cb_told, CB_TOLD_PAGES);

// Written by the agent only: whether anybody listens.
BPF_ARRAY(cb_listening, u32, 1);

// So many of a kind in a second from each CPU: what is rare stays whole, whatever else there is too much of, and what is
// not rare costs next to nothing.
struct cb_telling {
	u64 second;
	u64 told;         // in that second
	u64 held_back;    // there were more than that; ever
	u64 without_room; // the agent was not fast enough to read; ever
};
BPF_PERCPU_ARRAY(cb_telling, struct cb_telling, CB_TOLD_KINDS);

static __always_inline void cb_tell(struct cb_event *ev, u32 kind, u32 tgid, u64 value)
{
	struct cb_told told = { .value = value, .kind = kind, .tgid = tgid };
	int zero = 0;
	u32 *listening = cb_listening.lookup(&zero);
	struct cb_telling *telling = cb_telling.lookup(&kind);
	struct cb_process *process;

	if (!listening || !*listening || !telling)
		return;
	told.at_ns = cb_now(ev);
	if (telling->second != told.at_ns / 1000000000) {
		telling->second = told.at_ns / 1000000000;
		telling->told = 0;
	}
	if (telling->told >= CB_TOLD_PER_SECOND) {
		telling->held_back++;
		return;
	}
	telling->told++;
	told.run = ev->config->run;
	process = cb_process_of(ev, tgid);
	if (process)
		__builtin_memcpy(told.comm, process->comm, sizeof(told.comm));
	else if (tgid == bpf_get_current_pid_tgid() >> 32)
		bpf_get_current_comm(told.comm, sizeof(told.comm));
	if (cb_told.ringbuf_output(&told, sizeof(told), 0))
		telling->without_room++;
}

static __always_inline void cb_tell_current(struct cb_event *ev, u32 kind, u64 value)
{
	cb_tell(ev, kind, bpf_get_current_pid_tgid() >> 32, value);
}
