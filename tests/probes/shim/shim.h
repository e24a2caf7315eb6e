// shim.h - enough of BCC and of the kernel to run the fused unit as ordinary C, with a clock we hold.
//
// Every map becomes cells that a test can read, behind the function-pointer members that BCC's own macros declare.
// The unit's text is compiled behind this file, unchanged.

#include <stdlib.h>
#include <string.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef int s32;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef _Bool bool;

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

// ---- the kernel's structs: only the members that the probes read

struct pt_regs {
	u64 others[5];
	u64 bx;
	u64 r11, r10, r9, r8, ax;
	u64 cx, dx, si, di;
	u64 orig_ax;
	u64 more[5];
};
// a kprobe is fired like a raw tracepoint; a kretprobe only with the result
#define PT_REGS_PARM1(ctx) ((u64 *)(ctx))[0]
#define PT_REGS_PARM2(ctx) ((u64 *)(ctx))[1]
#define PT_REGS_PARM3(ctx) ((u64 *)(ctx))[2]
#define PT_REGS_PARM4(ctx) ((u64 *)(ctx))[3]
#define PT_REGS_RC(ctx) ((u64 *)(ctx))[0]
// where a function of user space was called
u64 shim_called_at;
#define PT_REGS_SP(ctx) ((u64)&shim_called_at)
struct list_head { struct list_head *next, *prev; };
struct rb_node { u64 unused; };
struct kernfs_node {
	u64 id;
	struct { struct { struct rb_node *rb_node; } children; } dir;
};
enum cgroup_subsys_id { cpuset_cgrp_id, io_cgrp_id, CGROUP_SUBSYS_COUNT };
struct cgroup {
	struct kernfs_node *kn;
	int level;
	struct cgroup_root *root;
	struct list_head e_csets[CGROUP_SUBSYS_COUNT];
	u64 ancestor_ids[4];        // its name before v6.1
	struct cgroup *ancestors[4]; // the last one is itself
};
struct css_set {
	struct cgroup *dfl_cgrp;
	struct list_head tasks;
	struct list_head e_cset_node[CGROUP_SUBSYS_COUNT];
};
struct signal_struct { struct { int counter; } live; };
struct rq {
	u32 preempt_count;
	u64 clock, clock_task, clock_pelt, lost_idle_time;
};
struct task_group;
struct cfs_rq {
	struct task_group *tg;
	int throttle_count;
	u64 throttled_clock_self, throttled_clock_self_time;
	u64 throttled_clock_pelt, throttled_clock_pelt_time; // before v6.6
	u64 throttled_clock_task, throttled_clock_task_time; // before v6.0
	struct rq *rq;
};
struct task_group {
	struct { struct cgroup *cgroup; } css;
	struct task_group *parent;
	struct { u64 quota; int nr_throttled; u64 throttled_time; } cfs_bandwidth;
};
enum pageflags { PG_head = 6 };
struct super_block { unsigned long s_magic; };
struct inode {
	unsigned short i_mode;
	u64 i_size;
	u32 i_rdev;
	struct super_block *i_sb;
};
struct dentry {
	struct { const unsigned char *name; } d_name;
	unsigned char name[32];
};
struct address_space { struct inode *host; };
struct file {
	struct inode *f_inode;
	struct address_space *f_mapping;
	struct { struct dentry *dentry; } f_path;
	void *private_data;
};
struct fdtable {
	u32 max_fds;
	struct file **fd;
};
struct files_struct { struct fdtable *fdt; };
struct page {
	u64 flags;
	struct address_space *mapping;
	u64 index;
	u32 compound_nr; // of the second page
};
struct folio {
	union {
		struct page page;
		struct { u64 flags; struct address_space *mapping; u64 index; };
	};
	u32 _folio_nr_pages; // its name before v6.15
	u32 _nr_pages;
};
struct kiocb {
	struct file *ki_filp;
	u64 ki_pos;
};
struct iov_iter { u64 count; };
struct task_struct {
	struct { u32 status; u32 preempt_count; } thread_info;
	u32 flags;
	int pid, tgid, on_cpu, prio;
	bool throttled; // since v6.18
	u8 in_iowait; // a bit-field, in the kernel
	u32 __state;
	long state; // its name before v5.14
	void *stack;
	struct task_struct *real_parent, *group_leader;
	struct task_group *sched_task_group;
	struct { struct cfs_rq *cfs_rq; u64 sum_exec_runtime; } se;
	struct { u64 run_delay; } sched_info;
	struct css_set *cgroups;
	struct list_head cg_list;
	struct kthread *worker_private;
	int *set_child_tid; // where that is before v5.17
	struct signal_struct *signal;
	struct files_struct *files;
	u64 start_time, self_exec_id, nvcsw;
	u64 frames[16]; // of its kernel stack, while it sleeps
	char comm[16];
};
#define CB_IN_IOWAIT_BYTE __builtin_offsetof(struct task_struct, in_iowait)
#define CB_IN_IOWAIT_MASK 1
struct worker { char desc[32]; };
struct kthread { struct worker *data; };
struct bio;
struct bio_vec { u64 page; };
struct bvec_iter {
	u64 bi_sector;
	u32 bi_size;
};
struct blkcg { struct { struct cgroup *cgroup; } css; };
struct blkcg_gq { struct blkcg *blkcg; };
struct request_queue {
	struct gendisk *disk;
	void *mq_ops;
};
struct kobject { struct kernfs_node *sd; };
struct gendisk {
	int major, first_minor;
	struct request_queue *queue;
	struct kobject *slave_dir;
};
struct block_device {
	struct gendisk *bd_disk;
	struct request_queue *bd_queue;
};
enum req_flag_bits { __REQ_META = 12 };
struct bio {
	void *bi_private;
	struct block_device *bi_bdev;
	struct gendisk *bi_disk; // before v5.12
	u32 bi_opf;
	struct bvec_iter bi_iter;
	struct bio_vec *bi_io_vec;
	struct blkcg_gq *bi_blkg;
	u64 others[8]; // no less than the kernel's, because what is noted of bios is where they lie
};
struct request {
	struct request_queue *q;
	u32 cmd_flags, __data_len;
	struct bio *bio;
	struct gendisk *rq_disk; // before v5.17
};
struct linux_binprm { int unused; };
enum { IPPROTO_TCP = 6, IPPROTO_UDP = 17 };
enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT, TCP_SYN_RECV, TCP_CLOSE = 7, TCP_LISTEN = 10 };
#define AF_INET 2
#define AF_INET6 10
struct sock {
	struct { u16 skc_family; u8 skc_state; } __sk_common;
	struct { int owned; } sk_lock;
	u16 sk_type, sk_protocol;
	u8 sk_shutdown;
};
struct tcp_ulp_ops { char name[16]; };
struct inet_connection_sock {
	struct sock sk;
	const struct tcp_ulp_ops *icsk_ulp_ops;
	void *icsk_ulp_data;
};
struct mptcp_subflow_context { struct sock *conn; };
struct mptcp_sock { struct sock sk; struct sock *first; };
struct tcp_sock {
	struct inet_connection_sock inet_conn;
	u32 segs_in, segs_out, srtt_us;
};
struct socket { struct sock *sk; };
struct sk_buff { u64 others; char cb[48]; };
struct tcp_skb_cb {
	u32 seq, end_seq;
	struct { u16 tcp_gso_segs, tcp_gso_size; };
};
struct mutex;
struct rw_semaphore;
struct semaphore;
struct qspinlock;
typedef struct { u32 unused; } raw_spinlock_t;
struct bpf_raw_tracepoint_args { u64 args[8]; };
struct bpf_perf_event_data { u64 unused; };
struct bpf_perf_event_value { u64 counter, enabled, running; };

