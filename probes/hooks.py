"""What can happen in the kernel, and where it can be seen: every hook of every module, its sources best first.

The sources of a hook are tried in order against this kernel: the first whose arguments match its BTF and that loads
and attaches is used.  Version numbers are never compared.
"""

from functools import partial

from chainbench_agent.spec import Hook, fentry, raw_tracepoint

TASK = "struct task_struct *"

FIELDS = {
    "TASK___STATE": "task_struct.__state",
    "TASK_GROUP_CFS_BANDWIDTH": "task_group.cfs_bandwidth",
    "CGROUP_ANCESTORS": "cgroup.ancestors",
    "CURRENT_TASK_BTF": "BPF_FUNC_get_current_task_btf",
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
    "FUTEX": ("futex",),
}
"""The system calls that calls.h follows, by kind: CB_CALL_<key> in C."""

CALL = ("struct cb_task *task", "struct pt_regs *regs", "unsigned int kind")


def _tracepoint(name: str, *params: str, timed: bool = False) -> Hook:
    """A hook that has one source: the raw tracepoint of its name."""
    return Hook(name, params, (raw_tracepoint(name),), timed=timed)


_timed = partial(_tracepoint, timed=True)
_raised = partial(Hook, sources=())

HOOKS = (
    Hook(
        "sched_switch",
        ("bool preempt", f"{TASK}prev", f"{TASK}next", "unsigned int prev_state"),
        (
            raw_tracepoint("sched_switch"),
            # Linux fa2c3254d7cf ("sched/tracing: Don't re-read p->state") (in v5.18) added the state
            raw_tracepoint("sched_switch", 0, 1, 2, "cb_task_state(prev)"),
        ),
    ),
    _timed("sched_wakeup", f"{TASK}woken"),
    _timed("sched_wakeup_new", f"{TASK}born"),
    _tracepoint("sched_migrate_task", f"{TASK}task", "int dest_cpu"),
    _tracepoint("sched_process_fork", f"{TASK}parent", f"{TASK}child"),
    _tracepoint("sched_process_exit", f"{TASK}task"),
    _tracepoint("sched_process_exec", f"{TASK}task", "int old_pid", "struct linux_binprm *bprm"),
    _tracepoint("sys_enter", "struct pt_regs *regs", "long id"),
    _tracepoint("sys_exit", "struct pt_regs *regs", "long ret"),
    # Linux a54895fa057c ("block: remove the request_queue to argument request based tracepoints") (in v5.11)
    *(
        Hook(name, ("struct request *rq",), (raw_tracepoint(name), raw_tracepoint(name, 1)))
        for name in ("block_rq_issue", "block_rq_requeue")
    ),
    Hook(
        "block_bio_queue",
        ("struct bio *bio",),
        (raw_tracepoint("block_bio_queue"), raw_tracepoint("block_bio_queue", 1)),
        timed=False,
        targeted=True,
    ),
    Hook(
        "block_rq_complete",
        ("struct request *rq", "unsigned int nr_bytes"),
        (raw_tracepoint("block_rq_complete", 0, 2),),
    ),
    _tracepoint("irq_handler_entry", "int irq"),
    _tracepoint("softirq_entry", "unsigned int vector"),
    *(
        _tracepoint(f"{vector}_entry", "int vector")
        for vector in ("local_timer", "reschedule", "call_function", "call_function_single", "irq_work")
    ),
    _tracepoint("cpu_frequency", "unsigned int khz", "unsigned int of_cpu"),
    _timed("cpu_idle", "unsigned int state"),
    # the page cache: the pages of a file that a read asks for, in one event or several; a page that is added
    Hook(
        "page_cache_asked",
        ("struct address_space *mapping", "unsigned long first", "unsigned long last"),
        (
            raw_tracepoint("mm_filemap_get_pages"),
            *(
                fentry(
                    function,
                    "cb_read_mapping(iocb)",
                    "cb_read_first(iocb)",
                    "cb_read_last(iocb, to)",
                    own=("struct kiocb *iocb", "struct iov_iter *to"),
                )
                # the same function, before v5.12 and since
                for function in ("generic_file_buffered_read", "filemap_read")
            ),
        ),
        timed=False,
    ),
    Hook(
        "page_cache_added",
        ("struct page *page",),
        (
            raw_tracepoint("mm_filemap_add_to_page_cache"),
            # since v5.17; a folio begins as its first page does
            raw_tracepoint("mm_filemap_add_to_page_cache", "(struct page *)folio", own=("struct folio *folio",)),
        ),
        timed=False,
    ),
    # raised by calls.h
    _raised("call_begins", (*CALL,), raised_on=("sys_enter", "sys_exit")),
    _raised("call_done", (*CALL, "long ret", "u64 ns"), raised_on=("sys_enter", "sys_exit")),
    # raised by sched.h
    _raised(
        "task_ran",
        ("struct cb_task *task", f"{TASK}prev", "u64 ns", "bool voluntary"),
        raised_on=("sched_switch",),
    ),
    _raised("task_throttled", ("struct cb_task *task", "u64 ns"), raised_on=("sched_switch",)),
    _raised(
        "task_waited",
        ("struct cb_task *task", "u64 ns", "bool woken"),
        raised_on=("sched_switch", "sched_wakeup", "sched_wakeup_new"),
    ),
    _raised("task_blocks", ("struct cb_task *task", "u32 state"), raised_on=("sched_switch",)),
    _raised("task_blocked", ("struct cb_task *task", "u64 ns"), raised_on=("sched_switch", "sched_wakeup")),
)
