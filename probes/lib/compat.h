// SPDX-License-Identifier: GPL-2.0-only
// compat.h - every difference between kernels, in one place.
//
// CB_HAS_<NAME> is defined when this kernel's BTF has the member that FIELDS in probes/c_names.py names.

#pragma once

#include "lib/common.h"

// Linux 2f064a59a11f ("sched: Change task_struct::state") (in v5.14) renamed `state` and made it 32 bits wide.
static __always_inline u32 cb_task_state(struct task_struct *task)
{
#ifdef CB_HAS_TASK___STATE
	return task->__state;
#else
	return task->state;
#endif
}

// The members of a request that are needed: most of them lie close together, and are read at once.
struct cb_request_head {
	struct bio *bio;
	u32 bytes;
	u32 flags;
	u32 device; // its disk, as stat(2) and /sys/dev/block number it; 0: it has none
};
#define CB_REQUEST_WORDS \
	((__builtin_offsetof(struct request, bio) + sizeof(struct bio *)) / sizeof(u64))
#define CB_REQUEST_MEMBER(words, kind, member) \
	(*(kind *)((char *)(words) + __builtin_offsetof(struct request, member)))

static __always_inline void cb_read_head(struct cb_request_head *head, struct request *rq)
{
	u64 words[CB_REQUEST_WORDS];
	struct gendisk *disk = NULL;
	u32 numbers[2];

	bpf_probe_read_kernel(words, sizeof(words), rq);
	head->bio = CB_REQUEST_MEMBER(words, struct bio *, bio);
	head->bytes = CB_REQUEST_MEMBER(words, u32, __data_len);
	head->flags = CB_REQUEST_MEMBER(words, u32, cmd_flags);
	// Linux f3fa33acca9f ("block: remove the ->rq_disk field in struct request") (in v5.17)
#ifdef CB_HAS_REQUEST_RQ_DISK
	bpf_probe_read_kernel(&disk, sizeof(disk), &rq->rq_disk);
#else
	bpf_probe_read_kernel(&disk, sizeof(disk),
			      &CB_REQUEST_MEMBER(words, struct request_queue *, q)->disk);
#endif
	_Static_assert(__builtin_offsetof(struct gendisk, first_minor) ==
			       __builtin_offsetof(struct gendisk, major) + sizeof(numbers[0]),
		       "numbers of a disk");
	bpf_probe_read_kernel(numbers, sizeof(numbers), &disk->major);
	head->device = numbers[0] << 20 | numbers[1];
}

// include/linux/blk_types.h: the same on all kernels since 4.10; the older ones have macros only.
#define CB_REQ_OP_MASK 0xff
#define CB_REQ_OP_READ 0
#define CB_REQ_OP_WRITE 1
#define CB_REQ_OP_DISCARD 3
#define CB_REQ_OP_SECURE_ERASE 5
#define CB_REQ_OP_WRITE_SAME \
	7 // until Linux 73bd66d9c834 ("scsi: sd: Rework the setting of WRITE SAME") (v5.18)
#define CB_REQ_OP_WRITE_ZEROES 9
#define CB_REQ_OP_COMMANDS \
	32 // from here on commands that are passed through: SCSI_IN, SCSI_OUT, DRV_IN, DRV_OUT

// The disk of a bio.
static __always_inline struct gendisk *cb_bio_disk(struct bio *bio)
{
	struct gendisk *disk = NULL;
	// Linux 309dca309fc3 ("block: store a block_device pointer in struct bio") (in v5.12)
#ifdef CB_HAS_BIO_BI_DISK
	bpf_probe_read_kernel(&disk, sizeof(disk), &bio->bi_disk);
#else
	struct block_device *device = NULL;

	bpf_probe_read_kernel(&device, sizeof(device), &bio->bi_bdev);
	bpf_probe_read_kernel(&disk, sizeof(disk), &device->bd_disk);
#endif
	return disk;
}

// The number of a disk, as in stat(2) and /sys/dev/block.
static __always_inline u32 cb_disk_number(struct gendisk *disk)
{
	u32 numbers[2] = {};

	bpf_probe_read_kernel(numbers, sizeof(numbers), &disk->major);
	return numbers[0] << 20 | numbers[1];
}

