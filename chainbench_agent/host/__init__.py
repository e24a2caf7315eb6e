"""This machine, as procfs and the C library describe it."""
