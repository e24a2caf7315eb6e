"""The log: entries that nobody can forge, written by a thread of its own."""