// Whether the disk's driver takes bios as they are submitted, and makes no requests of them: zram, md, most of device
// mapper.  A submit_bio() does not show this: before v5.11, a device mapper that makes requests has one too.
static __always_inline bool cb_goes_as_bio(struct bio *bio)
{
	struct request_queue *queue = NULL;
	void *requests = NULL;
#ifdef CB_HAS_BIO_BI_DISK
	struct gendisk *disk = NULL;

	bpf_probe_read_kernel(&disk, sizeof(disk), &bio->bi_disk);
	bpf_probe_read_kernel(&queue, sizeof(queue), &disk->queue);
#else
	struct block_device *device = NULL;

	bpf_probe_read_kernel(&device, sizeof(device), &bio->bi_bdev);
	bpf_probe_read_kernel(&queue, sizeof(queue), &device->bd_queue);
#endif
	if (!queue)
		return false;
	bpf_probe_read_kernel(&requests, sizeof(requests), &queue->mq_ops);
	return !requests;
}

// Whether the disk lies on others: its directory `slaves` in sysfs is not empty.
static __always_inline bool cb_disk_is_stacked(struct gendisk *disk)
{
	struct kobject *below = NULL;
	struct kernfs_node *directory = NULL;
	struct rb_node *entries = NULL;

	bpf_probe_read_kernel(&below, sizeof(below), &disk->slave_dir);
	bpf_probe_read_kernel(&directory, sizeof(directory), &below->sd);
	bpf_probe_read_kernel(&entries, sizeof(entries), &directory->dir.children.rb_node);
	return entries != NULL;
}

// The cgroup that a bio is accounted to; NULL if it has none.
static __always_inline struct cgroup *cb_bio_cgroup(struct bio *bio)
{
	struct cgroup *group = NULL;
#ifdef CB_HAS_BIO_BI_BLKG
	struct blkcg_gq *of_queue = NULL;
	struct blkcg *owner = NULL;

	bpf_probe_read_kernel(&of_queue, sizeof(of_queue), &bio->bi_blkg);
	bpf_probe_read_kernel(&owner, sizeof(owner), &of_queue->blkcg);
	bpf_probe_read_kernel(&group, sizeof(group), &owner->css.cgroup);
#endif
	return group;
}

// Reads what a kernel thread works on: the description of a worker, which is its workqueue's name unless the work has set
// another one; the name of any other thread.
#define CB_ERRAND_BYTES 16
#define CB_PF_WQ_WORKER 0x00000020 // include/linux/sched.h
static __always_inline void cb_read_errand(char *errand, struct task_struct *thread)
{
	struct kthread *kthread = NULL;
	struct worker *worker = NULL;
	u32 flags = 0;

	bpf_probe_read_kernel(&flags, sizeof(flags), &thread->flags);
	if (!(flags & CB_PF_WQ_WORKER)) {
		bpf_probe_read_kernel(errand, CB_ERRAND_BYTES, thread->comm);
		return;
	}
	// Linux e32cf5dfbe22 ("kthread: Generalize pf_io_worker so it can point to struct kthread") (in v5.17)
#ifdef CB_HAS_TASK_WORKER_PRIVATE
	bpf_probe_read_kernel(&kthread, sizeof(kthread), &thread->worker_private);
#else
	bpf_probe_read_kernel(&kthread, sizeof(kthread), &thread->set_child_tid);
#endif
	bpf_probe_read_kernel(&worker, sizeof(worker), &kthread->data);
	bpf_probe_read_kernel(errand, CB_ERRAND_BYTES, worker->desc);
}

// Linux 3ca1032ab7ab ("bpf: Implement get_current_task_btf and RET_PTR_TO_BTF_ID") (in v5.11): what the verifier knows
// to be a thread can be loaded from; reading each member by a helper costs more than all the rest.
#ifdef CB_HAS_CURRENT_TASK_BTF
#define CB_CURRENT_TASK() bpf_get_current_task_btf()
#else
#define CB_CURRENT_TASK() bpf_get_current_task()
#endif