// ---- what a test holds in its hand

#define SHIM_CPUS 4
u64 shim_now_ns;
u32 shim_cpu;
s32 shim_stack_id = -1;
u64 shim_stack_walks;
u32 shim_random;
struct task_struct *shim_current;

static struct task_group shim_no_quota = { .cfs_bandwidth = { .quota = ~0ULL } };
static void shim_list_init(struct list_head *list)
{
	list->next = list->prev = list;
}

static void shim_list_add(struct list_head *entry, struct list_head *list)
{
	*entry = (struct list_head){ list, list->prev };
	list->prev = list->prev->next = entry;
}

// A cgroup at the end of the path of ids that begins with the hierarchy's root.
struct cgroup *shim_cgroup(int levels, const u64 *ids)
{
	struct cgroup *parent = NULL, *group = NULL;

	for (int level = 0; level < levels; level++, parent = group) {
		group = calloc(1, sizeof(*group));
		if (parent)
			*group = *parent;
		for (int i = 0; i < CGROUP_SUBSYS_COUNT; i++)
			shim_list_init(&group->e_csets[i]);
		group->kn = calloc(1, sizeof(struct kernfs_node));
		group->kn->id = ids[level];
		group->level = level;
		group->ancestor_ids[level] = ids[level];
		group->ancestors[level] = group;
	}
	return group;
}

