// SPDX-License-Identifier: GPL-2.0-only
// biolatency.c - block I/O latency: from issue to the device until its completion.

#define BIOLATENCY_KINDS 3 // reads, writes, others

struct biolatency_disk {
	u64 count[BIOLATENCY_KINDS];
	u64 bytes[BIOLATENCY_KINDS];
	u64 ns;
	u64 max_ns;
	u64 not_min_ns; // all bits inverted, so that 0 is none yet
};
BPF_PERCPU_ARRAY(biolatency_disks, struct biolatency_disk, CB_DISKS);

// Of all CPUs together: one for each would be too much.
struct biolatency_slots {
	u64 slots[CB_SLOTS];
};
BPF_ARRAY(biolatency_disk_slots, struct biolatency_slots, CB_DISKS);

static __always_inline void biolatency_add_to_disk(struct cb_request *request, u64 ns)
{
	int index = request->disk;
	u64 kind = cb_clamp(request->operation, BIOLATENCY_KINDS);
	struct biolatency_disk *disk = biolatency_disks.lookup(&index);
	struct biolatency_slots *latency = biolatency_disk_slots.lookup(&index);

	if (!disk || !latency) {
		cb_lose_key();
		return;
	}
	__sync_fetch_and_add(&latency->slots[cb_clamp(cb_slot(ns), CB_SLOTS)], 1);
	disk->count[kind]++;
	disk->bytes[kind] += request->bytes;
	disk->ns += ns;
	if (ns > disk->max_ns)
		disk->max_ns = ns;
	if (~ns > disk->not_min_ns)
		disk->not_min_ns = ~ns;
}

static __always_inline void biolatency_on_request_done(struct cb_event *ev,
						       struct cb_biolatency *biolatency,
						       struct cb_request *request, u64 ns)
{
	u64 bytes = request->bytes;
	struct cb_process *process;

	if (request->owner == CB_OWNER_UNKNOWN)
		biolatency->unattributed++;
	if (request->owner != CB_OWNER_TARGET)
		return;
	cb_observe(ev, &biolatency->latency_ns, ns);
	biolatency->requests++;
	biolatency->bytes += bytes;
	process = cb_process_of(ev, request->tgid);
	if (process) {
		__sync_fetch_and_add(&process->biolatency_requests, 1);
		__sync_fetch_and_add(&process->biolatency_bytes, bytes);
	}
	if (request->operation == CB_REQ_OP_READ)
		cb_observe(ev, &biolatency->read_latency_ns, ns);
	else if (request->operation == CB_REQ_OP_WRITE)
		cb_observe(ev, &biolatency->write_latency_ns, ns);
	biolatency_add_to_disk(request, ns);
}

static __always_inline void biolatency_on_request_unmatched(struct cb_event *ev,
							    struct cb_biolatency *biolatency)
{
	biolatency->unmatched_completions++;
}
