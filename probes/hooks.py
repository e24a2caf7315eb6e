"""What can happen in the kernel, and where it can be seen: every hook of every module, its sources best first.

The sources of a hook are tried in order against this kernel: the first whose arguments match its BTF and that loads
and attaches is used.  Version numbers are never compared.  A tracepoint's arguments by kernel: docs/hooks.md.
"""

from chainbench_agent.spec import Hook, raw_tracepoint

TASK = "struct task_struct *"

FIELDS = {
    "TASK___STATE": "task_struct.__state",
    "TASK_GROUP_CFS_BANDWIDTH": "task_group.cfs_bandwidth",
}
"""Members that only some kernels have; probes/compat.h sees them as CB_HAS_<key>."""

HOOKS = (
    Hook(
        "sched_switch",
        ("bool preempt", f"{TASK}prev", f"{TASK}next", "unsigned int prev_state"),
        (
            raw_tracepoint("sched_switch"),
            # before v5.18 the state is not passed
            raw_tracepoint("sched_switch", 0, 1, 2, "cb_task_state(prev)"),
        ),
    ),
    Hook("sched_wakeup", (f"{TASK}woken",), (raw_tracepoint("sched_wakeup"),)),
    Hook("sched_wakeup_new", (f"{TASK}born",), (raw_tracepoint("sched_wakeup_new"),)),
    Hook("sched_migrate_task", (f"{TASK}task", "int dest_cpu"), (raw_tracepoint("sched_migrate_task"),)),
    Hook("sched_process_fork", (f"{TASK}parent", f"{TASK}child"), (raw_tracepoint("sched_process_fork"),)),
    Hook(
        "sched_process_exec",
        (f"{TASK}task", "int old_pid", "struct linux_binprm *bprm"),
        (raw_tracepoint("sched_process_exec"),),
    ),
    Hook("sys_enter", ("struct pt_regs *regs", "long id"), (raw_tracepoint("sys_enter"),)),
    Hook("block_rq_issue", ("struct request *rq",), (raw_tracepoint("block_rq_issue"), raw_tracepoint("block_rq_issue", 1))),
    Hook("block_rq_requeue", ("struct request *rq",), (raw_tracepoint("block_rq_requeue"), raw_tracepoint("block_rq_requeue", 1))),
    Hook(
        "block_rq_complete",
        ("struct request *rq", "unsigned int nr_bytes"),
        (raw_tracepoint("block_rq_complete", 0, 2),),
    ),
    Hook("irq_handler_entry", ("int irq",), (raw_tracepoint("irq_handler_entry"),)),
    Hook("softirq_entry", ("unsigned int vector",), (raw_tracepoint("softirq_entry"),)),
    *(
        Hook(f"{vector}_entry", ("int vector",), (raw_tracepoint(f"{vector}_entry"),))
        for vector in ("local_timer", "reschedule", "call_function", "call_function_single", "irq_work")
    ),
    Hook("cpu_frequency", ("unsigned int khz", "unsigned int cpu"), (raw_tracepoint("cpu_frequency"),)),
    Hook("cpu_idle", ("unsigned int state",), (raw_tracepoint("cpu_idle"),)),
    # raised by sched.h
    Hook("task_ran", ("struct cb_task *task", "u64 ns", "bool voluntary"), raised_on=("sched_switch",)),
    Hook("task_waited", ("struct cb_task *task", "u64 ns", "bool woken"), raised_on=("sched_switch", "sched_wakeup", "sched_wakeup_new")),
    Hook("task_blocks", ("struct cb_task *task", "u32 state"), raised_on=("sched_switch",)),
    Hook("task_blocked", ("struct cb_task *task", "u64 ns"), raised_on=("sched_switch", "sched_wakeup")),
)
