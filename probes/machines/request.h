// SPDX-License-Identifier: GPL-2.0-only
// request.h - one record per block request, from its insertion or issue to its completion; its disk and its owner.
//
// A disk that takes bios makes no requests of them: there a bio has a record like a request, from its submission on.

#pragma once

#include "lib/common.h"

enum cb_owner {
	CB_OWNER_UNKNOWN, // see enum cb_unattributed
	CB_OWNER_TARGET,
	CB_OWNER_OTHER,
};

// Why the owner of a request is unknown.  UNATTRIBUTED in probes/biolatency.py has the names, in this order.
enum cb_unattributed {
	CB_UNATTRIBUTED_WORKER, // a kernel thread of some other layer
	CB_UNATTRIBUTED_WRITEBACK,
	CB_UNATTRIBUTED_JOURNAL, // or other metadata of a file system
	CB_UNATTRIBUTED_RECLAIM,
	CB_UNATTRIBUTED_SHARED_CGROUP, // the bio's cgroup has threads of the target and others, or none any more
	CB_UNATTRIBUTED_BELOW_LOOP, // a loop device's own, on the disk below it
	CB_UNATTRIBUTED_FLUSH,      // there is no bio
	CB_UNATTRIBUTED_UNSEEN,     // its submission was not seen
	CB_UNATTRIBUTED_CAUSES,
};

// The place of an object's record in an array.  Objects that lie together in memory, within 256 KiB, have their records
// together: the few objects in use at a time are then on a few pages, and a page that misses the TLB costs more than all
// the rest.
#define CB_GOLDEN 0x9e3779b97f4a7c15 // 2^64 by the golden ratio
static __always_inline u32 cb_place(u64 object)
{
	return (object >> 8) + (((object >> 18) * CB_GOLDEN) >> 40);
}

// Bits of `stacked`:
#define CB_STACKED 1   // its disk lies on others
#define CB_HANDED_ON 2 // the disk hands on the same bio, and does not see its end

// The records lie in an array, each in a cache line: a hash would take five times as long for each event.  A request has its
// record at its own place, or, if that is taken, at one of three others.
struct cb_request {
	u64 of; // the address of the struct request or struct bio; 0: this record is free
	union {
		u64 inserted_ns; // into the I/O scheduler; 0: not seen
		u64 sector;      // a bio's: the key of its note
	};
	u64 issued_ns; // to the device; 0: not yet
	u32 bytes;     // when it was issued: at completion the kernel may have counted them down
	u32 who; // the process that submitted it, 0: unknown; if the owner is unknown, enum cb_unattributed
	u32 claims;    // see cb_claim_request
	u32 elsewhere; // how many requests of this place have their record at another
	u16 operation; // enum req_op
	u16 owner;
	u16 disk;      // see cb_disk_index
	u16 away;      // not at its own place
	u8 stacked;    // its disk lies on others, where the same I/O is counted
	u8 by_cgroup;  // its owner is known only by its cgroup
	u8 takes_bios; // it is a bio
	u8 pad[5];
	u64 pages; // a bio's: the table of its pages, a key of its note
};
BPF_F_TABLE("array", u32, struct cb_request, cb_requests, CB_REQUESTS, BPF_F_MMAPABLE);

static __always_inline struct cb_request *cb_request_at(u64 rq, u32 way)
{
	u32 index = (way ? ((rq * CB_GOLDEN) >> 40) + way : cb_place(rq)) & (CB_REQUESTS - 1);

	return cb_requests.lookup(&index);
}

// The record of a request; NULL if it has none.
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

// Takes a free record for this request; NULL if all four are taken.  Other CPUs may try to take the same one: as with
// processes (process.h), only a CPU that is the only one to claim it may take it, and its owner's claim stays.  A CPU that
// fails tries the next record.
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

// The disks that were seen in a run.  A disk has the same index until the next run, so that a request looks it up only once,
// and modules have arrays of CB_DISKS for their figures by disk.  The agent clears them between runs.
struct cb_disk {
	u64 device; // major << 20 | minor, of the whole disk, and CB_DISK_TAKEN; 0: not taken yet
	u64 depth;  // requests in flight
};
BPF_F_TABLE("array", int, struct cb_disk, cb_disks, CB_DISKS, BPF_F_MMAPABLE);
#define CB_DISK_TAKEN (1ULL << 32)

// Decides which CPU takes an index: of two that insert it into a hash, one is first.  Used until the array has the disk.
BPF_TABLE("hash", int, u32, cb_disk_takers, CB_DISKS);

static __always_inline bool cb_take_disk(int index, u32 device)
{
	u32 *taker = cb_disk_takers.lookup_or_try_init(&index, &device);

	return taker && *taker == device;
}

// The index of a disk; CB_DISKS, where all arrays end, if it has none.  `take`: it gets one while there is room.
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

// Notes on the owners of bios.  Any thread may issue and complete a request, so the owner is noted when the bio is submitted:
// in one word, which no other CPU can see half written, and in a set that is one cache line.
//
//   63 … 26: a hash of the key and the run    25: by its cgroup    24: it has a record    23 … 22: enum cb_owner
//   21 … 0: the process, or enum cb_unattributed
//
// A new note replaces the oldest of its set, whose request then has an unknown owner.
//
// The key is the bio's address.  A disk that takes bios may hand them on by a thread of its own, as other bios.  These share
// the table of pages with the bio that they were made of, or say which sector of which disk they are for (block_bio_remap):
// so for bios that were submitted to such a disk, both are keys too, until they complete.
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

// A note without the hash; never 0 for a known owner, because no process has the number 0.
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

// Objects are aligned, so an odd number is not an address.
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

// The note under a key, with the hash; 0 if there is no note.
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

// Removes the note under a key.
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
