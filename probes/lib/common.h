// SPDX-License-Identifier: GPL-2.0-only
// common.h - the configuration of the run, the event at hand, and histograms: what every handler uses.
//
// Files in generated/ are written for each unit (chainbench_agent/loading/unit_text.py); `chainbench-agent probes show` prints
// them in their place.

#pragma once

#include "generated/sizes.h"

// The kernel has these as macros and in an enum without a name, so a header tree of the types that are named lacks them.
#ifndef NULL
#define NULL ((void *)0)
#endif
#define false 0
#define true 1

// `index`, or the last entry when it lies beyond.  64 bits wide and behind a barrier, because the verifier loses
// sight of a bound on a value that the compiler widens or checks elsewhere.
static __always_inline u64 cb_clamp(u64 index, u64 entries)
{
	asm volatile("" : "+r"(index));
	return index < entries ? index : entries - 1;
}

// Whether this CPU may change what the counter `claims` guards, until cb_release().  While another CPU may, this one waits a
// moment and looks again.  BPF has no compare-and-swap before Linux v5.12, but it can add and then look: of two CPUs that add,
// never both see 1.
#define CB_CLAIM_ATTEMPTS 2
#define CB_CLAIM_LOOKS 8 // a claim is made in less than a microsecond

static __always_inline bool cb_try_claim(u32 *claims)
{
#pragma clang loop unroll(disable)
	for (u32 attempt = 0; attempt < CB_CLAIM_ATTEMPTS; attempt++) {
		for (u32 look = 0; look < CB_CLAIM_LOOKS && *(volatile u32 *)claims; look++)
			;
		__sync_fetch_and_add(claims, 1);
		if (*(volatile u32 *)claims == 1)
			return true;
		__sync_fetch_and_add(claims, -1);
	}
	return false;
}

static __always_inline void cb_release(u32 *claims)
{
	asm volatile("" ::: "memory");
	__sync_fetch_and_add(claims, -1);
}

enum cb_phase {
	CB_OFF,
	CB_SEEDING, // the agent finds out what is in the target; only follow.h handles events
	CB_ON,
};

// Written by the agent only.  One write of `phase` starts or ends the run for all hooks at once.
struct cb_config {
	u64 started_ns; // no interval begins before this
	u64 cgroup_id;
	u32 run; // state left by another run is never continued
	u32 phase;
	u32 agent[2]; // thread groups whose own work is never counted
	u32 target;   // enum cb_target_kind
	u32 cgroup_level;
	u32 sample_interval; // one in so many of the hottest events is recorded, at random; 1: each
	u32 idle_modules;    // a bit for each module that does not collect in this run
	u32 moves;           // entries of cb_moves; written by the programs
	u32 unused;
};
BPF_ARRAY(cb_config, struct cb_config, 1);

// How many events were lost, by cause; see LOSS_CAUSES in chainbench_agent/kernel/reading/sample_reader.py.
struct cb_loss {
	u64 task_collisions; // no task record was free for a thread
	u64 unseen_switches; // a thread entered or left a CPU, and what came before was not seen
	u64 keys_full;       // a bounded hash had no room for a key
	u64 members_full;    // a process of the target was not followed, or in a cgroup not counted
	u64 returns_missed;  // a function was called, and its return not seen
	u64 locks_full;      // a thread or a CPU held more locks at once than are remembered
	u64 unseen_ends;     // a block request was issued again, and its end was not shown
	u64 moves_unseen; // a thread was moved between cgroups more than once, and not looked at in between
};
BPF_PERCPU_ARRAY(cb_loss, struct cb_loss, 1);

// One hook firing, while a run is on.
struct cb_event {
	void *ctx;
	struct cb_config *config;
	u64 now_ns;
	bool typed; // the verifier knows the types of the arguments: helpers take them (tp_btf)
	bool wakes; // its thread was asleep until now
};

// Whether the module that has this bit collects.
static __always_inline bool cb_collects(struct cb_event *ev, u32 bit)
{
	return !(ev->config->idle_modules & bit);
}

// The time of this event.  An untimed hook reads the clock here.
static __always_inline u64 cb_now(struct cb_event *ev)
{
	return ev->now_ns ? ev->now_ns : bpf_ktime_get_ns();
}

