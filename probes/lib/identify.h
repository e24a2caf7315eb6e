// SPDX-License-Identifier: GPL-2.0-only
// identify.h - how the kernel numbers the agent: the agent runs this program on itself (BPF_PROG_RUN).
//
// In a PID namespace getpid() is not the number that the other programs see.  The same run checks CB_REGS_OFFSET: `syscall`
// must be the number of bpf(2), or else the agent reports no system calls of waits (kernel/call_tables.py).

#pragma once

#include "lib/compat.h"

struct cb_identity {
	u32 tgid;
	u32 parent_tgid;
	u64 syscall;
	u32 cgroup_level; // in the hierarchy of version 2
	u8 pad[4];
};
BPF_ARRAY(cb_identity, struct cb_identity, 1);

int cb_identify(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *me = (struct task_struct *)bpf_get_current_task();
	struct task_struct *parent = me->real_parent;
	struct css_set *css;
	struct cgroup *group;
	u64 registers = (u64)me->stack + CB_REGS_OFFSET;
	struct cb_identity identity = {};
	int zero = 0;

	identity.tgid = me->tgid;
	identity.parent_tgid = parent->tgid;
	css = me->cgroups;
	group = css->dfl_cgrp;
	identity.cgroup_level = group->level;
	bpf_probe_read_kernel(&identity.syscall, sizeof(identity.syscall),
			      (void *)registers + CB_SYSCALL_OFFSET);
	cb_identity.update(&zero, &identity);
	return 0;
}
