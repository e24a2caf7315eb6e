"""Names that the C files use: members that only some kernels have, and the system calls that are followed."""

FIELDS = {
    "TASK___STATE": "task_struct.__state",
    "TASK_GROUP_CFS_BANDWIDTH": "task_group.cfs_bandwidth",
    "TASK_THROTTLED": "task_struct.throttled",
    "CFS_RQ_THROTTLED_CLOCK_SELF_TIME": "cfs_rq.throttled_clock_self_time",
    "CFS_RQ_THROTTLED_CLOCK_PELT_TIME": "cfs_rq.throttled_clock_pelt_time",
    "SCHED_INFO": "sched_info.run_delay",
    "CGROUP_ANCESTORS": "cgroup.ancestors",
    "REQUEST_RQ_DISK": "request.rq_disk",
    "REQ_OP_WRITE_SAME": "REQ_OP_WRITE_SAME",
    "BIO_BI_DISK": "bio.bi_disk",
    "BIO_BI_BLKG": "bio.bi_blkg",
    "TASK_WORKER_PRIVATE": "task_struct.worker_private",
    "THREAD_INFO_PREEMPT_COUNT": "thread_info.preempt_count",
    "CURRENT_TASK_BTF": "BPF_FUNC_get_current_task_btf",
    "MPTCP": "mptcp_sock.first",
    "PAGE_INDEX": "page.index",
    "FOLIO__NR_PAGES": "folio._nr_pages",
    "FOLIO__FOLIO_NR_PAGES": "folio._folio_nr_pages",
}
"""Members and constants that only some kernels have; the C files see them as CB_HAS_<key>."""

CALLS = {
    "READ": ("read", "pread64", "readv", "preadv", "preadv2"),
    "WRITE": ("write", "pwrite64", "writev", "pwritev", "pwritev2"),
    "OPEN": ("open", "openat", "openat2", "creat"),
    "CLOSE": ("close",),
    "FSYNC": ("fsync",),
    "FDATASYNC": ("fdatasync",),
    "EXEC": ("execve", "execveat"),
    "FUTEX": ("futex", "futex_time64"),  # calls.h finds out which of the next three it is
    "FUTEX_WAIT": ("futex_wait", "futex_waitv"),
    "FUTEX_LOCK": (),  # takes a lock with priority inheritance, for which it may have to wait
    "FUTEX_WAKE": ("futex_wake", "futex_requeue"),
    # further calls that can read or write files; C relies on their order (io.c)
    "SENDFILE": ("sendfile", "sendfile64"),
    "SPLICE": ("splice",),
    "COPY_FILE_RANGE": ("copy_file_range",),
    "IO_SUBMIT": ("io_submit",),
    "IO_URING_ENTER": ("io_uring_enter",),
    "MMAP": ("mmap", "mmap2"),
    "RESTART": ("restart_syscall",),  # continues an interrupted call
}
"""The system calls that calls.h follows and modules distinguish, by kind: CB_CALL_<key> in C."""