// A byte of the current thread's task_struct: one that has a bit-field, which has no address.
static __always_inline u8 cb_current_byte(u32 offset)
{
#ifdef CB_HAS_CURRENT_TASK_BTF
	return *((u8 *)bpf_get_current_task_btf() + offset);
#else
	u8 byte = 0;

	bpf_probe_read_kernel(&byte, sizeof(byte), (void *)bpf_get_current_task() + offset);
	return byte;
#endif
}

// include/linux/sched.h: the same on all kernels since 4.14; macros are not in BTF.
#define CB_TASK_UNINTERRUPTIBLE 0x0002
#define CB_TASK_STOPPED 0x800c // __TASK_STOPPED, __TASK_TRACED, and TASK_FROZEN since v6.1
#define CB_TASK_DEAD 0x0080
#define CB_PF_KTHREAD 0x00200000
#define CB_NO_QUOTA (~0ULL) // kernel/sched/sched.h: RUNTIME_INF

// The user registers lie at the top of a thread's kernel stack (task_pt_regs()); the agent checks this at start-up
// by finding its own bpf(2) call there.
#if defined(CONFIG_ARM64)
#define CB_THREAD_SIZE 16384
#define CB_STACK_PADDING 0
#define CB_SYSCALL_NUMBER syscallno
#define CB_FIRST_ARGUMENT orig_x0
#else
#ifdef CONFIG_KASAN
#define CB_THREAD_SIZE 32768
#else
#define CB_THREAD_SIZE 16384
#endif
// Linux 65c9cc9e2c14 ("x86/fred: Reserve space for the FRED stack frame") (in v6.9)
#ifdef CONFIG_X86_FRED
#define CB_STACK_PADDING 16
#else
#define CB_STACK_PADDING 0
#endif
#define CB_SYSCALL_NUMBER orig_ax
#define CB_FIRST_ARGUMENT di
#endif
#define CB_SYSCALL_OFFSET __builtin_offsetof(struct pt_regs, CB_SYSCALL_NUMBER)
#define CB_REGS_OFFSET (CB_THREAD_SIZE - CB_STACK_PADDING - sizeof(struct pt_regs))

// The function that was called by the instruction before this return address; 0 if it was called by a register.
static __always_inline u64 cb_called_before(u64 return_address)
{
#if defined(CONFIG_ARM64)
	u32 code = 0;

	bpf_probe_read_kernel(&code, sizeof(code), (void *)(return_address - 4));
	// bl: six bits, and 26 bits of distance in words
	return code >> 26 == 0x25 ? return_address - 4 + ((long long)((u64)code << 38) >> 36) : 0;
#else
	u64 code = 0;

	bpf_probe_read_kernel(&code, sizeof(code), (void *)(return_address - 8));
	// call: the byte e8, and 32 bits of distance
	return (code >> 24 & 0xff) == 0xe8 ? return_address + (long long)(int)(code >> 32) : 0;
#endif
}

// x86-64: arch/x86/include/asm/thread_info.h; a 32-bit call has the i386 numbers.
#define CB_TS_COMPAT 0x0002

static __always_inline bool cb_is_32bit_call(void)
{
#if defined(CONFIG_X86_64) && defined(CONFIG_IA32_EMULATION)
	struct task_struct *task = (struct task_struct *)CB_CURRENT_TASK();

	return task->thread_info.status & CB_TS_COMPAT;
#else
	return false;
#endif
}

static __always_inline bool cb_task_is_in_32bit_call(struct task_struct *task)
{
#if defined(CONFIG_X86_64) && defined(CONFIG_IA32_EMULATION)
	return task->thread_info.status & CB_TS_COMPAT;
#else
	return false;
#endif
}

// x86-64: arch/x86/include/uapi/asm/unistd.h; the bit that a call of the x32 ABI has in addition to its number.
#define CB_X32_CALL 0x40000000

// Two adjacent members of the registers with which a thread entered the kernel.
struct cb_call_registers {
	u64 first; // argument of the call
	u64 number;
};

