// SPDX-License-Identifier: GPL-2.0-only
// block.h - the state machine of a block request; it turns block events into latencies.
//
//      block_rq_insert             block_rq_issue             block_rq_complete (of the last part)
//   --------------------> QUEUED -----------------> ISSUED ------------------------------------> (forgotten)
//                           |                         |
//                           | block_rq_merge          | block_rq_requeue
//                           v                         v
//                      (forgotten)               (forgotten)
//
// Where no scheduler or software queue held it, it begins with its issue.  Raised, for modules to handle:
//   request_queued (issued, after it was held), request_issued, request_requeued (the device gave it back),
//   request_done, request_unmatched (completed, but not issued in this run), request_passed_through (no I/O).
//
// A bio on a disk that takes bios is ISSUED from block_bio_queue to block_bio_complete, and raises the same.

#pragma once

#include "lib/task.h"
#include "machines/request.h"
#include "generated/raised.h"

// ---- the owner

// How many threads of a cgroup, and sets of threads, are looked at.  If there are more, the owner is unknown.  The verifier
// follows each step; verifiers that are too old to load a thread's members directly take longer with each.
#ifdef CB_HAS_CURRENT_TASK_BTF
#define BLOCK_STEPS 128
#else
#define BLOCK_STEPS 32
#endif
// How long the answer is used again: for a busy disk the threads would be looked at thousands of times a second.
#define BLOCK_CGROUP_NS 10000000

struct block_cgroup {
	u64 until_ns;
	u64 note;
};
BPF_TABLE("lru_hash", u64, struct block_cgroup, cb_block_cgroups, 256);

// The position of the walk over a cgroup's threads.  It is in a map because the verifier follows every value that it knows:
// with values that it does not know, it looks at one step only.
struct block_walk {
	struct list_head *sets; // of the threads that are in the same cgroups
	struct list_head *place;
	struct list_head *threads; // of a set; NULL: the next set is to be taken
	struct list_head *thread;
	struct css_set *set;
	u64 ours;
	u64 others;
	u32 only;   // the target's process that was seen; 0: none yet
	u32 shared; // several of the target's processes were seen
};
BPF_PERCPU_ARRAY(cb_block_walk, struct block_walk, 1);

static __always_inline struct list_head *block_next(struct list_head *entry)
{
	struct list_head *next = NULL;

	bpf_probe_read_kernel(&next, sizeof(next), &entry->next);
	return next;
}

static __always_inline bool block_counts(struct cb_event *ev, struct css_set *set, u32 tgid)
{
	struct cgroup *group = NULL;

	if (cb_is_agent(ev->config, tgid))
		return false;
	if (ev->config->target == CB_TREE)
		return cb_members.lookup(&tgid) != NULL;
	bpf_probe_read_kernel(&group, sizeof(group), &set->dfl_cgrp);
	return cb_is_below(ev->config, group);
}

// Whether there is more to walk.
static __always_inline bool block_step(struct cb_event *ev, struct block_walk *walk)
{
	enum cgroup_subsys_id controller = io_cgrp_id;
	u32 tgid = 0;

	if (!walk->threads) {
		walk->place = block_next(walk->place);
		if (!walk->place || walk->place == walk->sets)
			return false;
		walk->set = (void *)walk->place - __builtin_offsetof(struct css_set, e_cset_node) -
			    controller * sizeof(struct list_head);
		walk->thread = walk->threads = &walk->set->tasks;
	}
	walk->thread = block_next(walk->thread);
	if (!walk->thread || walk->thread == walk->threads) {
		walk->threads = NULL;
		return true;
	}
	bpf_probe_read_kernel(&tgid, sizeof(tgid),
			      (void *)walk->thread -
				      __builtin_offsetof(struct task_struct, cg_list) +
				      __builtin_offsetof(struct task_struct, tgid));
	if (!block_counts(ev, walk->set, tgid)) {
		walk->others++;
		return true;
	}
	walk->ours++;
	walk->shared |= walk->only && walk->only != tgid;
	walk->only = tgid;
	return true;
}

