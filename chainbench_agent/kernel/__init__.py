"""Uses loaded programs: attaches them, reads their maps and the kernel's own counters, and follows the target."""