void shim_set_switches(struct task_struct *task, u64 switches)
{
	task->nvcsw = switches;
}

// Moves the task into a css_set of its own, whose I/O is that of the cgroup `io`, in any hierarchy.
static void shim_join(struct task_struct *task, struct cgroup *group, struct cgroup *io)
{
	struct css_set *set = calloc(1, sizeof(*set));

	if (task->cg_list.next) { // it leaves the one that it was in
		task->cg_list.prev->next = task->cg_list.next;
		task->cg_list.next->prev = task->cg_list.prev;
	}
	set->dfl_cgrp = group;
	shim_list_init(&set->tasks);
	shim_list_add(&set->e_cset_node[io_cgrp_id], &io->e_csets[io_cgrp_id]);
	shim_list_add(&task->cg_list, &set->tasks);
	task->cgroups = set;
}

void shim_set_cgroup(struct task_struct *task, struct cgroup *group)
{
	shim_join(task, group, group);
}

void shim_set_io_cgroup(struct task_struct *task, struct cgroup *io)
{
	shim_join(task, task->cgroups->dfl_cgrp, io);
}

// In the same set as another thread.
void shim_join_set(struct task_struct *task, struct task_struct *other)
{
	shim_join(task, task->cgroups->dfl_cgrp, task->cgroups->dfl_cgrp);
	task->cg_list.prev->next = task->cg_list.next;
	task->cg_list.next->prev = task->cg_list.prev;
	shim_list_add(&task->cg_list, &other->cgroups->tasks);
	task->cgroups = other->cgroups;
}

// The thread is a worker of a workqueue, with this description.
void shim_set_worker(struct task_struct *task, const char *desc)
{
	task->flags |= 0x20; // PF_WQ_WORKER
	task->worker_private = calloc(1, sizeof(struct kthread));
	task->set_child_tid = (int *)task->worker_private;
	task->worker_private->data = calloc(1, sizeof(struct worker));
	strncpy(task->worker_private->data->desc, desc, 31);
}

// The CPUs' clocks: each begins elsewhere, and two of them lose a part of the time.
static struct rq *shim_rqs[65536];
static u32 shim_rqs_made;

static void shim_tick_rq(struct rq *rq)
{
	rq->clock = shim_now_ns + 7000000000;
	rq->clock_task = shim_now_ns + 5000000000;
	rq->clock_pelt = shim_now_ns + 3000000000;
	rq->lost_idle_time = 1000000000;
}

void shim_tick(u64 now_ns)
{
	shim_now_ns = now_ns;
	for (u32 i = 0; i < shim_rqs_made; i++)
		shim_tick_rq(shim_rqs[i]);
}

// A thread is in another group, and so in another run queue.
static void shim_set_group(struct task_struct *task, struct task_group *group)
{
	struct cfs_rq *queue = calloc(1, sizeof(*queue));

	queue->tg = group;
	if (task->se.cfs_rq) {
		queue->rq = task->se.cfs_rq->rq;
	} else {
		queue->rq = shim_rqs[shim_rqs_made++] = calloc(1, sizeof(struct rq));
		shim_tick_rq(queue->rq);
	}
	task->sched_task_group = group;
	task->se.cfs_rq = queue;
}

struct task_struct *shim_task(int pid, int tgid, u32 flags)
{
	struct task_struct *task = calloc(1, sizeof(*task));

