"""Compares two sides of stored runs: is one faster, by how much, and why.  Pure: no I/O, no clock.

In the order in which to read: build (the whole) → run_set → duration and statistics (the test) → judge and verdict →
explain: waterfall, children, support, because, metrics.  The result is in model, and formats show it.
docs/compare.md says what is claimed, and what is not.
"""
