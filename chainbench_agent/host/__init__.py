"""Reads what procfs and the C library say of this machine."""
