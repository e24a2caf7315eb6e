// SPDX-License-Identifier: GPL-2.0-only
// call_kinds.h - the kinds of the system calls that modules distinguish: CALLS in probes/c_names.py.

#pragma once

#include "lib/compat.h"

// The kind of each system call number (enum cb_call); written by the agent only.
struct cb_call_kinds {
	u32 of_64bit;
	u32 of_32bit;
};
BPF_ARRAY(cb_call_kinds, struct cb_call_kinds, CB_CALL_NUMBERS);

static __always_inline u32 cb_call_kind(u64 number)
{
	struct cb_call_kinds *kinds;
	int index = number;

	if (number >= CB_CALL_NUMBERS)
		return CB_CALL_NONE;
	kinds = cb_call_kinds.lookup(&index);
	if (!kinds || (kinds->of_64bit == CB_CALL_NONE && kinds->of_32bit == CB_CALL_NONE))
		return CB_CALL_NONE;
	return cb_is_32bit_call() ? kinds->of_32bit : kinds->of_64bit;
}