// Gives the event of an untimed hook a time, for the hooks that it raises.
static __always_inline void cb_set_time(struct cb_event *ev)
{
	ev->now_ns = cb_now(ev);
}

// How many events this one stands for; 0: it is not recorded.  Chosen at random, so that no rhythm of the workload can
// bias the result.
static __always_inline u64 cb_weight(struct cb_event *ev)
{
	u32 interval = ev->config->sample_interval;

	if (interval <= 1)
		return 1;
	return bpf_get_prandom_u32() % interval ? 0 : interval;
}

static __always_inline bool cb_is_agent(struct cb_config *config, u32 tgid)
{
	return tgid == config->agent[0] || tgid == config->agent[1];
}

static __always_inline struct cb_loss *cb_lost(void)
{
	int zero = 0;

	return cb_loss.lookup(&zero);
}

static __always_inline void cb_lose_switch(void)
{
	struct cb_loss *loss = cb_lost();

	if (loss)
		loss->unseen_switches++;
}

static __always_inline void cb_lose_member(void)
{
	struct cb_loss *loss = cb_lost();

	if (loss)
		loss->members_full++;
}

static __always_inline void cb_lose_return(void)
{
	struct cb_loss *loss = cb_lost();

	if (loss)
		loss->returns_missed++;
}

static __always_inline void cb_lose_held(void)
{
	struct cb_loss *loss = cb_lost();

	if (loss)
		loss->locks_full++;
}

static __always_inline void cb_lose_end(void)
{
	struct cb_loss *loss = cb_lost();

	if (loss)
		loss->unseen_ends++;
}

static __always_inline void cb_lose_move(void)
{
	struct cb_loss *loss = cb_lost();

	if (loss)
		loss->moves_unseen++;
}

static __always_inline void cb_lose_key(void)
{
	struct cb_loss *loss = cb_lost();

	if (loss)
		loss->keys_full++;
}

// Values are nanoseconds.  Slot 0 holds 0 and 1; a slot's upper bound is inclusive, as Prometheus' `le` is.
// chainbench_agent/abi/histogram.py is the other half of this convention.  Members that every value changes lie before the
// slots: most values are in the first half of the slots, and then one page has all.
struct cb_histogram {
	u64 sum;
	u64 min;
	u64 max;
	u64 run; // the run that min and max belong to
	u64 slots[CB_SLOTS];
};

static __always_inline u32 cb_log2(u64 value)
{
	u32 bits = 0, step;

	step = (value > 0xffffffff) << 5;
	value >>= step;
	bits |= step;
	step = (value > 0xffff) << 4;
	value >>= step;
	bits |= step;
	step = (value > 0xff) << 3;
	value >>= step;
	bits |= step;
	step = (value > 0xf) << 2;
	value >>= step;
	bits |= step;
	step = (value > 0x3) << 1;
	value >>= step;
	bits |= step;
	return bits | (value >> 1);
}

static __always_inline u32 cb_slot(u64 ns)
{
	u64 value = ns ? ns - 1 : 0;
	u32 shift;

	if (value < (1 << CB_SLOT_BITS))
		return value;
	shift = cb_log2(value) - CB_SLOT_BITS;
	return (shift << CB_SLOT_BITS) + (value >> shift);
}

// `weight`: how many events this one stands for (cb_weight()).
static __always_inline void cb_observe_sampled(struct cb_event *ev, struct cb_histogram *histogram,
					       u64 ns, u64 weight)
{
	histogram->slots[cb_clamp(cb_slot(ns), CB_SLOTS)] += weight;
	histogram->sum += ns * weight;
	if (histogram->run != ev->config->run) {
		histogram->run = ev->config->run;
		histogram->min = ns;
		histogram->max = ns;
		return;
	}
	if (ns < histogram->min)
		histogram->min = ns;
	if (ns > histogram->max)
		histogram->max = ns;
}

static __always_inline void cb_observe(struct cb_event *ev, struct cb_histogram *histogram, u64 ns)
{
	cb_observe_sampled(ev, histogram, ns, 1);
}