// The owner of the threads that do their I/O as this cgroup: the target, others, or both.  The kernel may move the threads
// meanwhile: every read is safe, and the walk ends after BLOCK_STEPS.
static __always_inline u64 block_note_of_threads(struct cb_event *ev, struct cgroup *group)
{
	enum cgroup_subsys_id controller = io_cgrp_id;
	int zero = 0;
	struct block_walk *walk = cb_block_walk.lookup(&zero);
	bool more = true;

	if (!walk)
		return cb_note(CB_OWNER_UNKNOWN, CB_UNATTRIBUTED_SHARED_CGROUP);
	__builtin_memset(walk, 0, sizeof(*walk));
	walk->sets = walk->place = (void *)group + __builtin_offsetof(struct cgroup, e_csets) +
				   controller * sizeof(struct list_head);
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < BLOCK_STEPS && more; step++) {
		// without this, clang merges the loop with the code before it, which v5.10 refuses
		asm volatile("" ::: "memory");
		more = block_step(ev, walk);
	}
	if (walk->place == walk->sets && walk->ours && !walk->others)
		return cb_note(CB_OWNER_TARGET, walk->shared ? 0 : walk->only) | CB_BIO_BY_CGROUP;
	if (walk->place == walk->sets && walk->others && !walk->ours)
		return cb_note(CB_OWNER_OTHER, 0);
	return cb_note(CB_OWNER_UNKNOWN, CB_UNATTRIBUTED_SHARED_CGROUP);
}

// Whether a cgroup is of the hierarchy that targets are in: ids of cgroups are unique only within a hierarchy.
static __always_inline bool block_may_be_target(struct cgroup *group)
{
	struct task_struct *current_task = (struct task_struct *)bpf_get_current_task();
	struct css_set *set = current_task->cgroups;
	struct cgroup *own = set->dfl_cgrp;
	struct cgroup_root *targets = NULL, *root = NULL;

	bpf_probe_read_kernel(&targets, sizeof(targets), &own->root);
	bpf_probe_read_kernel(&root, sizeof(root), &group->root);
	return root == targets;
}

// The note on a bio that is accounted to a cgroup below the root.
static __always_inline u64 block_note_of_cgroup(struct cb_event *ev, struct cgroup *group)
{
	struct block_cgroup *known, answer = {};
	u64 key = (u64)group + ((u64)ev->config->run << 48);
	u64 now_ns = cb_now(ev);

	known = cb_block_cgroups.lookup(&key);
	if (known && known->until_ns > now_ns)
		return known->note;
	answer.until_ns = now_ns + BLOCK_CGROUP_NS;
	answer.note = ev->config->target == CB_CGROUP && block_may_be_target(group) &&
				      cb_is_below(ev->config, group)
			      ? cb_note(CB_OWNER_TARGET, 0) | CB_BIO_BY_CGROUP
			      : block_note_of_threads(ev, group);
	cb_block_cgroups.update(&key, &answer);
	return answer.note;
}

// The reason why the owner is unknown of a bio that a kernel thread submits.
static __always_inline u32 block_cause(char *errand, u32 flags)
{
	enum req_flag_bits meta = __REQ_META;

	if (errand[0] == 'f' && errand[1] == 'l' && errand[2] == 'u' && errand[3] == 's' &&
	    errand[4] == 'h' && errand[5] == '-')
		return CB_UNATTRIBUTED_WRITEBACK;
	if (errand[0] == 'k' && errand[1] == 's' && errand[2] == 'w' && errand[3] == 'a' &&
	    errand[4] == 'p' && errand[5] == 'd')
		return CB_UNATTRIBUTED_RECLAIM;
	if (errand[0] == 'j' && errand[1] == 'b' && errand[2] == 'd' && errand[3] == '2')
		return CB_UNATTRIBUTED_JOURNAL;
	return flags & (1U << meta) ? CB_UNATTRIBUTED_JOURNAL : CB_UNATTRIBUTED_WORKER;
}

