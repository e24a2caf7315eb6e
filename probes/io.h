// SPDX-License-Identifier: GPL-2.0-only
// io.h - what happens to block requests before the device has them: part of the module io.

#pragma once

#include "machines/request.h"
#include "generated/events.h"
#include "generated/io.h"

// In flight: issued and not completed.  Their time is the sum of the moments when they ended, less that of the moments
// when they were issued, both since the run began; one that is still in flight lacks its end.
struct io_queue {
	u64 issued;
	u64 issued_ns;
	u64 done;
	u64 done_ns;
	u64 returned;
	u64 returned_ns;
	u64 deepest;
};
BPF_PERCPU_ARRAY(io_queues, struct io_queue, CB_DISKS);

static __always_inline void io_on_request_issued(struct cb_event *ev, struct cb_io *io,
						 struct cb_request *request)
{
	int index = request->disk;
	struct io_queue *queue = io_queues.lookup(&index);
	struct cb_disk *disk = cb_disks.lookup(&index);

	if (!queue || !disk) {
		cb_lose_key();
		return;
	}
	__sync_fetch_and_add(&disk->depth, 1);
	if (disk->depth > queue->deepest)
		queue->deepest = disk->depth;
	queue->issued++;
	queue->issued_ns += ev->now_ns - ev->config->started_ns;
}

// Requests that the device gives back are counted in fields of their own: an interrupt, in which others end, may come here.
static __always_inline void io_on_request_requeued(struct cb_event *ev, struct cb_io *io,
						   struct cb_request *request)
{
	int index = request->disk;
	struct io_queue *queue = io_queues.lookup(&index);
	struct cb_disk *disk = cb_disks.lookup(&index);

	if (!queue || !disk) {
		cb_lose_key();
		return;
	}
	__sync_fetch_and_add(&disk->depth, -1);
	__sync_fetch_and_add(&queue->returned, 1);
	__sync_fetch_and_add(&queue->returned_ns, ev->now_ns - ev->config->started_ns);
}

static __always_inline void io_leave_queue(struct cb_event *ev, struct cb_request *request)
{
	int index = request->disk;
	struct io_queue *queue = io_queues.lookup(&index);
	struct cb_disk *disk = cb_disks.lookup(&index);

	if (!queue || !disk) {
		cb_lose_key();
		return;
	}
	__sync_fetch_and_add(&disk->depth, -1);
	queue->done++;
	queue->done_ns += ev->now_ns - ev->config->started_ns;
}

static __always_inline void io_on_request_done(struct cb_event *ev, struct cb_io *io,
					       struct cb_request *request, u64 ns)
{
	io_leave_queue(ev, request);
	if (ns >= CB_SLOW_IO_NS && request->owner == CB_OWNER_TARGET && !request->stacked)
		cb_emit(ev, IO_EVENT_SLOW_REQUEST, 0, ns);
}

static __always_inline void io_on_request_queued(struct cb_event *ev, struct cb_io *io,
						 struct cb_request *request, u64 ns)
{
	if (request->owner == CB_OWNER_TARGET)
		cb_observe(ev, &io->scheduler_latency_ns, ns);
}