	task->pid = pid;
	task->tgid = tgid;
	task->flags = flags;
	task->stack = calloc(1, 16384);
	task->prio = 120;
	shim_set_group(task, &shim_no_quota);
	task->group_leader = task;
	task->signal = calloc(1, sizeof(struct signal_struct));
	task->signal->live.counter = 1;
	task->files = calloc(1, sizeof(struct files_struct));
	task->files->fdt = calloc(1, sizeof(struct fdtable));
	shim_set_cgroup(task, shim_cgroup(1, (u64[]){ 1 }));
	return task;
}

void shim_set_pid(struct task_struct *task, int pid)
{
	task->pid = pid;
}

void shim_set_leader(struct task_struct *task, struct task_struct *leader)
{
	task->group_leader = leader;
}

void shim_set_live(struct task_struct *task, int threads)
{
	task->signal->live.counter = threads;
}

struct cfs_rq *shim_queue(struct task_struct *task)
{
	return task->se.cfs_rq;
}

// As tg_throttle_down(), for one group above it; what waits in it is taken away by shim_set_throttled().
void shim_throttle(struct cfs_rq *queue)
{
	if (queue->throttle_count++)
		return;
	queue->throttled_clock_self = queue->rq->clock;
	queue->throttled_clock_task = queue->rq->clock_task;
	queue->throttled_clock_pelt = queue->rq->clock_pelt - queue->rq->lost_idle_time;
}

// As tg_unthrottle_up().
void shim_unthrottle(struct cfs_rq *queue)
{
	struct rq *rq = queue->rq;

	if (--queue->throttle_count)
		return;
	queue->throttled_clock_self_time += rq->clock - queue->throttled_clock_self;
	queue->throttled_clock_self = 0;
	queue->throttled_clock_task_time += rq->clock_task - queue->throttled_clock_task;
	queue->throttled_clock_pelt_time +=
		rq->clock_pelt - rq->lost_idle_time - queue->throttled_clock_pelt;
}

void shim_set_throttled(struct task_struct *task, int throttled)
{
	task->throttled = throttled;
}

void shim_set_prio(struct task_struct *task, int prio)
{
	task->prio = prio;
}

struct pt_regs *shim_regs(struct task_struct *task)
{
	return (struct pt_regs *)((char *)task->stack + 16384) - 1;
}

void shim_set_syscall(struct task_struct *task, u64 number)
{
	shim_regs(task)->orig_ax = number;
}

// The first four arguments, where 64-bit programs leave them or 32-bit ones.
void shim_set_arguments(struct task_struct *task, bool compat, u64 first, u64 second, u64 third,
			u64 fourth)
{
	struct pt_regs *regs = shim_regs(task);

	*(compat ? &regs->bx : &regs->di) = first;
	*(compat ? &regs->cx : &regs->si) = second;
	regs->dx = third;
	*(compat ? &regs->si : &regs->r10) = fourth;
}

// Born at another time, or in the how many-eth program of its process.
void shim_set_life(struct task_struct *task, u64 start_time, u64 exec_id)
{
	task->start_time = start_time;
	task->self_exec_id = exec_id;
}

void shim_set_on_cpu(struct task_struct *task, int on_cpu)
{
	task->on_cpu = on_cpu;
}

// The kernel's own account of a thread.
void shim_set_account(struct task_struct *task, u64 on_cpu_ns, u64 runnable_ns)
{
	task->se.sum_exec_runtime = on_cpu_ns;
	task->sched_info.run_delay = runnable_ns;
}

void shim_set_compat(struct task_struct *task, u32 status)
{
	task->thread_info.status = status;
}

void shim_set_preempt_count(struct task_struct *task, u32 count)
{
	task->thread_info.preempt_count = count;
	task->se.cfs_rq->rq->preempt_count = count;
}

void shim_set_comm(struct task_struct *task, const char *comm)
{
	strncpy(task->comm, comm, sizeof(task->comm) - 1);
}

void shim_set_state(struct task_struct *task, u32 state)
{
	task->state = task->__state = state;
}

void shim_set_quota(struct task_struct *task, u64 cgroup_id, int nr_throttled, u64 throttled_time)
{
	struct task_group *group = calloc(1, sizeof(*group));

	group->css.cgroup = calloc(1, sizeof(struct cgroup));
	group->css.cgroup->kn = calloc(1, sizeof(struct kernfs_node));
	group->css.cgroup->kn->id = cgroup_id;
	group->cfs_bandwidth.quota = 1;
	group->cfs_bandwidth.nr_throttled = nr_throttled;
	group->cfs_bandwidth.throttled_time = throttled_time;
	group->parent = task->sched_task_group;
	shim_set_group(task, group);
}

