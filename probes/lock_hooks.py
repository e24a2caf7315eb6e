"""The hooks of locks: where they are taken, waited for and released."""

from functools import partial

from chainbench_agent.catalog import RESULT, Hook, fentry, fexit, kprobe, kretprobe, raw_tracepoint, uprobe, uretprobe

CONTENTION = ("contention_begin", "contention_end")
SLOW_PATHS = {
    "mutex": (
        "struct mutex *",
        ("__mutex_lock_slowpath", "__mutex_lock_interruptible_slowpath", "__mutex_lock_killable_slowpath"),
    ),
    "rwsem": ("struct rw_semaphore *", ("rwsem_down_read_slowpath", "rwsem_down_write_slowpath")),
    "semaphore": ("struct semaphore *", ("__down", "__down_interruptible", "__down_killable", "__down_timeout")),
    "spin": ("struct qspinlock *", ("native_queued_spin_lock_slowpath", "__pv_queued_spin_lock_slowpath")),
}
"""The functions that wait for a contended lock, by kind of lock, and the type of the lock that they take."""


def _entry(function: str) -> str:
    return f"{function.strip('_').removesuffix('_slowpath')}_enter"


def _return(function: str) -> str:
    return f"{function.strip('_').removesuffix('_slowpath')}_leave"


def _slow_path(kind: str, lock_type: str, function: str) -> tuple[Hook, Hook]:
    """Linux 16edd9b511a1 ("locking: Add lock contention tracepoints") (in v5.19) made these two unnecessary.

    A kretprobe does not know which lock it was: contention.h takes the one that the thread, or the CPU, waits for.
    """
    use = partial(Hook, params=("void *lock", "unsigned int kind"), stands_in_for=CONTENTION, timed=False)
    own, kind = (f"{lock_type}contended",), f"CB_LOCK_{kind.upper()}"
    at_entry, at_return = (
        tuple(probe(function, "contended", kind, own=own) for probe in (fentry, kprobe)),
        (fexit(function, "contended", kind, own=own), kretprobe(function, "NULL", kind)),
    )
    return (
        use(_entry(function), sources=at_entry, handler="slow_path_enter"),
        use(_return(function), sources=at_return, handler="slow_path_leave"),
    )


ORDER = partial(Hook, option="locks:order", timed=False)
PTHREAD_WAITS = "pthread_mutex_lock/pthread_mutex_timedlock/pthread_mutex_clocklock"
AS_CALLED = (0, "cb_called_at(ctx)")
MUTEX = ("unsigned long mutex",)


def _order(name: str, function: str, handler: str = "") -> Hook:
    """A function that is called with a mutex."""
    return ORDER(name, ("struct mutex *lock",), (fentry(function, 0), kprobe(function, 0)), handler=handler)


def _answered(function: str, handler: str) -> tuple[Hook, Hook]:
    """A function that may not take the mutex, and says whether it did."""
    name = f"order_{function.removeprefix('mutex_').removeprefix('lock_')}"
    answers = (fexit(function, 1), kretprobe(function, RESULT))
    return (
        _order(name, function, handler),
        ORDER(f"{name}_answers", ("int answer",), answers, handler=f"{handler}_answers"),
    )


ORDER_HOOKS = (
    ORDER("pthread_wants", (*MUTEX, "unsigned long caller"), (uprobe(PTHREAD_WAITS, *AS_CALLED),)),
    ORDER("pthread_tries", (*MUTEX, "unsigned long caller"), (uprobe("pthread_mutex_trylock", *AS_CALLED),)),
    ORDER("pthread_answers", ("int answer",), (uretprobe(f"{PTHREAD_WAITS}/pthread_mutex_trylock"),)),
    ORDER("pthread_unlocks", MUTEX, (uprobe("pthread_mutex_unlock", 0),)),
    ORDER(
        "pthread_cond_waits",
        (*MUTEX, "unsigned long caller"),
        (uprobe("pthread_cond_wait/pthread_cond_timedwait/pthread_cond_clockwait", 1, AS_CALLED[1]),),
    ),
    ORDER("pthread_renews", MUTEX, (uprobe("pthread_mutex_init/pthread_mutex_destroy", 0),)),
    _order("order_lock", "mutex_lock"),
    *_answered("mutex_lock_interruptible", "order_wait"),
    *_answered("mutex_lock_killable", "order_wait"),
    *_answered("mutex_trylock", "order_trylock"),
    _order("order_unlock", "mutex_unlock"),
    _order("order_init", "__mutex_init"),
)

HOLD = partial(Hook, option="locks:hold", timed=False)
SPIN = ("raw_spinlock_t *lock",)


def _hold(function: str) -> Hook:
    """No kprobes: they would be hit inside of the locks that they take themselves."""
    at = function.removeprefix("_raw_spin_")
    name = f"raw_{at}"
    if at.startswith("trylock"):
        return HOLD(name, (*SPIN, "int taken"), (fexit(function, 0, 1),), handler="raw_trylock")
    if at.startswith("unlock"):
        return HOLD(name, SPIN, (fentry(function, 0),), handler="raw_unlock")
    return HOLD(name, SPIN, (fexit(function, 0),), handler="raw_lock")


HOLD_HOOKS = tuple(
    _hold(f"_raw_spin_{how}")
    for how in (
        *("lock", "lock_irqsave", "lock_irq", "lock_bh", "trylock", "trylock_bh"),
        *("unlock", "unlock_irqrestore", "unlock_irq", "unlock_bh"),
    )
)

LOCK_HOOKS = (
    # locks of the kernel: raised by contention.h
    Hook("contention_begin", ("void *lock", "unsigned int flags"), (raw_tracepoint("contention_begin"),), timed=False),
    Hook("contention_end", ("void *lock",), (raw_tracepoint("contention_end"),), timed=False),
    *(
        hook
        for kind, (lock_type, functions) in SLOW_PATHS.items()
        for function in functions
        for hook in _slow_path(kind, lock_type, function)
    ),
    *(
        Hook(
            f"{kind}_waited",
            ("u64 ns",),
            raised_on=(*CONTENTION, *map(_entry, functions), *map(_return, functions)),
        )
        for kind, (_, functions) in SLOW_PATHS.items()
    ),
    Hook(
        "rcu_stall_warning",
        ("char *flavour",),
        (
            raw_tracepoint("rcu_stall_warning"),
            # before v5.15 there was no event, but each of the two warnings ends with this
            kprobe("rcu_check_gp_kthread_starvation", "NULL"),
        ),
        timed=False,
    ),
    *ORDER_HOOKS,
    *HOLD_HOOKS,
)
