"""Measures the agent and the tools that people would use instead, in one run, and writes docs/performance.md.

    __main__    the command: chooses sections, writes the page
    report      the page: what was asked for and what was found; charts
    net_cost, slowdown, daemon, quantiles, scale     the sections: each yields rows, or series for a chart
    subjects    the agent, BCC's tools, Debian's libbpf-tools, bpftrace: started, and ended
    workloads   known loads, each of so many operations
    accounts    the kernel's statistics of programs, runs and ns, and those of empty programs on the same hooks
    numbers     a figure with its spread; what is asked of it

Imports point down here too.  Whether a target is missed is printed and written, never asserted: this is no test.
"""
