// SPDX-License-Identifier: GPL-2.0-only
// plain/io.c - calls on files, page-cache pages and block requests by process.
//
// A plain BCC program, to load and attach by hand.
//
//   b = BPF(src_file="probes/plain/io.c")
//   b.attach_kretprobe(event="vfs_read", fn_name="trace_vfs_read")
//   b["io_by_pid"].items()    # pid -> opens, reads, read_bytes, …
//
//   function                       attach to                                     counts
//   trace_do_sys_open              kretprobe do_sys_openat2                      opens that succeeded
//   trace_vfs_read                 kretprobe vfs_read                            reads that succeeded, and their bytes
//   trace_vfs_write                kretprobe vfs_write                           writes that succeeded, and their bytes
//   trace_filp_close               kprobe filp_close (filp_flush from 6.6)       closes
//   trace_mark_page_accessed       kprobe folio_mark_accessed (mark_page_… before 5.16)    pages asked for
//   trace_add_to_page_cache_lru    kprobe filemap_add_folio (add_to_page_… before 5.16)    pages that had to be read
//   trace_blk_account_io_start     tracepoint block:block_rq_issue               requests, by who happens to run then
//   trace_blk_account_io_done      tracepoint block:block_rq_complete            likewise
//   trace_do_fsync                 kprobe __x64_sys_fsync, __x64_sys_fdatasync   calls

struct io {
	u64 opens;
	u64 closes;
	u64 reads;
	u64 writes;
	u64 read_bytes;
	u64 write_bytes;
	u64 pages_accessed;
	u64 pages_added;
	u64 requests_issued;
	u64 requests_done;
	u64 fsyncs;
};
BPF_HASH(io_by_pid, u32, struct io);

static __always_inline struct io *io_of_current(void)
{
	struct io none = {};
	u32 pid = bpf_get_current_pid_tgid() >> 32;

	return io_by_pid.lookup_or_try_init(&pid, &none);
}

int trace_do_sys_open(struct pt_regs *ctx)
{
	struct io *io = io_of_current();

	if (io && (int)PT_REGS_RC(ctx) >= 0)
		__sync_fetch_and_add(&io->opens, 1);
	return 0;
}

int trace_vfs_read(struct pt_regs *ctx)
{
	struct io *io = io_of_current();
	s64 bytes = PT_REGS_RC(ctx);

	if (io && bytes >= 0) {
		__sync_fetch_and_add(&io->reads, 1);
		__sync_fetch_and_add(&io->read_bytes, bytes);
	}
	return 0;
}

int trace_vfs_write(struct pt_regs *ctx)
{
	struct io *io = io_of_current();
	s64 bytes = PT_REGS_RC(ctx);

	if (io && bytes >= 0) {
		__sync_fetch_and_add(&io->writes, 1);
		__sync_fetch_and_add(&io->write_bytes, bytes);
	}
	return 0;
}

int trace_filp_close(struct pt_regs *ctx)
{
	struct io *io = io_of_current();

	if (io)
		__sync_fetch_and_add(&io->closes, 1);
	return 0;
}

int trace_mark_page_accessed(struct pt_regs *ctx)
{
	struct io *io = io_of_current();

	if (io)
		__sync_fetch_and_add(&io->pages_accessed, 1);
	return 0;
}

int trace_add_to_page_cache_lru(struct pt_regs *ctx)
{
	struct io *io = io_of_current();

	if (io)
		__sync_fetch_and_add(&io->pages_added, 1);
	return 0;
}

int trace_blk_account_io_start(void *ctx)
{
	struct io *io = io_of_current();

	if (io)
		__sync_fetch_and_add(&io->requests_issued, 1);
	return 0;
}

int trace_blk_account_io_done(void *ctx)
{
	struct io *io = io_of_current();

	if (io)
		__sync_fetch_and_add(&io->requests_done, 1);
	return 0;
}

int trace_do_fsync(struct pt_regs *ctx)
{
	struct io *io = io_of_current();

	if (io)
		__sync_fetch_and_add(&io->fsyncs, 1);
	return 0;
}
