// SPDX-License-Identifier: GPL-2.0-only
// io.h - what happens to block requests before the device has them: part of the module io.

#pragma once

// In flight: issued and not completed.  Their time is kept as a sum of moments since the run began: a request that
// ended added its end less its issue, one that is still in flight lacks its end.
struct io_queue_part {
	u32 device;
	u32 cpu; // which alone writes it
};

struct io_queue {
	u64 in_flight_ns;
	u64 in_flight; // issued here less ended here: the sum over the CPUs is the depth
	u64 deepest;
};
BPF_TABLE("hash", struct io_queue_part, struct io_queue, io_queues, IO_QUEUES_ENTRIES);
BPF_TABLE("hash", u32, u64, io_depths, IO_DEPTHS_ENTRIES);

static __always_inline void io_change_depth(struct cb_event *ev, u32 device, u64 change)
{
	struct io_queue_part part = { .device = device, .cpu = bpf_get_smp_processor_id() };
	struct io_queue none = {}, *queue = io_queues.lookup_or_try_init(&part, &none);
	u64 zero = 0, *depth = io_depths.lookup_or_try_init(&device, &zero);

	if (!queue || !depth) {
		cb_lose_key();
		return;
	}
	__sync_fetch_and_add(depth, change);
	queue->in_flight += change;
	queue->in_flight_ns -= change * (ev->now_ns - ev->config->started_ns);
	if (*depth > queue->deepest)
		queue->deepest = *depth;
}

static __always_inline void io_on_request_issued(struct cb_event *ev, struct cb_io *io,
						 struct cb_request *request)
{
	io_change_depth(ev, request->device, 1);
}

static __always_inline void io_on_request_requeued(struct cb_event *ev, struct cb_io *io,
						   struct cb_request *request)
{
	io_change_depth(ev, request->device, -1);
}

static __always_inline void io_on_request_done(struct cb_event *ev, struct cb_io *io,
					       struct cb_request *request, u64 ns)
{
	io_change_depth(ev, request->device, -1);
	if (ns >= CB_SLOW_IO_NS && request->owner == CB_OWNER_TARGET)
		cb_tell(ev, IO_EVENT_SLOW_REQUEST, 0, ns);
}

static __always_inline void io_on_request_queued(struct cb_event *ev, struct cb_io *io,
						 struct cb_request *request, u64 ns)
{
	if (request->owner == CB_OWNER_TARGET)
		cb_observe(ev, &io->scheduler_latency_ns, ns);
}
