"""Reads what the programs have counted, and what the kernel counts itself."""
