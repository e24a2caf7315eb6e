// SPDX-License-Identifier: GPL-2.0-only
// request.h - one record per block request, from its insertion or issue to its completion; its disk, and whose it is.
//
// A disk that takes bios makes no requests of them: there a bio has a record like a request's, from its submission on.

#pragma once

#include "lib/common.h"

enum cb_owner {
	CB_OWNER_UNKNOWN, // see enum cb_unattributed
	CB_OWNER_TARGET,
	CB_OWNER_OTHER,
};

// Why nobody knows whose a request is.  UNATTRIBUTED in probes/biolatency.py has the names, in this order.
enum cb_unattributed {
	CB_UNATTRIBUTED_WORKER, // a kernel thread of some other layer
	CB_UNATTRIBUTED_WRITEBACK,
	CB_UNATTRIBUTED_JOURNAL, // or other metadata of a file system
	CB_UNATTRIBUTED_RECLAIM,
	CB_UNATTRIBUTED_SHARED_CGROUP, // the target's threads are in the bio's cgroup, and others, or nobody is any more
	CB_UNATTRIBUTED_BELOW_LOOP, // a loop device's own, on the disk below it
	CB_UNATTRIBUTED_FLUSH,      // there is no bio
	CB_UNATTRIBUTED_UNSEEN,     // nobody was seen submitting it
	CB_UNATTRIBUTED_CAUSES,
};

// Where in an array what is kept of an object has its place.  What lies together in memory does so here as well, within
// 256 KiB: the few objects that are in use at a time are on a few pages then, and a page that the CPU has to look up
// costs more than all the rest.
#define CB_GOLDEN 0x9e3779b97f4a7c15 // 2^64 by the golden ratio
static __always_inline u32 cb_place(u64 object)
{
	return (object >> 8) + (((object >> 18) * CB_GOLDEN) >> 40);
}

// Of `stacked`:
#define CB_STACKED 1   // its disk lies on others
#define CB_HANDED_ON 2 // the disk hands on the very bio, which does not come back

// The records lie in an array, each in a line of the cache: a hash would take five times as long for each event.  A
// request has its record at its own place, or at one of three others, anywhere, if somebody else is there.
struct cb_request {
	u64 of; // the address of the struct request, or the struct bio; 0: of none
	union {
		u64 inserted_ns; // into the I/O scheduler; 0: not seen
		u64 sector;      // of a bio: under which it is noted
	};
	u64 issued_ns; // to the device; 0: not yet
	u32 bytes;     // when it was issued: at completion the kernel may have counted them down
	u32 who; // the process that submitted it, 0: unknown; of an unknown owner, enum cb_unattributed
	u32 claims;    // see cb_claim_request
	u32 elsewhere; // how many whose own place this is have their record at another
	u16 operation; // enum req_op
	u16 owner;
	u16 disk;      // see cb_disk_index
	u16 away;      // not at its own place
	u8 stacked;    // its disk lies on others, where the same I/O is counted
	u8 by_cgroup;  // its owner is known by its cgroup alone
	u8 takes_bios; // it is a bio
	u8 pad[5];
	u64 pages; // of a bio: the table of its pages, under which it is noted
};
BPF_F_TABLE("array", u32, struct cb_request, cb_requests, CB_REQUESTS, BPF_F_MMAPABLE);

static __always_inline struct cb_request *cb_request_at(u64 rq, u32 way)
{
	u32 index = (way ? ((rq * CB_GOLDEN) >> 40) + way : cb_place(rq)) & (CB_REQUESTS - 1);

	return cb_requests.lookup(&index);
}

// The record of a request; NULL if there is none.
static __always_inline struct cb_request *cb_find_request(void *rq)
{
	struct cb_request *request = cb_request_at((u64)rq, 0);

	if (!request || request->of == (u64)rq)
		return request;
	if (!*(volatile u32 *)&request->elsewhere)
		return NULL;
#pragma clang loop unroll(disable)
	for (u32 way = 1; way < 4; way++) {
		request = cb_request_at((u64)rq, way);
		if (request && request->of == (u64)rq)
			return request;
	}
	return NULL;
}

