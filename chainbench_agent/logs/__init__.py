"""The agent's log: entries that clients cannot forge, written by a thread that blocks nothing else."""
