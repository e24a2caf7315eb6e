// SPDX-License-Identifier: GPL-2.0-only
// io.c - what system calls do with files, and what their reads find in the page cache; block requests are in io.h.

#include "lib/task.h"
#include "io.h"

// ---- files: a regular file, a directory or a block device; not a pipe, a socket, a terminal

// include/uapi/linux/stat.h
#define IO_TYPE 0170000
#define IO_REGULAR 0100000
#define IO_BLOCK_DEVICE 0060000
#define IO_DIRECTORY 0040000

static __always_inline u32 io_type(struct inode *inode)
{
	u16 mode = 0;

	bpf_probe_read_kernel(&mode, sizeof(mode), &inode->i_mode);
	return mode & IO_TYPE;
}

// The type of the file that the current thread has open as `fd`; 0 if it has none.
static __always_inline u32 io_file(u32 fd)
{
	struct task_struct *task = (struct task_struct *)CB_CURRENT_TASK();
	struct files_struct *files = task->files;
	struct fdtable *table;
	struct inode *inode = NULL;
	struct file *file = NULL;
	u32 type;

	// all of it may be changed by another thread meanwhile; nothing is freed before this program ends (RCU)
	table = files->fdt;
	if (fd >= table->max_fds)
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), table->fd + fd);
	if (!file)
		return 0;
	bpf_probe_read_kernel(&inode, sizeof(inode), &file->f_inode);
	type = io_type(inode);
	return type == IO_REGULAR || type == IO_BLOCK_DEVICE || type == IO_DIRECTORY ? type : 0;
}

// The steps by which the file is found whose pages a read under way reads: in a layered file system, it is a file below the
// one that was opened.  Pages that are added for other files meanwhile do not belong to the read: those of a mapped file
// that it copies to or from, and the blocks in which the file system finds the file.
enum io_pages {
	IO_PAGES_NONE,
	IO_PAGES_ADDED, // `noted` pages of `mapping` were added, before it asked for any
	IO_PAGES_ASKED, // it asked for the pages of `mapping` before `noted`
};

static __always_inline void io_on_call_begins(struct cb_event *ev, struct cb_io *io,
					      struct cb_task *task, struct pt_regs *regs, u32 kind)
{
	if (kind != CB_CALL_READ && kind != CB_CALL_WRITE && kind != CB_CALL_CLOSE)
		return;
	task->file = io_file(cb_call_argument(regs, 0)); // after close there is nothing to look at
	task->noted = 0;
	task->pages = IO_PAGES_NONE;
}

static __always_inline void io_read_done(struct cb_event *ev, struct cb_io *io,
					 struct cb_task *task, u64 bytes, u64 ns)
{
	struct cb_process *process = cb_process_of(ev, task->tgid);

	io->file_reads++;
	io->file_reads_bytes += bytes;
	cb_observe(ev, &io->read_latency_ns, ns);
	if (process) {
		__sync_fetch_and_add(&process->io_file_reads, 1);
		__sync_fetch_and_add(&process->io_file_reads_bytes, bytes);
	}
}

static __always_inline void io_write_done(struct cb_event *ev, struct cb_io *io,
					  struct cb_task *task, u64 bytes, u64 ns)
{
	struct cb_process *process = cb_process_of(ev, task->tgid);

	io->file_writes++;
	io->file_writes_bytes += bytes;
	cb_observe(ev, &io->write_latency_ns, ns);
	if (process) {
		__sync_fetch_and_add(&process->io_file_writes, 1);
		__sync_fetch_and_add(&process->io_file_writes_bytes, bytes);
	}
}

static __always_inline void io_sync_done(struct cb_event *ev, struct cb_io *io,
					 struct cb_task *task, bool data_only, u64 ns)
{
	struct cb_process *process = cb_process_of(ev, task->tgid);

	cb_observe(ev, &io->fsync_latency_ns, ns);
	if (ns >= CB_SLOW_IO_NS)
		cb_emit_current(ev, IO_EVENT_SLOW_FSYNC, ns);
	if (data_only)
		io->fdatasyncs++;
	else
		io->fsyncs++;
	if (process && data_only)
		__sync_fetch_and_add(&process->io_fdatasyncs, 1);
	else if (process)
		__sync_fetch_and_add(&process->io_fsyncs, 1);
}

// include/uapi/asm-generic/mman-common.h
#define IO_MAP_ANONYMOUS 0x20

static __always_inline void io_other_done(struct cb_io *io, struct pt_regs *regs, u32 kind,
					  long ret)
{
	u64 call = kind - CB_CALL_SENDFILE;

	if (kind == CB_CALL_MMAP && cb_call_argument(regs, 3) & IO_MAP_ANONYMOUS)
		return;
	io->other_file_calls[cb_clamp(call, IO_OTHER_FILE_CALLS_ENTRIES)]++;
	if (kind <= CB_CALL_COPY_FILE_RANGE) // the others return no bytes
		io->other_file_bytes[cb_clamp(call, IO_OTHER_FILE_BYTES_ENTRIES)] += ret;
}

