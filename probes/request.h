// SPDX-License-Identifier: GPL-2.0-only
// request.h - one record per block request, from its insertion or issue to its completion, and whose it is.

#pragma once

enum cb_owner {
	CB_OWNER_UNKNOWN, // a kernel thread, on behalf of somebody unknown
	CB_OWNER_TARGET,
	CB_OWNER_OTHER,
};

struct cb_request {
	u64 inserted_ns; // into the I/O scheduler; 0: not seen
	u64 issued_ns;   // to the device; 0: not yet
	u64 bytes;       // when it was issued: at completion the kernel may have counted them down
	u32 device;      // major << 20 | minor, of the whole disk
	u16 operation;   // enum req_op
	u16 owner;
	u32 tgid; // the process that submitted it; 0: unknown
	u32 pad;
};
BPF_TABLE("hash", struct request *, struct cb_request, cb_requests, CB_REQUESTS);

// Who asked for it.  Requests are issued and completed by whoever comes along, so it is noted where the bio is
// submitted.  The least recently used one makes room: its request has an unknown owner.
struct cb_submitter {
	u32 owner;
	u32 tgid;
};
BPF_TABLE("lru_hash", struct bio *, struct cb_submitter, cb_bios, CB_BIOS);
