"""The life of a run, from its start to the store; one run at a time."""
