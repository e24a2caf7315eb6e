"""Every hook of every module: what happens in the kernel, and the sources that show it, best first.

The sources of a hook are tried in order against this kernel: the first whose arguments match its BTF and that loads
and attaches is used.  Version numbers are never compared.
"""

from functools import partial

from chainbench_agent.catalog import RESULT, Hook, fentry, fexit, kprobe, kretprobe, perf, raw_tracepoint, tp_btf
from chainbench_agent.probes.lock_hooks import LOCK_HOOKS

TASK = "struct task_struct *"
SOCK = "struct sock *"

CALL = ("struct cb_task *task", "struct pt_regs *regs", "unsigned int kind")


def _tracepoint(name: str, *params: str, timed: bool = False) -> Hook:
    """A hook that has one source: the raw tracepoint of its name."""
    return Hook(name, params, (raw_tracepoint(name),), timed=timed)


def _block(name: str, param: str, *, timed: bool = True, targeted: bool = False) -> Hook:
    """Linux a54895fa057c ("block: remove the request_queue to argument request based tracepoints") (in v5.11)."""
    return Hook(name, (param,), (raw_tracepoint(name), raw_tracepoint(name, 1)), timed=timed, targeted=targeted)


_timed = partial(_tracepoint, timed=True)
_raised = partial(Hook, sources=())

REQUESTS = (
    "block_rq_issue",
    "block_rq_requeue",
    "block_rq_complete",
    "block_bio_queue",
    "block_bio_complete",
    "block_bio_remap",
    "block_split",
)
"""The hooks in the life of a block request, or of a bio on a disk that takes bios.

block_split shows the owner of a bio that was split off another.
"""

VECTORS = ("local_timer", "reschedule", "call_function", "call_function_single", "irq_work")
"""The interrupts that CPUs send each other or themselves, in the order of their counters in cpu.c."""


