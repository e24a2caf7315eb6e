"""Kernel-level evidence for benchmarks.

     POST /start /stop /report     GET /status /report /runs /events   GET /metrics
            │                               ▲                            ▲
    ┌───────▼───────────────────────────────┴────────────────────────────┴───────────────┐
    │ server, web     gunicorn and Flask: one route is one call into runs                │
    ├────────────────────────────────────────────────────────────────────────────────────┤
    │ runs            one run at a time: idle → starting → running → stopping → idle     │
    ├────────────────────────────────────────────────────────────────────────────────────┤
    │ collector       two samples make a run: measured (ebpf) or made up (mock)          │
    ├──────────────────────────────────────────┬────────────────────┬────────────────────┤
    │ kernel     attach, read maps and procfs  │ export             │ store              │
    ├──────────────────────────────────────────┤ Prometheus,        │ runs, in SQLite or │
    │ loading    C text, compile (BCC), load   │ Markdown           │ PostgreSQL         │
    ├─────────────────────┬────────────────────┤                    │                    │
    │ headers, from BTF   │ bpf: system calls  │                    │                    │
    ├─────────────────────┴────────────────────┴────────────────────┴────────────────────┤
    │ evidence        Sample + Sample → Evidence   (pure: no I/O, no clock)              │
    ├────────────────────────────────────────────────────────────────────────────────────┤
    │ probes          runqlat.c + runqlat.py, …: handlers beside their declarations      │
    ├────────────────────────────────────────────────────────────────────────────────────┤
    │ spec, errors, settings, plan, c_struct, kernel_text, log_writer, near_miss          │
    └────────────────────────────────────────────────────────────────────────────────────┘
        a module imports only from rows below its own; rows side by side do not know each other

One run, in the order in which to read: web.api → runs.Runs → collector.ebpf → kernel.machine → evidence.build,
and then archive → store.sql.
Loading, once: loading.unit → loading.sources, loading.fuse, headers, loading.compiler, loading.loader.
"""
