"""A tree of C headers for BCC, generated from the BTF of the running kernel."""
