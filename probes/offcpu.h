// SPDX-License-Identifier: GPL-2.0-only
// offcpu.h - the wait key: what a thread is blocked in, in 32 bits.  wait_key.py is the other half of this layout.
//
// The key has the number of the system call, whether that is i386's, the state of the thread, and the kind of the file
// behind the call's descriptor.  All of it is read where the thread blocks, so only calls that block pay for it.

#pragma once

#include "lib/task.h"
#include "generated/offcpu.h"

#define OFFCPU_NUMBER_MASK 0x3ff
#define OFFCPU_NO_CALL 0x3ff      // a page fault or another exception, or a kernel thread
#define OFFCPU_UNKNOWN_CALL 0x3fe // a larger number than there is room for
#define OFFCPU_COMPAT (1 << 10)
#define OFFCPU_UNINTERRUPTIBLE (1 << 11)
#define OFFCPU_IOWAIT (1 << 12)
#define OFFCPU_STOPPED (1 << 13)
#define OFFCPU_FILE_SHIFT 14
#define OFFCPU_SOCKET 64 // and the address family

enum offcpu_file_kind {
	OFFCPU_FILE_NONE,
	OFFCPU_FILE_PIPE,
	OFFCPU_FILE_CHAR,
	OFFCPU_FILE_TTY,
	OFFCPU_FILE_DIRECTORY,
	OFFCPU_FILE_BLOCK,
	OFFCPU_FILE_REGULAR,
	OFFCPU_FILE_ANON,
	OFFCPU_FILE_EVENTFD,
	OFFCPU_FILE_TIMERFD,
	OFFCPU_FILE_SIGNALFD,
	OFFCPU_FILE_INOTIFY,
	OFFCPU_FILE_FANOTIFY,
	OFFCPU_FILE_EPOLL,
	OFFCPU_FILE_IO_URING,
	OFFCPU_FILE_USERFAULTFD,
	OFFCPU_FILE_PIDFD,
	OFFCPU_FILE_MQUEUE,
	OFFCPU_FILE_CGROUP_V1,
};

// The agent fills both maps.  By number of a system call: whether its first argument is the descriptor that it waits for.
#define OFFCPU_NATIVE_TAKES_FILE 1
#define OFFCPU_COMPAT_TAKES_FILE 2
BPF_ARRAY(offcpu_file_calls, u32, OFFCPU_FILE_CALLS_ENTRIES);
// By major number of a character device: whether it is a terminal's (/proc/tty/drivers).
BPF_ARRAY(offcpu_tty_majors, u32, OFFCPU_TTY_MAJORS_ENTRIES);

// include/uapi/linux/stat.h
#define OFFCPU_TYPE(mode) ((mode) >> 12 & 017)
enum offcpu_file_type {
	OFFCPU_TYPE_FIFO = 1,
	OFFCPU_TYPE_CHAR = 2,
	OFFCPU_TYPE_DIRECTORY = 4,
	OFFCPU_TYPE_BLOCK = 6,
	OFFCPU_TYPE_SOCKET = 12,
};

// include/uapi/linux/magic.h, ipc/mqueue.c, fs/pidfs.c
#define OFFCPU_ANON_INODE_FS 0x09041934
#define OFFCPU_MQUEUE_FS 0x19800202
#define OFFCPU_PIDFS 0x50494446
#define OFFCPU_CGROUP_V1_FS 0x0027e0eb