def _sock(name: str, params: tuple[str, ...], tracepoint: str, call: str, *places: int) -> tuple[Hook, Hook]:
    """Two hooks of one event: a tracepoint sees calls on all sockets; without it, each family's function is probed.

    `places`: the position of the result among the arguments of `fexit`, then those of the further parameters.
    """
    params = (f"{SOCK}sk", *params)
    # Linux 6e6eda44b939 ("sock: add tracepoint for send recv length") (in v6.3)
    any_family = raw_tracepoint(tracepoint)
    ipv4, ipv6 = (
        (
            fexit(f"{family}_{call}", "cb_sock_of(socket)", *places, own=("struct socket *socket",)),
            kretprobe(f"{family}_{call}", "cb_sock_of(socket)", RESULT, *places[1:], own=("struct socket *socket",)),
        )
        for family in ("inet", "inet6")
    )
    return (
        Hook(name, params, (any_family, *ipv4), timed=False),
        Hook(f"{name}6", params, ipv6, timed=False, unless=any_family, handler=name),
    )


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
    Hook(
        "sched_wakeup",
        (f"{TASK}woken",),
        # typed: only then may the stack of the woken thread be walked (probes/offcpu.c)
        (tp_btf("sched_wakeup"), raw_tracepoint("sched_wakeup")),
    ),
    _timed("sched_wakeup_new", f"{TASK}born"),
    _tracepoint("sched_migrate_task", f"{TASK}task", "int dest_cpu"),
    _tracepoint("sched_process_fork", f"{TASK}parent", f"{TASK}child"),
    _tracepoint("sched_process_exit", f"{TASK}task"),
    _tracepoint("sched_process_exec", f"{TASK}task", "int old_pid", "struct linux_binprm *bprm"),
    _timed("cgroup_attach_task", "struct cgroup *into", "char *path", f"{TASK}leader", "bool whole"),
    _tracepoint("task_rename", f"{TASK}task", "char *comm"),
    _tracepoint("sys_enter", "struct pt_regs *regs", "long id"),
    _tracepoint("sys_exit", "struct pt_regs *regs", "long ret"),
    Hook(
        "call_returns",  # sys_exit with a program of its own, so that only runs with this option pay for it
        ("struct pt_regs *regs", "long ret"),
        (raw_tracepoint("sys_exit"),),
        timed=False,
        option="syscalls:errors",
    ),
    *(_block(name, "struct request *rq") for name in ("block_rq_insert", "block_rq_issue", "block_rq_requeue")),
    _block("block_rq_merge", "struct request *rq", timed=False),
    _block("block_bio_queue", "struct bio *bio", timed=False),
    _block("block_split", "struct bio *bio", timed=False, targeted=True),
    Hook("block_bio_complete", ("struct bio *bio",), (raw_tracepoint("block_bio_complete", 1),), timed=False),
    Hook(
        "block_bio_remap",
        ("struct bio *bio", "unsigned int device", "u64 sector"),
        # Linux 1c02fca620f7 ("block: remove the request_queue argument to the block_bio_remap tracepoint") (in v5.11)
        (raw_tracepoint("block_bio_remap"), raw_tracepoint("block_bio_remap", 1, 2, 3)),
        timed=False,
    ),
    Hook(
        "block_rq_complete",
        ("struct request *rq", "unsigned int nr_bytes"),
        (raw_tracepoint("block_rq_complete", 0, 2),),
    ),
    _tracepoint("irq_handler_entry", "int irq"),
    _tracepoint("softirq_entry", "unsigned int vector"),
    *(
        Hook(
            f"{vector}_entry",
            ("unsigned int place",),
            (raw_tracepoint(f"{vector}_entry", f"{place}"),),
            timed=False,
            handler="vector_entry",
        )
        for place, vector in enumerate(VECTORS)
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
                probe(
                    function,
                    "cb_read_mapping(iocb)",
                    "cb_read_first(iocb)",
                    "cb_read_last(iocb, to)",
                    own=("struct kiocb *iocb", "struct iov_iter *to"),
                )
                for probe in (fentry, kprobe)
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
    # memory
    Hook("minor_fault", (), (perf("minor-faults"),), timed=False),
    Hook("major_fault", (), (perf("major-faults"),), timed=False),
    Hook("kmalloc", ("void *object", "size_t bytes"), (raw_tracepoint("kmalloc", 1, 2),), timed=False),
    Hook(
        "kmalloc_node",  # until Linux 11e9734bcb6a ("mm/slab_common: unify NUMA and UMA version of tracepoints") (v6.1)
        ("void *object", "size_t bytes"),
        (raw_tracepoint("kmalloc_node", 1, 2),),
        timed=False,
        optional=True,
        handler="kmalloc",
    ),
    Hook("kfree", ("void *object",), (raw_tracepoint("kfree", 1),), timed=False),
    _tracepoint("mm_page_alloc", "struct page *page", "unsigned int order"),
    Hook(
        "mark_victim",
        (f"{TASK}victim", "unsigned int pid"),
        (raw_tracepoint("mark_victim", 0, "0"), raw_tracepoint("mark_victim", "NULL", 0)),
        timed=False,
    ),
    # network: what goes through sockets
    *_sock("sock_sent", ("int bytes",), "sock_send_length", "sendmsg", 3),
    *_sock("sock_received", ("int bytes", "int flags"), "sock_recv_length", "recvmsg", 4, 3),
    # Linux dc97391e6610 ("sock: Remove ->sendpage*() in favour of sendmsg(MSG_SPLICE_PAGES)") (in v6.5)
    Hook(
        "sent_pages",
        (f"{SOCK}sk", "int bytes"),
        (fexit("tcp_sendpage", 0, 5), kretprobe("tcp_sendpage", 0, RESULT)),
        timed=False,
        unless=fexit("splice_to_socket"),
        handler="sock_sent",
    ),
    _tracepoint("inet_sock_set_state", f"{SOCK}sk", "int oldstate", "int newstate"),
    *(_tracepoint(name, f"{SOCK}sk") for name in ("tcp_probe", "tcp_send_reset", "tcp_destroy_sock")),
    Hook(
        "tcp_retransmit_skb",
        (f"{SOCK}sk", "struct sk_buff *skb", "int error"),
        # before v6.18 only those that were sent had an event
        (raw_tracepoint("tcp_retransmit_skb"), raw_tracepoint("tcp_retransmit_skb", 0, 1, "0")),
        timed=False,
    ),
    Hook("synack_again", (f"{SOCK}sk",), (raw_tracepoint("tcp_retransmit_synack"),), timed=False),
    # raised by sched.h
    _raised(
        "task_ran",
        ("struct cb_task *task", f"{TASK}prev", "u64 ns", "bool voluntary"),
        raised_on=("sched_switch",),
    ),
    _raised("task_cut", ("struct cb_task *task", "u64 ns"), raised_on=("sched_switch",)),
    _raised("task_throttled", ("struct cb_task *task", "u64 ns"), raised_on=("sched_switch",)),
    _raised(
        "task_waited",
        ("struct cb_task *task", "u64 ns", "bool woken"),
        raised_on=("sched_switch", "sched_wakeup", "sched_wakeup_new"),
    ),
    _raised("task_blocks", ("struct cb_task *task", "u32 state"), raised_on=("sched_switch",)),
    _raised(
        "task_blocked",
        ("struct cb_task *task", f"{TASK}woken", "u64 ns"),
        raised_on=("sched_switch", "sched_wakeup"),
    ),
    # raised by block.h
    _raised(
        "request_queued",
        ("struct cb_request *request", "u64 ns"),
        raised_on=("block_rq_insert", "block_rq_merge", *REQUESTS),
    ),
    _raised("request_issued", ("struct cb_request *request",), raised_on=REQUESTS),
    _raised("request_requeued", ("struct cb_request *request",), raised_on=REQUESTS),
    _raised("request_done", ("struct cb_request *request", "u64 ns"), raised_on=REQUESTS),
    _raised("request_unmatched", (), raised_on=REQUESTS),
    _raised("request_passed_through", (), raised_on=REQUESTS),
    *LOCK_HOOKS,
)
