"""Kernel-level evidence for benchmarks.

     POST /start /stop /report     GET /status /report /runs /events   GET /metrics
            │                               ▲                            ▲
    ┌───────▼───────────────────────────────┴────────────────────────────┴───────────────┐
    │ commands        the command line: one file for each command                        │
    ├────────────────────────────────────────────────────────────────────────────────────┤
    │ server          gunicorn, its socket and its worker; systemd                       │
    ├──────────────────────────────────────────┬─────────────────────────────────────────┤
    │ web     Flask: a route is a call to runs │ agent  build_agent(settings) → Agent    │
    ├──────────────────────────────────────────┴─────────────────────────────────────────┤
    │ runs            one run at a time: idle → starting → running → stopping → idle     │
    ├────────────────────────────────────────────────────────────────────────────────────┤
    │ collector       two samples make a run: measured (ebpf) or made up (mock)          │
    ├──────────────────────────────────────────┬────────────────────┬────────────────────┤
    │ kernel     attach, read maps and procfs  │ export             │ store              │
    ├─────────────────────┬────────────────────┤ Prometheus,        │ runs, in SQLite or │
    │ loading: C text,    │ symbols: functions │ Markdown           │ PostgreSQL         │
    │ compile (BCC), load │ by address         ├────────────────────┤                    │
    ├─────────────────────┼────────────────────┤ compare: run sets  │                    │
    │ headers, from BTF   │ bpf: system calls  │ → Comparison (pure)│                    │
    ├─────────────────────┴────────────────────┴────────────────────┴────────────────────┤
    │ model           a run's request, a stored run, statuses: handed between rows (pure)│
    ├───────────────────────────────┬────────────────────────────────────────────────────┤
    │ host     procfs, this machine │ evidence  Sample + Sample → Evidence  (pure)       │
    ├───────────────────────────────┴────────────────────────────────────────────────────┤
    │ probes          runqlat.c + runqlat.py, …: handlers next to their declarations     │
    ├────────────────────────────────────────────────────────────────────────────────────┤
    │ catalog: how to declare   abi: shared with C   settings   logs   errors            │
    ├────────────────────────────────────────────────────────────────────────────────────┤
    │ client          the HTTP API for Python programs: imports nothing of this package  │
    └────────────────────────────────────────────────────────────────────────────────────┘
        a module imports only from rows below its own; packages side by side do not know each other;
        some skip rows that are below them too (NEVER in tests/test_layers.py)

One run, in the order in which to read: web.routes → runs.lifecycle → collector.ebpf → kernel.machine → evidence.build,
and then runs.archive → store.sql.
Loading, once: loading.bpf_unit → loading.attach_points, loading.unit_text, headers, loading.compiler, loading.loader.
"""
