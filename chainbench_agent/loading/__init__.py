"""Loads the programs of modules: finds the sources that this kernel has, writes one C text, compiles it, loads it."""