static __always_inline bool block_is_loop(char *errand)
{
	return errand[0] == 'l' && errand[1] == 'o' && errand[2] == 'o' && errand[3] == 'p' &&
	       errand[4] >= '0' && errand[4] <= '9';
}

// A bio that a kernel thread submits may be made of another one whose owner is known: the note on that; 0: it is not.
static __always_inline u64 block_inherited(struct cb_event *ev, struct bio *bio)
{
	struct bio_vec *pages = NULL;
	u64 by = cb_find_note(ev, cb_remapped_key(bio));

	if (by) {
		cb_drop_note(ev, cb_remapped_key(bio));
		return by;
	}
	bpf_probe_read_kernel(&pages, sizeof(pages), &bio->bi_io_vec);
	return pages ? cb_find_note(ev, (u64)pages) : 0;
}

static __always_inline u64 block_note_of_worker(struct cb_event *ev, struct bio *bio,
						struct task_struct *worker)
{
	char errand[CB_ERRAND_BYTES] = {};
	struct cgroup *group;
	u32 flags = 0;
	int depth = 0;

	cb_read_errand(errand, worker);
	if (block_is_loop(
		    errand)) // it works as the cgroup whose request it has, which is counted already
		return cb_note(CB_OWNER_UNKNOWN, CB_UNATTRIBUTED_BELOW_LOOP);
	group = cb_bio_cgroup(bio);
	if (group)
		bpf_probe_read_kernel(&depth, sizeof(depth), &group->level);
	if (depth)
		return block_note_of_cgroup(ev, group);
	bpf_probe_read_kernel(&flags, sizeof(flags), &bio->bi_opf);
	return cb_note(CB_OWNER_UNKNOWN, block_cause(errand, flags));
}

// The note on a bio that the current thread submits.
static __always_inline u64 block_note(struct cb_event *ev, struct bio *bio)
{
	struct task_struct *current_task = (struct task_struct *)CB_CURRENT_TASK();
	bool worker = current_task->flags & CB_PF_KTHREAD;
	u64 by = worker ? block_inherited(ev, bio) : 0;

	if (by)
		return by & ~CB_BIO_RECORD;
	if (cb_current_counts(ev)) {
		cb_current_process(ev); // so that it has a record when the request is done
		return cb_note(CB_OWNER_TARGET, bpf_get_current_pid_tgid() >> 32);
	}
	return worker ? block_note_of_worker(ev, bio, current_task) : cb_note(CB_OWNER_OTHER, 0);
}

// A bio is too large for one request: the part that is cut off is a bio that no thread submits.  A disk that takes bios may
// continue with the rest of the same bio instead.
static __always_inline void block_on_block_split(struct cb_event *ev, struct bio *bio)
{
	struct bio *whole = bio->bi_private; // bio_chain() made it the parent
	u64 by = cb_find_note(ev, (u64)whole);
	u64 sector = 0;

	if (by) {
		cb_store_note(ev, (u64)bio, by & ~CB_BIO_RECORD);
		return;
	}
	by = cb_find_note(ev, (u64)bio);
	if (!(by & CB_BIO_RECORD))
		return;
	bpf_probe_read_kernel(&sector, sizeof(sector), &bio->bi_iter.bi_sector);
	cb_store_note(ev, cb_sector_key(cb_disk_number(cb_bio_disk(bio)), sector),
		      by & ~CB_BIO_RECORD);
}

// A request may hold bios of several submitters: the first one is its owner.  With the machine as target, all requests count
// but the agent's own.
static __always_inline void block_attribute(struct cb_event *ev, struct cb_request *request,
					    struct bio *bio)
{
	u64 by = cb_find_note(ev, (u64)bio);

