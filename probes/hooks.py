"""What can happen in the kernel, and where it can be seen: every hook of every module, its sources best first.

The sources of a hook are tried in order against this kernel: the first whose arguments match its BTF and that loads
and attaches is used.  Version numbers are never compared.
"""

from functools import partial

from chainbench_agent.spec import Hook, fexit, raw_tracepoint

TASK = "struct task_struct *"
SOCK = "struct sock *"

FIELDS = {
    "TASK___STATE": "task_struct.__state",
    "TASK_GROUP_CFS_BANDWIDTH": "task_group.cfs_bandwidth",
    "CGROUP_ANCESTORS": "cgroup.ancestors",
}
"""Members that only some kernels have; the C files see them as CB_HAS_<key>."""


def _tracepoint(name: str, *params: str, timed: bool = False) -> Hook:
    """A hook that has one source: the raw tracepoint of its name."""
    return Hook(name, params, (raw_tracepoint(name),), timed=timed)


_timed = partial(_tracepoint, timed=True)
_raised = partial(Hook, sources=())


def _sock(name: str, params: tuple[str, ...], tracepoint: str, call: str, places: tuple[int, ...]) -> tuple[Hook, Hook]:
    """Two hooks of one event: a tracepoint sees calls on all sockets; without it each family's function is asked."""
    params = (f"{SOCK}sk", *params)
    socket = "((struct socket *)ctx[0])->sk"
    # Linux 6e6eda44b939 ("sock: add tracepoint for send recv length") (in v6.3)
    any_family = raw_tracepoint(tracepoint)
    ipv4, ipv6 = (fexit(f"{family}_{call}", socket, *places) for family in ("inet", "inet6"))
    return (
        Hook(name, params, (any_family, ipv4), timed=False),
        Hook(f"{name}6", params, (ipv6,), timed=False, unless=any_family),
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
    _timed("sched_wakeup", f"{TASK}woken"),
    _timed("sched_wakeup_new", f"{TASK}born"),
    _tracepoint("sched_migrate_task", f"{TASK}task", "int dest_cpu"),
    _tracepoint("sched_process_fork", f"{TASK}parent", f"{TASK}child"),
    _tracepoint("sched_process_exit", f"{TASK}task"),
    _tracepoint("sched_process_exec", f"{TASK}task", "int old_pid", "struct linux_binprm *bprm"),
    _tracepoint("sys_enter", "struct pt_regs *regs", "long id"),
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
    # network: what goes through sockets
    *_sock("sock_sent", ("int bytes",), "sock_send_length", "sendmsg", (3,)),
    *_sock("sock_received", ("int bytes", "int flags"), "sock_recv_length", "recvmsg", (4, 3)),
    # Linux dc97391e6610 ("sock: Remove ->sendpage*() in favour of sendmsg(MSG_SPLICE_PAGES)") (in v6.5)
    Hook(
        "sent_pages",
        (f"{SOCK}sk", "int bytes"),
        (fexit("tcp_sendpage", 0, 5),),
        timed=False,
        unless=fexit("splice_to_socket"),
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
    _raised("task_throttled", ("struct cb_task *task", "u64 ns"), raised_on=("sched_switch",)),
    _raised(
        "task_waited",
        ("struct cb_task *task", "u64 ns", "bool woken"),
        raised_on=("sched_switch", "sched_wakeup", "sched_wakeup_new"),
    ),
    _raised("task_blocks", ("struct cb_task *task", "u32 state"), raised_on=("sched_switch",)),
    _raised("task_blocked", ("struct cb_task *task", "u64 ns"), raised_on=("sched_switch", "sched_wakeup")),
)
