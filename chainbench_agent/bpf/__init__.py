"""The few system calls behind everything: BPF through libbpf, perf events, tracefs."""
