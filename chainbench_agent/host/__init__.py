"""The machine that the agent runs on: its processes, PID namespaces, hardware and versions."""
