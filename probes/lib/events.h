// SPDX-License-Identifier: GPL-2.0-only
// events.h - emits rare, notable events as they happen.
//
// A unit that emits no events has an empty macro instead of cb_emit() (loading/event_records.py).  The declaration of a module
// names its events; in C a kind is MODULE_EVENT_NAME.

#pragma once

#include "lib/process.h"
#include "generated/event_kinds.h"

struct cb_event_record {
	u64 at_ns;
	u64 value;
	u32 kind;
	u32 tgid; // 0: no process, or an unknown one
	u32 run;
	u32 pad;
	char comm[16];
};
BPF_RINGBUF_OUTPUT(cb_event_records, CB_EVENT_PAGES);

// Written by the agent only: whether anybody listens.
BPF_ARRAY(cb_listening, u32, 1);

// Each CPU emits at most CB_EVENTS_PER_SECOND of a kind: a flood of one kind does not drop rare events of others, and costs
// next to nothing.
struct cb_event_count {
	u64 second;
	u64 emitted;      // in that second
	u64 held_back;    // beyond the limit, since the unit was loaded
	u64 without_room; // dropped because the agent read too slowly, since the unit was loaded
};
BPF_PERCPU_ARRAY(cb_event_counts, struct cb_event_count, CB_EVENT_KINDS);

static __always_inline void cb_emit(struct cb_event *ev, u32 kind, u32 tgid, u64 value)
{
	struct cb_event_record record = { .value = value, .kind = kind, .tgid = tgid };
	int zero = 0;
	u32 *listening = cb_listening.lookup(&zero);
	struct cb_event_count *count = cb_event_counts.lookup(&kind);
	struct cb_process *process;

	if (!listening || !*listening || !count)
		return;
	record.at_ns = cb_now(ev);
	if (count->second != record.at_ns / 1000000000) {
		count->second = record.at_ns / 1000000000;
		count->emitted = 0;
	}
	if (count->emitted >= CB_EVENTS_PER_SECOND) {
		count->held_back++;
		return;
	}
	count->emitted++;
	record.run = ev->config->run;
	process = cb_process_of(ev, tgid);
	if (process)
		__builtin_memcpy(record.comm, process->comm, sizeof(record.comm));
	else if (tgid == bpf_get_current_pid_tgid() >> 32)
		bpf_get_current_comm(record.comm, sizeof(record.comm));
	if (cb_event_records.ringbuf_output(&record, sizeof(record), 0))
		count->without_room++;
}

static __always_inline void cb_emit_current(struct cb_event *ev, u32 kind, u64 value)
{
	cb_emit(ev, kind, bpf_get_current_pid_tgid() >> 32, value);
}
