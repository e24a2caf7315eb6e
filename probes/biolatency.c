// SPDX-License-Identifier: GPL-2.0-only
// biolatency.c - block I/O latency: from issue to the device until its completion.

#include "lib/compat.h"
#include "lib/process.h"
#include "machines/request.h"
#include "generated/biolatency.h"

// KINDS in biolatency.py has the names.
#define BIOLATENCY_READ 0
#define BIOLATENCY_WRITE 1
#define BIOLATENCY_OTHER 2
#define BIOLATENCY_DISCARD 3
#define BIOLATENCY_WRITE_ZEROES 4 // or the same block again and again
#define BIOLATENCY_KINDS 5

struct biolatency_disk {
	u64 count[BIOLATENCY_KINDS];
	u64 bytes[BIOLATENCY_KINDS];
	u64 ns;
	u64 everybodys; // including those of others and of unknown owners, as /proc/diskstats counts
	u64 stacked;    // of `count`: on the disks below they are counted as well
	u64 handed_on; // everybody's that ended on another disk, where this disk cannot see their end
	u64 max_ns;
	u64 not_min_ns; // with all bits inverted: 0 means that there is no minimum yet
};
BPF_PERCPU_ARRAY(biolatency_disks, struct biolatency_disk, CB_DISKS);

// Shared by all CPUs: a histogram for each disk and CPU would take too much memory.
struct biolatency_slots {
	u64 slots[CB_SLOTS];
};
BPF_ARRAY(biolatency_disk_slots, struct biolatency_slots, CB_DISKS);

static __always_inline u32 biolatency_kind(u32 operation)
{
	switch (operation) {
	case CB_REQ_OP_READ:
		return BIOLATENCY_READ;
	case CB_REQ_OP_WRITE:
		return BIOLATENCY_WRITE;
	case CB_REQ_OP_DISCARD:
	case CB_REQ_OP_SECURE_ERASE:
		return BIOLATENCY_DISCARD;
#ifdef CB_HAS_REQ_OP_WRITE_SAME
	case CB_REQ_OP_WRITE_SAME:
#endif
	case CB_REQ_OP_WRITE_ZEROES:
		return BIOLATENCY_WRITE_ZEROES;
	}
	return BIOLATENCY_OTHER;
}

static __always_inline void biolatency_add_to_disk(struct cb_request *request,
						   struct biolatency_disk *disk, u32 kind, u64 ns)
{
	int index = request->disk;
	u64 place = cb_clamp(kind, BIOLATENCY_KINDS);
	struct biolatency_slots *latency = biolatency_disk_slots.lookup(&index);

	if (!disk || !latency) {
		cb_lose_key();
		return;
	}
	__sync_fetch_and_add(&latency->slots[cb_clamp(cb_slot(ns), CB_SLOTS)], 1);
	disk->count[place]++;
	disk->bytes[place] += request->bytes;
	disk->stacked += !!request->stacked;
	disk->ns += ns;
	if (ns > disk->max_ns)
		disk->max_ns = ns;
	if (~ns > disk->not_min_ns)
		disk->not_min_ns = ~ns;
}

// I/O on a disk that lies on other disks is in that disk's figures only: on the disks below it is counted again.
static __always_inline void biolatency_add_to_sums(struct cb_event *ev,
						   struct cb_biolatency *biolatency,
						   struct cb_request *request, u32 kind, u64 ns)
{
	u64 bytes =
		kind == BIOLATENCY_DISCARD || kind == BIOLATENCY_WRITE_ZEROES ? 0 : request->bytes;
	struct cb_process *process = cb_process_of(ev, request->who);

	cb_observe(ev, &biolatency->latency_ns, ns);
	biolatency->requests++;
	biolatency->bytes += bytes;
	if (request->by_cgroup)
		biolatency->attributed_by_cgroup++;
	if (process) {
		__sync_fetch_and_add(&process->biolatency_requests, 1);
		__sync_fetch_and_add(&process->biolatency_bytes, bytes);
	}
	if (kind == BIOLATENCY_READ) {
		cb_observe(ev, &biolatency->read_latency_ns, ns);
		biolatency->read_bytes += bytes;
	} else if (kind == BIOLATENCY_WRITE) {
		cb_observe(ev, &biolatency->write_latency_ns, ns);
		biolatency->write_bytes += bytes;
	} else if (kind == BIOLATENCY_DISCARD) {
		biolatency->discards++;
		biolatency->discard_bytes += request->bytes;
	} else if (kind == BIOLATENCY_WRITE_ZEROES) {
		biolatency->write_zeroes++;
		biolatency->write_zeroes_bytes += request->bytes;
	}
}

static __always_inline void biolatency_on_request_issued(struct cb_event *ev,
							 struct cb_biolatency *biolatency,
							 struct cb_request *request)
{
	if (request->owner == CB_OWNER_TARGET && !request->stacked)
		biolatency->issued++;
}

static __always_inline void biolatency_on_request_requeued(struct cb_event *ev,
							   struct cb_biolatency *biolatency,
							   struct cb_request *request)
{
	int index = request->disk;
	struct biolatency_disk *disk = biolatency_disks.lookup(&index);

	if (disk && request->stacked & CB_HANDED_ON)
		disk->handed_on++;
	if (request->owner == CB_OWNER_TARGET && !(request->stacked & CB_STACKED))
		biolatency->requeued++;
}

static __always_inline void biolatency_on_request_done(struct cb_event *ev,
						       struct cb_biolatency *biolatency,
						       struct cb_request *request, u64 ns)
{
	int index = request->disk;
	struct biolatency_disk *disk = biolatency_disks.lookup(&index);
	u32 kind = biolatency_kind(request->operation);

	if (disk && kind != BIOLATENCY_OTHER)
		disk->everybodys++;
	if (request->owner == CB_OWNER_UNKNOWN && !request->stacked) {
		biolatency->unattributed++;
		biolatency->unattributed_by_cause[cb_clamp(
			request->who, BIOLATENCY_UNATTRIBUTED_BY_CAUSE_ENTRIES)]++;
	}
	if (request->owner != CB_OWNER_TARGET)
		return;
	biolatency_add_to_disk(request, disk, kind, ns);
	if (!request->stacked)
		biolatency_add_to_sums(ev, biolatency, request, kind, ns);
}

static __always_inline void biolatency_on_request_passed_through(struct cb_event *ev,
								 struct cb_biolatency *biolatency)
{
	biolatency->passed_through++;
}

static __always_inline void biolatency_on_request_unmatched(struct cb_event *ev,
							    struct cb_biolatency *biolatency)
{
	biolatency->unmatched_completions++;
}
