// SPDX-License-Identifier: GPL-2.0-only
// target.h - the target of a run: a process with all its descendants, a cgroup with all below it, or the whole machine.
//
// The members of a process tree are a set of thread groups.  The agent adds those that exist when the run begins; later ones
// are added when they are forked, before they run, so that a child that lives for a millisecond is not missed.  A cgroup does
// not need the set; there it only records which processes have been counted.

#pragma once

#include "lib/common.h"

#define CB_EXISTS (-17) // -EEXIST

enum cb_target_kind {
	CB_MACHINE,
	CB_TREE,
	CB_CGROUP,
};

BPF_TABLE("hash", u32, u64, cb_members, CB_MEMBERS);

// The threads that are in the cgroup when the run begins, written by the agent only: where a thread is moved away before it
// has a record, this shows that it was in the target.
BPF_TABLE("hash", u32, u8, cb_seeded, CB_MEMBERS);

// When a process with several threads was last moved as a whole into the target's cgroup or out of it.  The kernel's event
// names only the leader: the other threads are cut at that moment when they are seen next (cb_follow()).
struct cb_move {
	u64 last_ns;
	u64 before_ns; // the move before that
};
BPF_TABLE("hash", u32, struct cb_move, cb_moves, CB_MEMBERS);

// When a process was moved after `since_ns`; 0: no move is known.
static __always_inline u64 cb_moved_after(u32 tgid, u64 since_ns)
{
	struct cb_move *move = cb_moves.lookup(&tgid);

	if (!move || move->last_ns <= since_ns)
		return 0;
	if (move->before_ns > since_ns)
		cb_lose_move();
	return move->last_ns;
}

// How many processes and threads have been in the target.
struct cb_population {
	u64 processes; // of a tree, forked into it; of a cgroup, seen at work
	u64 threads;   // seen at work
};
BPF_PERCPU_ARRAY(cb_population, struct cb_population, 1);

// Adds a process to the target; a process that is added again is not counted again.
static __always_inline void cb_add_member(u32 tgid)
{
	struct cb_population *population;
	u64 one = 1;
	int zero = 0, refused = cb_members.insert(&tgid, &one);

	if (refused == CB_EXISTS)
		return;
	if (refused) {
		cb_lose_member();
		return;
	}
	population = cb_population.lookup(&zero);
	if (population)
		population->processes++;
}

// Whether a cgroup of the hierarchy that the target is in is the target's or below it.
static __always_inline bool cb_is_below(struct cb_config *config, struct cgroup *group)
{
	u32 level = config->cgroup_level;
	void *ancestor;
	u64 id = 0;
	int depth = 0;

	bpf_probe_read_kernel(&depth, sizeof(depth), &group->level);
	if (depth < (int)level)
		return false;
#ifdef CB_HAS_CGROUP_ANCESTORS
	// Linux 7f203bc89eb6 ("cgroup: Replace cgroup->ancestor_ids[] with ->ancestors[]") (in v6.1)
	void *node = NULL;

	bpf_probe_read_kernel(&ancestor, sizeof(ancestor),
			      (void *)group + __builtin_offsetof(struct cgroup, ancestors) +
				      sizeof(void *) * level);
	bpf_probe_read_kernel(&node, sizeof(node),
			      ancestor + __builtin_offsetof(struct cgroup, kn));
	bpf_probe_read_kernel(&id, sizeof(id), node + __builtin_offsetof(struct kernfs_node, id));
#else
	ancestor = (void *)group + __builtin_offsetof(struct cgroup, ancestor_ids);
	bpf_probe_read_kernel(&id, sizeof(id), ancestor + sizeof(id) * level);
#endif
	return id == config->cgroup_id;
}

static __always_inline bool cb_in_cgroup(struct cb_config *config, struct css_set *set)
{
	return cb_is_below(config, set->dfl_cgrp);
}

static __always_inline bool cb_is_member(struct cb_event *ev, struct task_struct *task)
{
	u32 tgid = task->tgid;

	if (cb_is_agent(ev->config, tgid))
		return false;
	if (ev->config->target == CB_MACHINE)
		return true;
	if (ev->config->target == CB_TREE)
		return cb_members.lookup(&tgid) != NULL;
	return cb_in_cgroup(ev->config, task->cgroups);
}
