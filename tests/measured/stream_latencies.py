"""Prints when each block or run-queue latency ended and how long it was (ns), until SIGTERM: the truth to compare to.

Written the way BCC's own tools are, with a hash and a ring buffer, and sharing nothing with the agent.
"""

import ctypes
import signal
import sys
import time
from pathlib import Path

from bcc import BPF

COMMON = """
BPF_RINGBUF_OUTPUT(latencies, 1 << 10); // pages
BPF_HASH(started, u64, u64, 65536);
static inline void start(u64 key) { u64 now = bpf_ktime_get_ns(); started.update(&key, &now); }
static inline void finish(u64 key)
{
    u64 *at = started.lookup(&key), ended[2];
    if (!at) return;
    ended[0] = bpf_ktime_get_ns();
    ended[1] = ended[0] - *at;
    latencies.ringbuf_output(&ended, sizeof(ended), BPF_RB_NO_WAKEUP);
    started.delete(&key);
}
"""
BLOCK = """
int on_issue(struct bpf_raw_tracepoint_args *ctx) { start(ctx->args[0]); return 0; }
int on_complete(struct bpf_raw_tracepoint_args *ctx) { finish(ctx->args[0]); return 0; }
"""
RUNQ = """
int on_wake(struct bpf_raw_tracepoint_args *ctx)
{
    struct task_struct *p = (struct task_struct *)ctx->args[0];
    u64 pid = p->pid;
    if (!started.lookup(&pid)) start(pid);
    return 0;
}
int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
    struct task_struct *prev = (struct task_struct *)ctx->args[1], *next = (struct task_struct *)ctx->args[2];
    u64 from = prev->pid, to = next->pid;
    if (from && (ctx->args[0] & 1 || !PREV_STATE)) start(from);
    else if (from) started.delete(&from);
    if (to) finish(to);
    return 0;
}
"""
# Kernels that still call it `state` (before 5.14) do not pass it either (before 5.18).
RENAMED = b"\0__state\0" in Path("/sys/kernel/btf/vmlinux").read_bytes()
PREV_STATE = "(unsigned int)ctx->args[3]" if RENAMED else "prev->state"
HOOKS = {
    "block": {"block_rq_issue": "on_issue", "block_rq_complete": "on_complete"},
    "runq": {"sched_wakeup": "on_wake", "sched_wakeup_new": "on_wake", "sched_switch": "on_switch"},
}


LATENCY = ctypes.POINTER(ctypes.c_uint64)


def main(kind, ready):
    BPF._trace_autoload = lambda _self: None
    text = COMMON + {"block": BLOCK, "runq": RUNQ.replace("PREV_STATE", PREV_STATE)}[kind]
    unit = BPF(text=text, cflags=["-ffine-grained-bitfield-accesses"])
    for tracepoint, function in HOOKS[kind].items():
        unit.load_func(function.encode(), BPF.RAW_TRACEPOINT)
        unit.attach_raw_tracepoint(tracepoint.encode(), function.encode())
    found = []
    unit[b"latencies"].open_ring_buffer(lambda _context, data, _size: found.append(ctypes.cast(data, LATENCY)[:2]))
    going_on = [True]
    signal.signal(signal.SIGTERM, lambda *_: going_on.clear())
    Path(ready).touch()
    while going_on:
        time.sleep(0.05)
        unit.ring_buffer_consume()
    sys.stdout.writelines(f"{at_ns} {ns}\n" for at_ns, ns in found)


if __name__ == "__main__":
    main(*sys.argv[1:])