	if (!by && ev->config->target == CB_MACHINE)
		by = cb_note(CB_OWNER_TARGET, 0);
	else if (!by)
		by = cb_note(CB_OWNER_UNKNOWN,
			     bio ? CB_UNATTRIBUTED_UNSEEN : CB_UNATTRIBUTED_FLUSH);
	request->owner = cb_bio_owner(by);
	request->who = cb_bio_who(by);
	request->by_cgroup = !!(by & CB_BIO_BY_CGROUP);
}

// ---- requests

static __always_inline struct cb_request *block_record(void *rq)
{
	struct cb_request *request = cb_find_request(rq);

	if (!request)
		request = cb_claim_request(rq);
	if (!request)
		cb_lose_key();
	return request;
}

// Whether a request is a command that is passed through to the device, such as the question whether a drive has a medium: it
// is neither a read nor a write, whatever bytes it has.  The kernel does not count it as I/O either.
static __always_inline bool block_is_command(u32 flags)
{
	return (flags & CB_REQ_OP_MASK) >= CB_REQ_OP_COMMANDS;
}

// The end of a request was missed: it is not in flight any more.
static __always_inline void block_lose_end(struct cb_event *ev, struct cb_request *request)
{
	cb_lose_end();
	cb_raise_request_requeued(ev, request);
}

static __always_inline void block_on_block_rq_insert(struct cb_event *ev, struct request *rq)
{
	struct cb_request *request;

	if (block_is_command(rq->cmd_flags))
		return;
	request = block_record(rq);
	if (request)
		request->inserted_ns = ev->now_ns;
}

// The request has become a part of another one.
static __always_inline void block_on_block_rq_merge(struct cb_event *ev, struct request *rq)
{
	struct cb_request *request = cb_find_request(rq);

	if (request)
		cb_forget_request(request);
}

static __always_inline void block_on_block_rq_issue(struct cb_event *ev, struct request *rq)
{
	struct cb_request *request;
	struct cb_request_head head;

	cb_read_head(&head, rq);
	if (block_is_command(head.flags))
		return;
	request = block_record(rq);
	if (!request)
		return;
	if (request->issued_ns)
		block_lose_end(ev, request);
	request->issued_ns = ev->now_ns;
	request->bytes = head.bytes;
	request->disk = cb_disk_index(head.device);
	request->operation = head.flags & CB_REQ_OP_MASK;
	block_attribute(ev, request, head.bio);
	if (request->inserted_ns)
		cb_raise_request_queued(ev, request, ev->now_ns - request->inserted_ns);
	cb_raise_request_issued(ev, request);
}

// The request will be issued again.  Some drivers give it back before its issue: then it is held as before.
static __always_inline void block_on_block_rq_requeue(struct cb_event *ev, struct request *rq)
{
	struct cb_request *request = cb_find_request(rq);

	if (!request || !request->issued_ns)
		return;
	cb_raise_request_requeued(ev, request);
	cb_forget_request(request);
}

static __always_inline void block_on_block_rq_complete(struct cb_event *ev, struct request *rq,
						       u32 nr_bytes)
{
	struct cb_request *request;

	if (nr_bytes < rq->__data_len)
		return; // a part of it; the rest completes later
	request = cb_find_request(rq);
	if (request && request->issued_ns)
		cb_raise_request_done(ev, request, ev->now_ns - request->issued_ns);
	else if (block_is_command(rq->cmd_flags))
		cb_raise_request_passed_through(ev);
	else
		cb_raise_request_unmatched(ev);
	if (request)
		cb_forget_request(request);
}

// ---- bios on a disk that takes them

static __always_inline void block_bio_begins(struct cb_event *ev, struct bio *bio,
					     struct gendisk *disk, u64 note)
{
	u32 device = cb_disk_number(disk), flags = 0;
	struct cb_request *request = block_record(bio);
	struct bio_vec *pages = NULL;
	struct bvec_iter iter = {};

