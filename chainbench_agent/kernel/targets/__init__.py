"""Finds the processes and threads of a target, and what procfs and cgroups say of them."""
