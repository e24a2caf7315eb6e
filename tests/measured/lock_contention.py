"""Counts how often processes called "contender" waited for a mutex or an rwsem, until SIGTERM: the truth to compare to.

Shares nothing with the agent: another filter, a hash by thread and lock, and kprobes where there are no tracepoints.
"""

import json
import signal
import sys
from pathlib import Path

from bcc import BPF

COMMON = """
BPF_ARRAY(waits, u64, 2); // mutexes, rwsems
static inline int is_contender(void)
{
    char name[16] = {}, wanted[] = "contender";
    bpf_get_current_comm(&name, sizeof(name));
    for (int i = 0; i < sizeof(wanted); i++)
        if (name[i] != wanted[i]) return 0;
    return 1;
}
static inline void count(int kind)
{
    if (is_contender()) waits.atomic_increment(kind);
}
"""
TRACEPOINTS = """
struct wait { u64 thread, lock; };
BPF_HASH(begun, struct wait, int, 65536);
int on_begin(struct bpf_raw_tracepoint_args *ctx)
{
    struct wait wait = { bpf_get_current_pid_tgid(), ctx->args[0] };
    int kind = ctx->args[1] & 0x20 ? 0 : 1;
    if (ctx->args[1] & 0x20 || ctx->args[1] == 2 || ctx->args[1] == 4) begun.update(&wait, &kind);
    return 0;
}
int on_end(struct bpf_raw_tracepoint_args *ctx)
{
    struct wait wait = { bpf_get_current_pid_tgid(), ctx->args[0] };
    int *kind = begun.lookup(&wait);
    if (!kind) return 0;
    count(*kind);
    begun.delete(&wait);
    return 0;
}
"""
KPROBES = """
int on_mutex(struct pt_regs *ctx) { count(0); return 0; }
int on_rwsem(struct pt_regs *ctx) { count(1); return 0; }
"""
FUNCTIONS = {
    "on_mutex": "__mutex_lock_slowpath __mutex_lock_interruptible_slowpath __mutex_lock_killable_slowpath",
    "on_rwsem": "rwsem_down_read_slowpath rwsem_down_write_slowpath",
}


def main(ready):
    BPF._trace_autoload = lambda _self: None
    traced = b"\0btf_trace_contention_begin\0" in Path("/sys/kernel/btf/vmlinux").read_bytes()
    unit = BPF(text=COMMON + (TRACEPOINTS if traced else KPROBES), cflags=["-ffine-grained-bitfield-accesses"])
    if traced:
        for tracepoint, function in (("contention_begin", "on_begin"), ("contention_end", "on_end")):
            unit.load_func(function.encode(), BPF.RAW_TRACEPOINT)
            unit.attach_raw_tracepoint(tracepoint.encode(), function.encode())
    else:
        for function, places in FUNCTIONS.items():
            for place in places.split():
                unit.attach_kprobe(event=place.encode(), fn_name=function.encode())
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Path(ready).touch()
    signal.sigwait({signal.SIGTERM})
    waits = [value.value for value in unit[b"waits"].values()]
    json.dump(dict(zip(("mutexes", "rwsems"), waits, strict=True)), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