	if (!request)
		return;
	if (request->issued_ns)
		block_lose_end(ev, request);
	bpf_probe_read_kernel(&flags, sizeof(flags), &bio->bi_opf);
	bpf_probe_read_kernel(&iter, sizeof(iter), &bio->bi_iter);
	bpf_probe_read_kernel(&pages, sizeof(pages), &bio->bi_io_vec);
	if (pages)
		cb_store_note(ev, (u64)pages, note);
	request->disk = cb_disk_index(device);
	if (iter.bi_size && request->disk < CB_DISKS)
		cb_store_note(ev, cb_sector_key(device, iter.bi_sector), note);
	request->issued_ns = ev->now_ns;
	request->bytes = iter.bi_size;
	request->takes_bios = 1;
	request->operation = flags & CB_REQ_OP_MASK;
	request->owner = cb_bio_owner(note);
	request->who = cb_bio_who(note);
	request->by_cgroup = !!(note & CB_BIO_BY_CGROUP);
	request->stacked = cb_disk_is_stacked(disk) ? CB_STACKED : 0;
	request->sector = iter.bi_sector;
	request->pages = (u64)pages;
	cb_raise_request_issued(ev, request);
}

static __always_inline void block_on_block_bio_queue(struct cb_event *ev, struct bio *bio)
{
	u64 note = block_note(ev, bio);

	if (!cb_goes_as_bio(bio)) {
		cb_store_note(ev, (u64)bio, note);
		return;
	}
	cb_set_time(ev);
	cb_store_note(ev, (u64)bio, note | CB_BIO_RECORD);
	block_bio_begins(ev, bio, cb_bio_disk(bio), note);
}

// The bio has ended on this disk.
static __always_inline void block_forget_bio(struct cb_event *ev, struct cb_request *request)
{
	int index = request->disk;
	struct cb_disk *disk = cb_disks.lookup(&index);

	if (request->pages)
		cb_drop_note(ev, request->pages);
	if (disk && request->bytes)
		cb_drop_note(ev, cb_sector_key(disk->device, request->sector));
	cb_forget_request(request);
}

// A bio that became a request ends with it, and does not come here.
static __always_inline void block_on_block_bio_complete(struct cb_event *ev, struct bio *bio)
{
	struct cb_request *request;

	if (!(cb_find_note(ev, (u64)bio) & CB_BIO_RECORD))
		return;
	cb_drop_note(ev, (u64)bio);
	request = cb_find_request(bio);
	if (!request)
		return;
	cb_set_time(ev);
	cb_raise_request_done(ev, request, ev->now_ns - request->issued_ns);
	block_forget_bio(ev, request);
}

// The disk hands on the same bio: this disk does not see where it ends.
static __always_inline void block_hand_on(struct cb_event *ev, struct bio *bio, u64 note)
{
	struct cb_request *request = cb_find_request(bio);

	cb_store_note(ev, (u64)bio, note & ~CB_BIO_RECORD);
	if (!request)
		return;
	cb_set_time(ev);
	request->stacked |= CB_HANDED_ON;
	cb_raise_request_requeued(ev, request);
	block_forget_bio(ev, request);
}

// A bio that was submitted to one disk, or a part of it, is handed to another: maybe as another bio, by another thread.
static __always_inline void block_on_block_bio_remap(struct cb_event *ev, struct bio *bio,
						     u32 device, u64 sector)
{
	struct task_struct *current_task = (struct task_struct *)bpf_get_current_task();
	u64 note;

	if (cb_known_disk(device) == CB_DISKS) // a partition, or a disk that was not seen
		return;
	note = cb_find_note(ev, (u64)bio);
	if (note & CB_BIO_RECORD) {
		block_hand_on(ev, bio, note);
		return;
	}
	if (!(current_task->flags & CB_PF_KTHREAD))
		return;
	note = cb_find_note(ev, cb_sector_key(device, sector));
	if (note) // until the thread submits it, which comes next
		cb_store_note(ev, cb_remapped_key(bio), note);
}