static __always_inline void cb_count_elsewhere(u64 rq, u32 change)
{
	struct cb_request *own = cb_request_at(rq, 0);

	if (own)
		__sync_fetch_and_add(&own->elsewhere, change);
}

// A free record, from now on of this request; NULL if all four are taken.  Other CPUs may want the same one: as with
// processes (process.h), who is alone may have it, and an owner counts as one.  Who is not tries the next.
static __always_inline struct cb_request *cb_claim_request(void *rq)
{
#pragma clang loop unroll(disable)
	for (u32 way = 0; way < 4; way++) {
		struct cb_request *request = cb_request_at((u64)rq, way);

		if (!request)
			return NULL;
		if (request->of)
			continue;
		__sync_fetch_and_add(&request->claims, 1);
		if (*(volatile u32 *)&request->claims == 1) {
			request->inserted_ns = 0;
			request->issued_ns = 0;
			request->away = !!way;
			request->stacked = 0;
			request->by_cgroup = 0;
			request->takes_bios = 0;
			if (way)
				cb_count_elsewhere((u64)rq, 1);
			request->of = (u64)rq;
			return request;
		}
		__sync_fetch_and_add(&request->claims, -1);
	}
	return NULL;
}

static __always_inline void cb_forget_request(struct cb_request *request)
{
	u64 rq = request->of;

	request->of = 0;
	if (request->away)
		cb_count_elsewhere(rq, -1);
	cb_release(&request->claims);
}

// The disks that were seen in a run.  A disk keeps its index until the next run, so that a request has to find it only
// once, and modules have arrays of CB_DISKS for what they count by disk.  The agent clears them between runs.
struct cb_disk {
	u64 device; // major << 20 | minor, of the whole disk, and CB_DISK_TAKEN; 0: nobody's yet
	u64 depth;  // requests in flight
};
BPF_F_TABLE("array", int, struct cb_disk, cb_disks, CB_DISKS, BPF_F_MMAPABLE);
#define CB_DISK_TAKEN (1ULL << 32)

// Who may take an index, the hash decides: of two CPUs one is first.  It is asked until the array knows.
BPF_TABLE("hash", int, u32, cb_disk_takers, CB_DISKS);

static __always_inline bool cb_take_disk(int index, u32 device)
{
	u32 *taker = cb_disk_takers.lookup_or_try_init(&index, &device);

	return taker && *taker == device;
}

// The index of a disk; CB_DISKS if it has none, and there all arrays end.  `take`: it gets one while there is room.
static __always_inline u32 cb_seek_disk(u32 device, bool take)
{
	u64 known = CB_DISK_TAKEN | device;
	u32 first = (device * 0x9e3779b1) >> 24;

#pragma clang loop unroll(disable)
	for (u32 way = 0; way < CB_DISKS; way++) {
		int index = (first + way) & (CB_DISKS - 1);
		struct cb_disk *disk = cb_disks.lookup(&index);

		if (!disk || (!take && !disk->device))
			break;
		if (take && !disk->device && cb_take_disk(index, device))
			disk->device = known;
		if (disk->device == known)
			return index;
	}
	return CB_DISKS;
}

static __always_inline u32 cb_known_disk(u32 device)
{
	return cb_seek_disk(device, false);
}

static __always_inline u32 cb_disk_index(u32 device)
{
	return cb_seek_disk(device, true);
}

// Who asked for it.  Requests are issued and completed by whoever comes along, so it is noted where the bio is
// submitted: in one word, which no other CPU can see half written, and in a set that is one line of the cache.
//
//   63 … 26: a hash of the key and the run    25: by its cgroup    24: it has a record    23 … 22: enum cb_owner
//   21 … 0: the process, or enum cb_unattributed
//
// The oldest of a set makes room: its request has an unknown owner.
//
// The key is a bio's address.  A disk that takes bios may hand them on by a thread of its own, as other bios.  These
// share the table of their pages with the one that they were made of, or tell which sector of which disk they are
// (block_bio_remap): so both are keys as well, of what was submitted to such a disk, until it completes.
#define CB_BIO_WAYS 7
struct cb_bio_set {
	u64 bios[CB_BIO_WAYS];
	u32 claims; // see cb_try_claim
	u32 oldest;
};
BPF_F_TABLE("array", u32, struct cb_bio_set, cb_bios, CB_BIO_SETS, BPF_F_MMAPABLE);

