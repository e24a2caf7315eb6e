"""The kernel's declarations as a header tree for BCC, made from the BTF of the running kernel."""