static __always_inline void io_on_call_done(struct cb_event *ev, struct cb_io *io,
					    struct cb_task *task, struct pt_regs *regs, u32 kind,
					    long ret, u64 ns)
{
	if (kind == CB_CALL_CLOSE && task->file)
		io->file_closes++; // even if it fails, the descriptor is closed
	if (kind == CB_CALL_READ && task->pages == IO_PAGES_ADDED)
		io->page_cache_other_pages += task->noted; // it never asked: O_DIRECT
	if (cb_call_error(ret))
		return;
	if (kind >= CB_CALL_SENDFILE && kind <= CB_CALL_MMAP) {
		io_other_done(io, regs, kind, ret);
		return;
	}
	if (kind == CB_CALL_READ && task->file)
		io_read_done(ev, io, task, ret, ns);
	else if (kind == CB_CALL_WRITE && task->file)
		io_write_done(ev, io, task, ret, ns);
	else if (kind == CB_CALL_OPEN && io_file(ret))
		io->file_opens++;
	else if (kind == CB_CALL_FSYNC || kind == CB_CALL_FDATASYNC)
		io_sync_done(ev, io, task, kind == CB_CALL_FDATASYNC, ns);
}

// ---- the page cache, as reads find it

static __always_inline u64 io_pages_of(struct inode *host)
{
	u64 size = 0;

	bpf_probe_read_kernel(&size, sizeof(size), &host->i_size);
	return (size + (1 << CB_PAGE_SHIFT) - 1) >> CB_PAGE_SHIFT;
}

// A read asks for pages of `mapping`: pages of it that were added before were added for this read.  The source of the hook
// decides whether the request is seen before or after the pages that are added.
static __always_inline void io_ask(struct cb_io *io, struct cb_task *task, u64 mapping)
{
	if (task->pages == IO_PAGES_ASKED && task->mapping == mapping)
		return;
	if (task->pages == IO_PAGES_ADDED && task->mapping == mapping)
		io->page_cache_misses += task->noted;
	else if (task->pages == IO_PAGES_ADDED)
		io->page_cache_other_pages += task->noted;
	task->pages = IO_PAGES_ASKED;
	task->mapping = mapping;
	task->noted = 0;
}

// A read asks again for what is left of its pages after each batch that it got: each page counts once.
static __always_inline void io_on_page_cache_asked(struct cb_event *ev, struct cb_io *io,
						   struct address_space *mapping,
						   unsigned long first, unsigned long last)
{
	struct cb_task *task = cb_current_known(ev);
	struct inode *host = NULL;
	u64 weight, pages;

	if (!task || task->call != CB_CALL_READ)
		return;
	io_ask(io, task, (u64)mapping);
	if (first < task->noted)
		first = task->noted;
	task->noted = last + 1;
	weight = cb_weight(ev);
	if (!weight)
		return;
	bpf_probe_read_kernel(&host, sizeof(host), &mapping->host);
	pages = io_pages_of(host); // a buffer may be larger than the file
	if (last >= pages)
		last = pages - 1;
	if (pages && first <= last)
		io->pages_asked += (last - first + 1) * weight;
}

// Until the read asks for pages, it is not known whether pages that are added are for it.  The pages of the file that was
// added to last may be, and are noted; pages of other files before that were for something else.
static __always_inline void io_add(struct cb_io *io, struct cb_task *task, u64 mapping, u64 pages)
{
	if (task->pages == IO_PAGES_ASKED) {
		if (task->mapping == mapping)
			io->page_cache_misses += pages;
		else
			io->page_cache_other_pages += pages;
		return;
	}
	if (task->pages == IO_PAGES_NONE || task->mapping != mapping) {
		io->page_cache_other_pages += task->noted;
		task->pages = IO_PAGES_ADDED;
		task->mapping = mapping;
		task->noted = 0;
	}
	task->noted += pages;
}

// The page behind the end of a file does not count: before v5.12, a read adds it to find out that there is nothing to read.
static __always_inline void io_on_page_cache_added(struct cb_event *ev, struct cb_io *io,
						   struct page *page)
{
	struct cb_task *task = cb_current_known(ev);
	struct address_space *mapping = NULL;
	struct inode *host = NULL;

	if (!task || task->call != CB_CALL_READ || !task->file)
		return;
	bpf_probe_read_kernel(&mapping, sizeof(mapping), &page->mapping);
	bpf_probe_read_kernel(&host, sizeof(host), &mapping->host);
	if (cb_page_index(page) < io_pages_of(host))
		io_add(io, task, (u64)mapping, cb_pages(page));
}
