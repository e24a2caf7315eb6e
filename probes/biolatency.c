// SPDX-License-Identifier: GPL-2.0-only
// biolatency.c - block I/O latency: from issue to the device until its completion.

BPF_TABLE("hash", struct request *, u64, biolatency_issued, BIOLATENCY_ISSUED_ENTRIES);

static __always_inline void biolatency_on_block_rq_issue(struct cb_event *ev,
							 struct cb_biolatency *biolatency,
							 struct request *rq)
{
	if (biolatency_issued.update(&rq, &ev->now_ns))
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
	u64 *issued;

	if (nr_bytes < rq->__data_len)
		return; // a part of it; the rest completes later
	issued = biolatency_issued.lookup(&rq);
	if (!issued) {
		biolatency->unmatched_completions++;
		return;
	}
	cb_observe(ev, &biolatency->latency_ns, ev->now_ns - *issued);
	biolatency_issued.delete(&rq);
}