static __always_inline void cb_read_call_registers(struct cb_call_registers *to, u64 regs)
{
	_Static_assert(__builtin_offsetof(struct pt_regs, CB_FIRST_ARGUMENT) + sizeof(u64) ==
			       CB_SYSCALL_OFFSET,
		       "the first argument and the number of a call");
	bpf_probe_read_kernel(to, sizeof(*to),
			      (void *)regs + __builtin_offsetof(struct pt_regs, CB_FIRST_ARGUMENT));
}

// The first argument of a 32-bit call.
static __always_inline u64 cb_first_compat_argument(u64 regs)
{
	u64 argument = 0;

#if !defined(CONFIG_ARM64)
	bpf_probe_read_kernel(&argument, sizeof(argument),
			      (void *)regs + __builtin_offsetof(struct pt_regs, bx));
#endif
	return argument;
}

// One of the first four arguments of the system call under way; they stay in the registers until it returns.
// They are read explicitly: BCC decides by a function's first caller whether a pointer is the kernel's, and one caller
// passes no registers.
static __always_inline u64 cb_call_argument(struct pt_regs *regs, u32 index)
{
	u64 value = 0;
	u32 offset;

#if defined(CONFIG_ARM64)
	offset = index == 0 ? __builtin_offsetof(struct pt_regs, orig_x0)
			    : __builtin_offsetof(struct pt_regs, regs) + index * sizeof(u64);
#else
	if (cb_is_32bit_call())
		offset = index == 0   ? __builtin_offsetof(struct pt_regs, bx)
			 : index == 1 ? __builtin_offsetof(struct pt_regs, cx)
			 : index == 2 ? __builtin_offsetof(struct pt_regs, dx)
				      : __builtin_offsetof(struct pt_regs, si);
	else
		offset = index == 0   ? __builtin_offsetof(struct pt_regs, di)
			 : index == 1 ? __builtin_offsetof(struct pt_regs, si)
			 : index == 2 ? __builtin_offsetof(struct pt_regs, dx)
				      : __builtin_offsetof(struct pt_regs, r10);
#endif
	bpf_probe_read_kernel(&value, sizeof(value), (void *)regs + offset);
	return value;
}

// The result of a call at sys_exit: -4095 to -1 is an error.  Restart codes (include/linux/errno.h) are not errors yet: a
// signal came, and the kernel decides later whether the call is made again or returns EINTR.
#define CB_MAX_ERRNO 4095
#define CB_ERESTARTSYS 512
#define CB_ERESTARTNOINTR 513
#define CB_ERESTARTNOHAND 514
#define CB_ERESTART_RESTARTBLOCK 516

// The number of the error; 0: the call succeeded.
static __always_inline u32 cb_call_error(long ret)
{
	return (u64)ret >= (u64)-CB_MAX_ERRNO ? -ret : 0;
}

static __always_inline bool cb_is_restart(u32 error)
{
	return error == CB_ERESTARTSYS || error == CB_ERESTARTNOINTR ||
	       error == CB_ERESTARTNOHAND || error == CB_ERESTART_RESTARTBLOCK;
}

// Whether an interrupt has stopped the current thread and is being served.  On arm64 the preemption count is in the thread;
// elsewhere it is a per-CPU variable, CB_PREEMPT_COUNT bytes from the CPU's run queue (loading/preempt_count.py).
// The bits are those of include/linux/preempt.h: NMI, hard interrupt, serving a soft one.
#define CB_INTERRUPT_BITS 0x00ff0100

// The address of this CPU's count; 0 until it was looked for.
BPF_PERCPU_ARRAY(cb_preempt_count, u64, 1);

