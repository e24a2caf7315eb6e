"""`python -m chainbench_agent` is `chainbench-agent`."""

from chainbench_agent.cli import main

main(prog_name="chainbench-agent")
