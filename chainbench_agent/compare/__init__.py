"""Compares two sides of runs: is one faster, by how much, and why.  Pure: no I/O, no clock."""
