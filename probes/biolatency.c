// SPDX-License-Identifier: GPL-2.0-only
// biolatency.c - block I/O latency: from issue to the device until its completion.

// Who asked for the I/O.  Requests are issued and completed by whoever comes along, so it is noted where the bio is
// submitted.
enum biolatency_owner {
	BIOLATENCY_NOBODY, // a kernel thread, on behalf of somebody unknown
	BIOLATENCY_TARGET,
	BIOLATENCY_OTHER,
};

struct biolatency_request {
	u64 issued_ns;
	u64 owner;
};
BPF_TABLE("hash", struct request *, struct biolatency_request, biolatency_issued,
	  BIOLATENCY_ISSUED_ENTRIES);
BPF_TABLE("lru_hash", struct bio *, u64, biolatency_owners, BIOLATENCY_OWNERS_ENTRIES);

static __always_inline void biolatency_on_block_bio_queue(struct cb_event *ev,
							  struct cb_biolatency *biolatency,
							  struct bio *bio)
{
	struct task_struct *current_task = (struct task_struct *)bpf_get_current_task();
	u64 owner = BIOLATENCY_OTHER;

	if (cb_current_counts(ev))
		owner = BIOLATENCY_TARGET;
	else if (current_task->flags & CB_PF_KTHREAD)
		owner = BIOLATENCY_NOBODY;
	biolatency_owners.update(&bio, &owner);
}

static __always_inline u64 biolatency_owner_of(struct cb_event *ev, struct request *rq)
{
	struct bio *bio;
	u64 *owner;

	if (ev->config->target == CB_MACHINE)
		return BIOLATENCY_TARGET;
	bio = rq->bio;
	owner = biolatency_owners.lookup(&bio);
	return owner ? *owner : BIOLATENCY_NOBODY;
}

static __always_inline void biolatency_on_block_rq_issue(struct cb_event *ev,
							 struct cb_biolatency *biolatency,
							 struct request *rq)
{
	struct biolatency_request request = { .issued_ns = ev->now_ns,
					      .owner = biolatency_owner_of(ev, rq) };

	if (biolatency_issued.update(&rq, &request))
		cb_lose_key();
}

static __always_inline void biolatency_on_block_rq_requeue(struct cb_event *ev,
							   struct cb_biolatency *biolatency,
							   struct request *rq)
{
	biolatency_issued.delete(&rq); // it will be issued again
}

static __always_inline void biolatency_on_block_rq_complete(struct cb_event *ev,
							    struct cb_biolatency *biolatency,
							    struct request *rq, u32 nr_bytes)
{
	struct biolatency_request *issued;

	if (nr_bytes < rq->__data_len)
		return; // a part of it; the rest completes later
	issued = biolatency_issued.lookup(&rq);
	if (!issued) {
		biolatency->unmatched_completions++;
		return;
	}
	if (issued->owner == BIOLATENCY_TARGET)
		cb_observe(ev, &biolatency->latency_ns, ev->now_ns - issued->issued_ns);
	else if (issued->owner == BIOLATENCY_NOBODY)
		biolatency->unattributed++;
	biolatency_issued.delete(&rq);
}