static __always_inline bool cb_in_interrupt(void)
{
	struct task_struct *current = (struct task_struct *)bpf_get_current_task();
	u32 count = 0;
#ifdef CB_HAS_THREAD_INFO_PREEMPT_COUNT
	count = current->thread_info.preempt_count;
#elif defined(CB_PREEMPT_COUNT)
	int zero = 0;
	u64 *place = cb_preempt_count.lookup(&zero);

	if (!place)
		return false;
	if (!*place) {
		struct cfs_rq *queue = current->se.cfs_rq; // of every thread, in whatever class
		struct rq *cpu = queue->rq;

		if (!cpu)
			return false;
		*place = (u64)cpu + (CB_PREEMPT_COUNT);
	}
	bpf_probe_read_kernel(&count, sizeof(count), (void *)*place);
#endif
	return count & CB_INTERRUPT_BITS;
}

#if defined(CONFIG_ARM64_PAGE_SHIFT)
#define CB_PAGE_SHIFT CONFIG_ARM64_PAGE_SHIFT
#else
#define CB_PAGE_SHIFT 12
#endif

// Where a folio says how many pages it has, if it is a large one.  Before there were folios, the second page says it.
#if defined(CB_HAS_FOLIO__NR_PAGES)
#define CB_FOLIO_PAGES __builtin_offsetof(struct folio, _nr_pages)
#elif defined(CB_HAS_FOLIO__FOLIO_NR_PAGES)
#define CB_FOLIO_PAGES __builtin_offsetof(struct folio, _folio_nr_pages)
#else
#define CB_FOLIO_PAGES (sizeof(struct page) + __builtin_offsetof(struct page, compound_nr))
#endif

// The position in its file, in pages, of the folio that begins with this page, or of the page.
#ifdef CB_HAS_PAGE_INDEX
#define CB_PAGE_INDEX __builtin_offsetof(struct page, index)
#else
#define CB_PAGE_INDEX __builtin_offsetof(struct folio, index)
#endif

static __always_inline u64 cb_page_index(struct page *page)
{
	u64 index = 0;

	bpf_probe_read_kernel(&index, sizeof(index), (void *)page + CB_PAGE_INDEX);
	return index;
}

// The number of pages of the folio that begins with this page; 1 for a single page.
static __always_inline u32 cb_pages(struct page *page)
{
	enum pageflags head = PG_head;
	u64 flags = 0;
	u32 pages = 1;

	bpf_probe_read_kernel(&flags, sizeof(flags),
			      (void *)page + __builtin_offsetof(struct page, flags));
	if (flags & (1ULL << head))
		bpf_probe_read_kernel(&pages, sizeof(pages), (void *)page + CB_FOLIO_PAGES);
	return pages;
}

// The address to which the function of user space that has just been entered will return.
static __always_inline u64 cb_called_at(struct pt_regs *entered)
{
#if defined(CONFIG_ARM64)
	return entered->regs[30];
#else
	u64 address = 0;

	bpf_probe_read_user(&address, sizeof(address), (void *)PT_REGS_SP(entered));
	return address;
#endif
}

// Members of the arguments of kernel functions, which BCC does not read by itself.
static __always_inline struct sock *cb_sock_of(struct socket *socket)
{
	struct sock *sk = NULL;

	bpf_probe_read_kernel(&sk, sizeof(sk), &socket->sk);
	return sk;
}

// The pages of a file that a buffered read asks for, from the first to the last.
static __always_inline struct address_space *cb_read_mapping(struct kiocb *iocb)
{
	struct address_space *mapping = NULL;
	struct file *file = NULL;

	bpf_probe_read_kernel(&file, sizeof(file), &iocb->ki_filp);
	bpf_probe_read_kernel(&mapping, sizeof(mapping), &file->f_mapping);
	return mapping;
}

static __always_inline u64 cb_read_position(struct kiocb *iocb)
{
	u64 position = 0;

	bpf_probe_read_kernel(&position, sizeof(position), &iocb->ki_pos);
	return position;
}

static __always_inline u64 cb_read_first(struct kiocb *iocb)
{
	return cb_read_position(iocb) >> CB_PAGE_SHIFT;
}

static __always_inline u64 cb_read_last(struct kiocb *iocb, struct iov_iter *to)
{
	u64 bytes = 0;

	bpf_probe_read_kernel(&bytes, sizeof(bytes), &to->count);
	return (cb_read_position(iocb) + bytes - 1) >> CB_PAGE_SHIFT;
}
