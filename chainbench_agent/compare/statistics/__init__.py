"""Rank statistics of two samples, exact for small ones, with the standard library only."""