// Into a group below its own, which has no quota.
void shim_set_group_below(struct task_struct *task)
{
	struct task_group *group = calloc(1, sizeof(*group));

	group->cfs_bandwidth.quota = ~0ULL;
	group->parent = task->sched_task_group;
	shim_set_group(task, group);
}

// Into the root, which has no quota.
void shim_set_group_root(struct task_struct *task)
{
	shim_set_group(task, &shim_no_quota);
}

struct request *shim_request(u32 bytes, u32 flags, int major, int minor)
{
	struct request *request = calloc(1, 512); // no less than the kernel's: it has its place by where it lies

	request->__data_len = bytes;
	request->cmd_flags = flags;
	request->rq_disk = calloc(1, sizeof(struct gendisk));
	request->rq_disk->major = major;
	request->rq_disk->first_minor = minor;
	request->q = calloc(1, sizeof(struct request_queue));
	request->q->disk = request->rq_disk;
	return request;
}

// Another disk than its queue's, which no kernel has.
void shim_set_rq_disk(struct request *request, int major, int minor)
{
	request->rq_disk = calloc(1, sizeof(struct gendisk));
	request->rq_disk->major = major;
	request->rq_disk->first_minor = minor;
}

void shim_set_bytes(struct request *request, u32 bytes)
{
	request->__data_len = bytes;
}

// A bio that was cut off from `whole`.
struct bio *shim_cut_off(struct bio *whole)
{
	struct bio *part = calloc(1, sizeof(*part));

	part->bi_private = whole;
	return part;
}

struct bio *shim_bio(void)
{
	return calloc(1, sizeof(struct bio));
}

struct gendisk *shim_disk(int major, int minor, bool takes_bios, bool stacked)
{
	static struct rb_node entry;
	struct gendisk *disk = calloc(1, sizeof(*disk));

	disk->major = major;
	disk->first_minor = minor;
	disk->queue = calloc(1, sizeof(struct request_queue));
	disk->queue->mq_ops = takes_bios ? NULL : disk;
	disk->slave_dir = calloc(1, sizeof(struct kobject));
	disk->slave_dir->sd = calloc(1, sizeof(struct kernfs_node));
	disk->slave_dir->sd->dir.children.rb_node = stacked ? &entry : NULL;
	return disk;
}

// Where a bio goes, and the table of its pages, which those that are made of it share; NULL: it gets one of its own.
struct bio_vec *shim_set_disk(struct bio *bio, struct gendisk *disk, u32 opf, u64 sector, u32 size,
			      struct bio_vec *pages)
{
	bio->bi_disk = disk;
	bio->bi_bdev = calloc(1, sizeof(struct block_device));
	bio->bi_bdev->bd_disk = disk;
	bio->bi_bdev->bd_queue = disk->queue;
	bio->bi_opf = opf;
	bio->bi_iter = (struct bvec_iter){ sector, size };
	bio->bi_io_vec = pages ? pages : calloc(1, 256);
	return bio->bi_io_vec;
}

void shim_set_sector(struct bio *bio, u64 sector)
{
	bio->bi_iter.bi_sector = sector;
}

// The cgroup is of another hierarchy than all others.
void shim_set_hierarchy(struct cgroup *group)
{
	group->root = calloc(1, 8);
}

void shim_set_bio_cgroup(struct bio *bio, struct cgroup *group)
{
	bio->bi_blkg = calloc(1, sizeof(struct blkcg_gq));
	bio->bi_blkg->blkcg = calloc(1, sizeof(struct blkcg));
	bio->bi_blkg->blkcg->css.cgroup = group;
}

void shim_set_bio(struct request *request, struct bio *bio)
{
	request->bio = bio;
}

struct sock *shim_sock(u16 family, u16 type, u16 protocol)
{
	union { struct tcp_sock tcp; struct mptcp_sock mptcp; } *any = calloc(1, sizeof(*any));
	struct sock *sk = (struct sock *)any;

	sk->__sk_common.skc_family = family;
	sk->sk_type = type;
	sk->sk_protocol = protocol;
	return sk;
}

