// SPDX-License-Identifier: GPL-2.0-only
// biolatency.c - block I/O latency: from issue to the device until its completion.

// A CPU adds to its own entry only, so nothing is lost between two of them.
struct biolatency_part {
	u32 device;
	u16 operation;
	u16 cpu;
};

struct biolatency_sum {
	u64 count;
	u64 bytes;
	u64 ns;
	u64 min_ns;
	u64 max_ns;
};
BPF_TABLE("hash", struct biolatency_part, struct biolatency_sum, biolatency_device_sums,
	  BIOLATENCY_DEVICE_SUMS_ENTRIES);

struct biolatency_slot {
	u32 device;
	u32 slot; // of a struct cb_histogram
};
BPF_TABLE("hash", struct biolatency_slot, u64, biolatency_device_slots,
	  BIOLATENCY_DEVICE_SLOTS_ENTRIES);

static __always_inline void biolatency_add_to_device(struct cb_request *request, u64 ns)
{
	struct biolatency_part part = { .device = request->device,
					.operation = request->operation,
					.cpu = bpf_get_smp_processor_id() };
	struct biolatency_slot slot = { .device = request->device, .slot = cb_slot(ns) };
	struct biolatency_sum none = { .min_ns = ns };
	struct biolatency_sum *sum = biolatency_device_sums.lookup_or_try_init(&part, &none);
	u64 zero = 0, *count = biolatency_device_slots.lookup_or_try_init(&slot, &zero);

	if (!sum || !count)
		cb_lose_key();
	if (count)
		__sync_fetch_and_add(count, 1);
	if (!sum)
		return;
	sum->count++;
	sum->bytes += request->bytes;
	sum->ns += ns;
	if (ns < sum->min_ns)
		sum->min_ns = ns;
	if (ns > sum->max_ns)
		sum->max_ns = ns;
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
	biolatency_add_to_device(request, ns);
}

static __always_inline void biolatency_on_request_unmatched(struct cb_event *ev,
							    struct cb_biolatency *biolatency)
{
	biolatency->unmatched_completions++;
}