// How the names of anonymous files begin: 8 bytes, as a little-endian number.
#define OFFCPU_NAME(a, b, c, d, e, f, g, h)                                            \
	((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | \
	 (u64)(f) << 40 | (u64)(g) << 48 | (u64)(h) << 56)

static __always_inline u32 offcpu_anonymous_file(struct file *file)
{
	struct dentry *dentry = NULL;
	const unsigned char *text = NULL;
	u64 name = 0;

	bpf_probe_read_kernel(&dentry, sizeof(dentry), &file->f_path.dentry);
	bpf_probe_read_kernel(&text, sizeof(text), &dentry->d_name.name);
	bpf_probe_read_kernel(&name, sizeof(name), text);
	if (name == OFFCPU_NAME('[', 'e', 'v', 'e', 'n', 't', 'f', 'd'))
		return OFFCPU_FILE_EVENTFD;
	if (name == OFFCPU_NAME('[', 't', 'i', 'm', 'e', 'r', 'f', 'd'))
		return OFFCPU_FILE_TIMERFD;
	if (name == OFFCPU_NAME('[', 's', 'i', 'g', 'n', 'a', 'l', 'f'))
		return OFFCPU_FILE_SIGNALFD;
	if (name == OFFCPU_NAME('i', 'n', 'o', 't', 'i', 'f', 'y', 0))
		return OFFCPU_FILE_INOTIFY;
	if (name == OFFCPU_NAME('[', 'f', 'a', 'n', 'o', 't', 'i', 'f'))
		return OFFCPU_FILE_FANOTIFY;
	if (name == OFFCPU_NAME('[', 'e', 'v', 'e', 'n', 't', 'p', 'o'))
		return OFFCPU_FILE_EPOLL;
	if (name == OFFCPU_NAME('[', 'i', 'o', '_', 'u', 'r', 'i', 'n'))
		return OFFCPU_FILE_IO_URING;
	if (name == OFFCPU_NAME('[', 'u', 's', 'e', 'r', 'f', 'a', 'u'))
		return OFFCPU_FILE_USERFAULTFD;
	if (name == OFFCPU_NAME('[', 'p', 'i', 'd', 'f', 'd', ']', 0))
		return OFFCPU_FILE_PIDFD;
	return OFFCPU_FILE_ANON;
}

// An anonymous inode is of no type, or looks like a regular file's: its file system decides.
static __always_inline u32 offcpu_regular_file(struct file *file, struct inode *inode)
{
	struct super_block *super = NULL;
	unsigned long magic = 0;

	bpf_probe_read_kernel(&super, sizeof(super), &inode->i_sb);
	bpf_probe_read_kernel(&magic, sizeof(magic), &super->s_magic);
	if (magic == OFFCPU_ANON_INODE_FS)
		return offcpu_anonymous_file(file);
	if (magic == OFFCPU_MQUEUE_FS)
		return OFFCPU_FILE_MQUEUE;
	if (magic == OFFCPU_PIDFS)
		return OFFCPU_FILE_PIDFD;
	if (magic == OFFCPU_CGROUP_V1_FS)
		return OFFCPU_FILE_CGROUP_V1;
	return OFFCPU_FILE_REGULAR;
}

static __always_inline u32 offcpu_socket(struct file *file)
{
	struct socket *socket = NULL;
	struct sock *sk = NULL;
	u16 family = 0;

	bpf_probe_read_kernel(&socket, sizeof(socket), &file->private_data);
	bpf_probe_read_kernel(&sk, sizeof(sk), &socket->sk);
	bpf_probe_read_kernel(&family, sizeof(family), &sk->__sk_common.skc_family);
	return OFFCPU_SOCKET + (family & 0x3f);
}

static __always_inline u32 offcpu_character_device(struct inode *inode)
{
	u32 *terminal, device = 0, major;

	bpf_probe_read_kernel(&device, sizeof(device), &inode->i_rdev);
	major = device >> 20;
	terminal = offcpu_tty_majors.lookup((int *)&major);
	return terminal && *terminal ? OFFCPU_FILE_TTY : OFFCPU_FILE_CHAR;
}

// The registers and members of a thread that its key is made of.
struct offcpu_blocked_task {
	u64 regs;            // address of the saved user registers; 0 for a kernel thread
	struct file **files; // by descriptor
	u32 descriptors;     // how many it has room for
	u32 state;
	bool compat;
	u8 iowait; // the byte of task_struct that has the bit
};

// The kind of the file that is open as `fd`.  Another thread may close it meanwhile; then it is of the kind that it was, or
// none: nothing is freed before this program ends (RCU).
static __always_inline u32 offcpu_file(struct offcpu_blocked_task *of, u32 fd)
{
	struct inode *inode = NULL;
	struct file *file = NULL;
	u16 mode = 0;

	if (fd >= of->descriptors)
		return OFFCPU_FILE_NONE;
	bpf_probe_read_kernel(&file, sizeof(file), of->files + fd);
	if (!file)
		return OFFCPU_FILE_NONE;
	bpf_probe_read_kernel(&inode, sizeof(inode), &file->f_inode);
	bpf_probe_read_kernel(&mode, sizeof(mode), &inode->i_mode);
	switch (OFFCPU_TYPE(mode)) {
	case OFFCPU_TYPE_FIFO:
		return OFFCPU_FILE_PIPE;
	case OFFCPU_TYPE_SOCKET:
		return offcpu_socket(file);
	case OFFCPU_TYPE_CHAR:
		return offcpu_character_device(inode);
	case OFFCPU_TYPE_DIRECTORY:
		return OFFCPU_FILE_DIRECTORY;
	case OFFCPU_TYPE_BLOCK:
		return OFFCPU_FILE_BLOCK;
	}
	return offcpu_regular_file(file, inode);
}

static __always_inline u32 offcpu_call_number(u64 number)
{
	if ((long long)number < 0)
		return OFFCPU_NO_CALL;
	number &= ~(u64)CB_X32_CALL;
	return number < OFFCPU_UNKNOWN_CALL ? number : OFFCPU_UNKNOWN_CALL;
}

static __always_inline u32 offcpu_key(struct offcpu_blocked_task *of)
{
	struct cb_call_registers registers = { .number = ~0ULL };
	u32 key, *takes_file, call;

	if (of->regs)
		cb_read_call_registers(&registers, of->regs);
	call = offcpu_call_number(registers.number);
	key = call;
	if (of->state & CB_TASK_UNINTERRUPTIBLE)
		key |= OFFCPU_UNINTERRUPTIBLE;
	if (of->state & CB_TASK_STOPPED)
		key |= OFFCPU_STOPPED;
	if (of->iowait & CB_IN_IOWAIT_MASK)
		key |= OFFCPU_IOWAIT;
	if (call == OFFCPU_NO_CALL)
		return key;
	if (of->compat)
		key |= OFFCPU_COMPAT;
	takes_file = offcpu_file_calls.lookup((int *)&call);
	if (!takes_file ||
	    !(*takes_file & (of->compat ? OFFCPU_COMPAT_TAKES_FILE : OFFCPU_NATIVE_TAKES_FILE)))
		return key;
	if (of->compat)
		registers.first = cb_first_compat_argument(of->regs);
	return key | offcpu_file(of, registers.first) << OFFCPU_FILE_SHIFT;
}