// `sk` is a path of the connection; `first`: that which it began with.
void shim_set_path(struct sock *sk, struct sock *connection, int first)
{
	static const struct tcp_ulp_ops mptcp = { "mptcp" };
	struct inet_connection_sock *path = (struct inet_connection_sock *)sk;
	struct mptcp_subflow_context *context = calloc(1, sizeof(*context));

	context->conn = connection;
	path->icsk_ulp_ops = &mptcp;
	path->icsk_ulp_data = context;
	if (first)
		((struct mptcp_sock *)connection)->first = sk;
}

// Makes it a socket that the kernel encrypts: kernel TLS stores its own data in it.
void shim_set_tls(struct sock *sk)
{
	static const struct tcp_ulp_ops tls = { "tls" };
	struct inet_connection_sock *connection = (struct inet_connection_sock *)sk;

	connection->icsk_ulp_ops = &tls;
	connection->icsk_ulp_data = (void *)1;
}

// `owned`: the current thread has the lock.
void shim_set_sock(struct sock *sk, int owned, u8 shutdown)
{
	sk->sk_lock.owned = owned;
	sk->sk_shutdown = shutdown;
}

void shim_set_tcp(struct sock *sk, u32 segs_in, u32 segs_out, u32 srtt_us)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;

	tcp->segs_in = segs_in;
	tcp->segs_out = segs_out;
	tcp->srtt_us = srtt_us;
}

struct sk_buff *shim_skb(u16 segments)
{
	struct sk_buff *skb = calloc(1, sizeof(*skb));

	((struct tcp_skb_cb *)skb->cb)->tcp_gso_segs = segments;
	return skb;
}

// The file that `task` has open as `fd`, in a table with this much room; what lies behind that is not to be read.
struct file *shim_open(struct task_struct *task, u32 fd, u32 room, u32 mode, u64 size)
{
	struct fdtable *table = task->files->fdt;
	struct file *file = calloc(1, sizeof(*file));

	file->f_inode = calloc(1, sizeof(struct inode));
	file->f_inode->i_mode = mode;
	file->f_inode->i_size = size;
	file->f_inode->i_sb = calloc(1, sizeof(struct super_block));
	file->f_path.dentry = calloc(1, sizeof(struct dentry));
	file->f_path.dentry->d_name.name = file->f_path.dentry->name;
	file->f_mapping = calloc(1, sizeof(struct address_space));
	file->f_mapping->host = file->f_inode;
	table->fd = realloc(table->fd, (room + 1) * sizeof(*table->fd));
	for (u32 i = table->max_fds; i < room; i++)
		table->fd[i] = NULL;
	table->max_fds = room;
	table->fd[fd] = table->fd[room] = file;
	return file;
}

// Sets all that a file has but its mode: the magic number of its file system, its name, device and socket.
void shim_set_file(struct file *file, u64 magic, const char *name, u32 device, struct sock *sk)
{
	struct socket *socket = calloc(1, sizeof(*socket));

	socket->sk = sk;
	file->f_inode->i_sb->s_magic = magic;
	file->f_inode->i_rdev = device;
	file->private_data = sk ? socket : NULL;
	strncpy((char *)file->f_path.dentry->name, name, sizeof(file->f_path.dentry->name) - 1);
}

void shim_set_frames(struct task_struct *task, u32 count, const u64 *frames)
{
	memset(task->frames, 0, sizeof(task->frames));
	memcpy(task->frames, frames, count * sizeof(*frames));
}

void shim_set_iowait(struct task_struct *task, u8 bits)
{
	task->in_iowait = bits;
}

void shim_close(struct task_struct *task, u32 fd)
{
	task->files->fdt->fd[fd] = NULL;
}

struct address_space *shim_mapping(struct file *file)
{
	return file->f_mapping;
}

// A single page has no number: there lies something else.
struct folio *shim_folio(struct file *file, u32 pages, u64 index)
{
	struct folio *folio = calloc(2, sizeof(*folio));
	u32 number = pages > 1 ? pages : 777;

	folio->page.mapping = file->f_mapping;
	folio->page.index = index;
	folio->page.flags = pages > 1 ? 1 << PG_head : 0;
	folio->_folio_nr_pages = folio->_nr_pages = (&folio->page)[1].compound_nr = number;
	return folio;
}

