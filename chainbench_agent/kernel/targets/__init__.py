"""The target of a run: its processes, threads and cgroups, as procfs and the cgroup file system show them."""
