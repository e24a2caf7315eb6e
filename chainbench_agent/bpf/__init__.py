"""The kernel interfaces that the agent calls: BPF through libbpf, perf events, kretprobes in tracefs."""