// ---- helpers

#define bpf_ktime_get_ns() shim_now_ns
#define bpf_get_smp_processor_id() shim_cpu
#define bpf_get_prandom_u32() (shim_random++)
#define bpf_get_smp_processor_id() shim_cpu
#define bpf_get_current_task() ((u64)shim_current)
#define bpf_get_current_task_btf() shim_current
#define bpf_get_current_pid_tgid() ((u64)shim_current->tgid << 32 | (u32)shim_current->pid)
#define bpf_get_current_comm(to, size) ((void)memcpy(to, shim_current->comm, size))
#define bpf_probe_read_user(to, size, from) ((void)memcpy(to, from, size))
#define bpf_probe_read_kernel(to, size, from) shim_read(to, size, from)
#define bpf_probe_read_kernel_str(to, size, from) ((void)strncpy((char *)(to), from, (size)-1))

// Reads zeros from an address that cannot be read.
static void shim_read(void *to, u64 size, const void *from)
{
	if ((u64)from < 65536)
		memset(to, 0, size);
	else
		memcpy(to, from, size);
}

static s32 shim_get_stackid(void *ctx, u64 flags)
{
	shim_stack_walks++;
	return shim_stack_id;
}

u64 shim_waker_frames[16];

static int bpf_get_stack(void *ctx, void *frames, u32 size, u64 flags)
{
	memcpy(frames, shim_waker_frames, size);
	return size;
}

static int bpf_get_task_stack(struct task_struct *task, void *frames, u32 size, u64 flags)
{
	shim_stack_walks++;
	memcpy(frames, task->frames, size);
	return task->frames[0] ? size : -14; // EFAULT
}

// ---- maps

static void *shim_element(void *cells, u64 size, u32 entries, u32 index)
{
	return index < entries ? (char *)cells + size * index : NULL;
}

static int shim_find(const void *keys, u64 size, const u8 *used, u32 entries, const void *key)
{
	for (u32 i = 0; i < entries; i++)
		if (used[i] && !memcmp((const char *)keys + size * i, key, size))
			return i;
	return -1;
}

static int shim_insert(void *keys, u64 size, u8 *used, u32 entries, const void *key)
{
	int found = shim_find(keys, size, used, entries, key);

	for (u32 i = 0; found < 0 && i < entries; i++) {
		if (used[i])
			continue;
		used[i] = 1;
		memcpy((char *)keys + size * i, key, size);
		found = i;
	}
	return found;
}