#define CB_BIO_OWNER_BIT 22
#define CB_BIO_WHO ((1ULL << CB_BIO_OWNER_BIT) - 1) // PID_MAX_LIMIT is 2^22
#define CB_BIO_RECORD (1ULL << (CB_BIO_OWNER_BIT + 2))
#define CB_BIO_BY_CGROUP (1ULL << (CB_BIO_OWNER_BIT + 3))
#define CB_BIO_TAG (~0ULL << (CB_BIO_OWNER_BIT + 4))

// What is noted of a bio, without the hash; 0 is a known owner's never, because no process has the number 0.
static __always_inline u64 cb_note(u64 owner, u32 who)
{
	return owner << CB_BIO_OWNER_BIT | who;
}

static __always_inline u64 cb_bio_owner(u64 note)
{
	return (note >> CB_BIO_OWNER_BIT) & 3;
}

static __always_inline u32 cb_bio_who(u64 note)
{
	return note & CB_BIO_WHO;
}

// Objects are aligned, so an odd number is nobody's address.
static __always_inline u64 cb_remapped_key(struct bio *bio)
{
	return (u64)bio | 1;
}

static __always_inline u64 cb_sector_key(u32 device, u64 sector)
{
	return ((u64)device << 40 | 1) ^ sector << 8;
}

static __always_inline u64 cb_bio_spread(struct cb_event *ev, u64 key)
{
	return (key + ((u64)ev->config->run << 48)) * CB_GOLDEN;
}

static __always_inline struct cb_bio_set *cb_bio_set_of(u64 key)
{
	u32 index = cb_place(key) & (CB_BIO_SETS - 1);

	return cb_bios.lookup(&index);
}

static __always_inline u32 cb_bio_way(struct cb_bio_set *set, u64 spread)
{
	u32 way;

#pragma clang loop unroll(disable)
	for (way = 0; way < CB_BIO_WAYS; way++)
		if (!((set->bios[way] ^ spread) & CB_BIO_TAG))
			break;
	return way;
}

// What was noted under a key, with the hash; 0 if nothing was.
static __always_inline u64 cb_find_note(struct cb_event *ev, u64 key)
{
	u64 spread = cb_bio_spread(ev, key);
	struct cb_bio_set *set = cb_bio_set_of(key);
	u32 way = set ? cb_bio_way(set, spread) : CB_BIO_WAYS;

	return set && way < CB_BIO_WAYS ? set->bios[way] : 0;
}

static __always_inline void cb_store_note(struct cb_event *ev, u64 key, u64 note)
{
	u64 spread = cb_bio_spread(ev, key);
	struct cb_bio_set *set = cb_bio_set_of(key);
	u32 way;

	if (!set || !cb_try_claim(&set->claims)) {
		cb_lose_key();
		return;
	}
	way = cb_bio_way(set, spread);
	if (way == CB_BIO_WAYS) {
		way = set->oldest;
		set->oldest = way + 1 < CB_BIO_WAYS ? way + 1 : 0;
	}
	if (way < CB_BIO_WAYS)
		set->bios[way] = (spread & CB_BIO_TAG) | (note & ~CB_BIO_TAG);
	cb_release(&set->claims);
}

// Whoever has the word's place by then keeps it: what is written is no hash of anything.
static __always_inline void cb_drop_note(struct cb_event *ev, u64 key)
{
	u64 spread = cb_bio_spread(ev, key);
	struct cb_bio_set *set = cb_bio_set_of(key);
	u32 way;

	if (!set || !cb_try_claim(&set->claims)) {
		cb_lose_key();
		return;
	}
	way = cb_bio_way(set, spread);
	if (way < CB_BIO_WAYS)
		set->bios[way] = 0;
	cb_release(&set->claims);
}
