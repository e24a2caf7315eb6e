// SPDX-License-Identifier: GPL-2.0-only
// plain/memory.c - page faults, allocations, OOM kills, cache misses and swapping by process.
//
// A plain BCC program, to load and attach by hand.
//
//   b = BPF(src_file="probes/plain/memory.c")
//   b.attach_kretprobe(event="handle_mm_fault", fn_name="trace_handle_mm_fault")
//   b["memory_by_pid"].items()    # pid -> minor_faults, major_faults, …
//
//   function                  attach to                                         counts
//   trace_handle_mm_fault     kretprobe handle_mm_fault                         minor and major faults, by its result
//   trace_kmalloc             kprobe __kmalloc                                  calls and bytes asked for
//   trace_oom_kill_process    kprobe oom_kill_process                           kills, by who asked for the memory
//   trace_cache_miss          perf event: attach_perf_event(PERF_TYPE_HARDWARE,
//                             PERF_COUNT_HW_CACHE_MISSES, sample_period=N)      overflows: N misses each
//   trace_swap_readpage       kprobe swap_readpage (swap_read_folio from 6.5)   folios read from swap
//   trace_swap_writepage      kprobe swap_writepage (swap_writeout from 6.16)   folios written to swap

#include <linux/mm_types.h>
#include <uapi/linux/bpf_perf_event.h>

struct memory {
	u64 minor_faults;
	u64 major_faults;
	u64 kmallocs;
	u64 kmalloc_bytes;
	u64 oom_kills;
	u64 cache_miss_overflows;
	u64 swap_ins;
	u64 swap_outs;
};
BPF_HASH(memory_by_pid, u32, struct memory);

static __always_inline struct memory *memory_of_current(void)
{
	struct memory none = {};
	u32 pid = bpf_get_current_pid_tgid() >> 32;

	return memory_by_pid.lookup_or_try_init(&pid, &none);
}

int trace_handle_mm_fault(struct pt_regs *ctx)
{
	struct memory *memory = memory_of_current();
	u32 result = PT_REGS_RC(ctx);

	if (!memory ||
	    result & (VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_RETRY))
		return 0;
	if (result & VM_FAULT_MAJOR)
		__sync_fetch_and_add(&memory->major_faults, 1);
	else
		__sync_fetch_and_add(&memory->minor_faults, 1);
	return 0;
}

int trace_kmalloc(struct pt_regs *ctx, size_t size)
{
	struct memory *memory = memory_of_current();

	if (memory) {
		__sync_fetch_and_add(&memory->kmallocs, 1);
		__sync_fetch_and_add(&memory->kmalloc_bytes, size);
	}
	return 0;
}

int trace_oom_kill_process(struct pt_regs *ctx)
{
	struct memory *memory = memory_of_current();

	if (memory)
		__sync_fetch_and_add(&memory->oom_kills, 1);
	return 0;
}

int trace_cache_miss(struct bpf_perf_event_data *ctx)
{
	struct memory *memory = memory_of_current();

	if (memory)
		__sync_fetch_and_add(&memory->cache_miss_overflows, 1);
	return 0;
}

int trace_swap_readpage(struct pt_regs *ctx)
{
	struct memory *memory = memory_of_current();

	if (memory)
		__sync_fetch_and_add(&memory->swap_ins, 1);
	return 0;
}

int trace_swap_writepage(struct pt_regs *ctx)
{
	struct memory *memory = memory_of_current();

	if (memory)
		__sync_fetch_and_add(&memory->swap_outs, 1);
	return 0;
}
