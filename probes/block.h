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
// It begins with its issue where no scheduler or software queue held it.  Raised, for modules to handle:
//   request_queued (issued, after it was held), request_issued, request_requeued (the device gave it back),
//   request_done, request_unmatched (completed, but not issued in this run).

#pragma once

static __always_inline void block_on_block_bio_queue(struct cb_event *ev, struct bio *bio)
{
	struct task_struct *current_task = (struct task_struct *)bpf_get_current_task();
	u64 owner = CB_OWNER_OTHER;
	u32 tgid = 0;

	if (cb_current_counts(ev)) {
		owner = CB_OWNER_TARGET;
		tgid = bpf_get_current_pid_tgid() >> 32;
		cb_current_process(ev); // so that it has a record when the request is done
	} else if (current_task->flags & CB_PF_KTHREAD) {
		owner = CB_OWNER_UNKNOWN;
	}
	cb_note_bio(ev, bio, owner, tgid);
}

// A bio that is too large for one request: the part that is cut off is a bio which nobody submits.
static __always_inline void block_on_block_split(struct cb_event *ev, struct bio *bio)
{
	struct bio *whole = bio->bi_private; // bio_chain() made it the parent
	u64 by = cb_find_bio(ev, whole);

	if (by)
		cb_note_bio(ev, bio, cb_bio_owner(by), cb_bio_tgid(by));
}

// A request may hold bios of several submitters: the first one's it is.  All are the machine's but the agent's own.
static __always_inline void block_attribute(struct cb_event *ev, struct cb_request *request,
					    struct bio *bio)
{
	u64 by = cb_find_bio(ev, bio);

	request->owner = by                                 ? cb_bio_owner(by)
			 : ev->config->target == CB_MACHINE ? CB_OWNER_TARGET
							    : CB_OWNER_UNKNOWN;
	request->tgid = cb_bio_tgid(by);
}

static __always_inline struct cb_request *block_record(struct request *rq)
{
	struct cb_request *request = cb_find_request(rq);

	if (!request)
		request = cb_claim_request(rq);
	if (!request)
		cb_lose_key();
	return request;
}

static __always_inline void block_on_block_rq_insert(struct cb_event *ev, struct request *rq)
{
	struct cb_request *request = block_record(rq);

	if (request)
		request->inserted_ns = ev->now_ns;
}

// It has become a part of another request.
static __always_inline void block_on_block_rq_merge(struct cb_event *ev, struct request *rq)
{
	struct cb_request *request = cb_find_request(rq);

	if (request)
		cb_forget_request(request);
}

static __always_inline void block_on_block_rq_issue(struct cb_event *ev, struct request *rq)
{
	struct cb_request *request = block_record(rq);
	struct cb_request_head head;

	if (!request)
		return;
	cb_read_head(&head, rq);
	if (request->issued_ns) // what became of it was not seen
		cb_raise_request_requeued(ev, request);
	request->issued_ns = ev->now_ns;
	request->bytes = head.bytes;
	request->disk = cb_disk_index(head.device);
	request->operation = head.flags & CB_REQ_OP_MASK;
	block_attribute(ev, request, head.bio);
	if (request->inserted_ns)
		cb_raise_request_queued(ev, request, ev->now_ns - request->inserted_ns);
	cb_raise_request_issued(ev, request);
}

// It will be issued again.  Some drivers give it back before its issue: then it is held as before.
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
	else
		cb_raise_request_unmatched(ev);
	if (request)
		cb_forget_request(request);
}
