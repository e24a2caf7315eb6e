"""`python -m chainbench_agent` is `chainbench-agent`."""

from chainbench_agent.commands.main import main

main(prog_name="chainbench-agent")