#define SHIM_ARRAY(KEY, LEAF, NAME, ENTRIES, CPUS, CPU)                                             \
	LEAF NAME##_cells[CPUS][ENTRIES];                                                           \
	u64 NAME##_size = sizeof(NAME##_cells);                                                     \
	static LEAF *NAME##_lookup(KEY *key)                                                        \
	{                                                                                           \
		return shim_element(NAME##_cells[CPU], sizeof(LEAF), ENTRIES, *key);                \
	}                                                                                           \
	static int NAME##_update(KEY *key, LEAF *leaf)                                              \
	{                                                                                           \
		return memcpy(NAME##_lookup(key), leaf, sizeof(LEAF)) == NULL;                      \
	}                                                                                           \
	static const struct {                                                                       \
		LEAF *(*lookup)(KEY *);                                                             \
		int (*update)(KEY *, LEAF *);                                                       \
	} NAME = { NAME##_lookup, NAME##_update };

#define SHIM_HASH(KEY, LEAF, NAME, ENTRIES)                                                         \
	LEAF NAME##_cells[ENTRIES];                                                                 \
	KEY NAME##_keys[ENTRIES];                                                                   \
	u8 NAME##_used[ENTRIES];                                                                    \
	u64 NAME##_entries = ENTRIES, NAME##_key_size = sizeof(KEY), NAME##_leaf_size = sizeof(LEAF); \
	static LEAF *NAME##_lookup(KEY *key)                                                        \
	{                                                                                           \
		int i = shim_find(NAME##_keys, sizeof(KEY), NAME##_used, ENTRIES, key);             \
		return i < 0 ? NULL : &NAME##_cells[i];                                             \
	}                                                                                           \
	static int NAME##_update(KEY *key, LEAF *leaf)                                              \
	{                                                                                           \
		int i = shim_insert(NAME##_keys, sizeof(KEY), NAME##_used, ENTRIES, key);           \
		if (i < 0)                                                                          \
			return -7; /* E2BIG */                                                      \
		NAME##_cells[i] = *leaf;                                                            \
		return 0;                                                                           \
	}                                                                                           \
	static int NAME##_insert(KEY *key, LEAF *leaf)                                              \
	{                                                                                           \
		return NAME##_lookup(key) ? -17 /* EEXIST */ : NAME##_update(key, leaf);            \
	}                                                                                           \
	static LEAF *NAME##_lookup_or_try_init(KEY *key, LEAF *leaf)                                \
	{                                                                                           \
		LEAF *found = NAME##_lookup(key);                                                   \
		return found || NAME##_update(key, leaf) ? found : NAME##_lookup(key);              \
	}                                                                                           \
	static int NAME##_delete(KEY *key)                                                          \
	{                                                                                           \
		int i = shim_find(NAME##_keys, sizeof(KEY), NAME##_used, ENTRIES, key);             \
		if (i < 0)                                                                          \
			return -2; /* ENOENT */                                                     \
		NAME##_used[i] = 0;                                                                 \
		return 0;                                                                           \
	}                                                                                           \
	static const struct {                                                                       \
		LEAF *(*lookup)(KEY *);                                                             \
		int (*update)(KEY *, LEAF *);                                                       \
		int (*insert)(KEY *, LEAF *);                                                       \
		LEAF *(*lookup_or_try_init)(KEY *, LEAF *);                                         \
		int (*delete)(KEY *);                                                               \
		s32 (*get_stackid)(void *, u64);                                                    \
	} NAME = { NAME##_lookup,             NAME##_update, NAME##_insert,                         \
		   NAME##_lookup_or_try_init, NAME##_delete, shim_get_stackid };

#define BPF_ARRAY(NAME, LEAF, ENTRIES) SHIM_ARRAY(int, LEAF, NAME, ENTRIES, 1, 0)
#define BPF_PERCPU_ARRAY(NAME, LEAF, ENTRIES) SHIM_ARRAY(int, LEAF, NAME, ENTRIES, SHIM_CPUS, shim_cpu)
#define BPF_F_TABLE(KIND, KEY, LEAF, NAME, ENTRIES, FLAGS) SHIM_ARRAY(KEY, LEAF, NAME, ENTRIES, 1, 0)
#define BPF_TABLE(KIND, KEY, LEAF, NAME, ENTRIES) SHIM_HASH(KEY, LEAF, NAME, ENTRIES)
#define BPF_PERF_ARRAY(NAME, ENTRIES)                                                               \
	struct bpf_perf_event_value NAME##_cells[ENTRIES];                                          \
	static int NAME##_value(u64 index, void *value, u32 size)                                   \
	{                                                                                           \
		if (index >= (ENTRIES))                                                             \
			return -1;                                                                  \
		memcpy(value, &NAME##_cells[index], size);                                          \
		return 0;                                                                           \
	}                                                                                           \
	static const struct {                                                                       \
		int (*perf_counter_value)(u64, void *, u32);                                        \
	} NAME = { NAME##_value };
// As the kernel fills one: 8 bytes before each record, and never to the last byte.  A test empties it.
#define BPF_RINGBUF_OUTPUT(NAME, PAGES)                                                             \
	u8 NAME##_cells[(PAGES) * 4096];                                                            \
	u64 NAME##_size = sizeof(NAME##_cells), NAME##_filled;                                      \
	static int NAME##_output(void *record, u64 size, u64 flags)                                 \
	{                                                                                           \
		u64 end = NAME##_filled + 8 + (size + 7) / 8 * 8;                                   \
		if (end >= NAME##_size)                                                             \
			return -11; /* EAGAIN */                                                    \
		memcpy(&NAME##_cells[NAME##_filled + 8], record, size);                             \
		NAME##_filled = end;                                                                \
		return 0;                                                                           \
	}                                                                                           \
	static const struct {                                                                       \
		int (*ringbuf_output)(void *, u64, u64);                                            \
	} NAME = { NAME##_output };
