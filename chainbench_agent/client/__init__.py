"""The agent's HTTP API for Python programs: `Agent(url).collect(...)` measures the body of a with statement.

It imports only requests and the standard library, so that a benchmark runner needs neither BCC nor the agent's server.
"""

from chainbench_agent.client.agent import Agent
from chainbench_agent.client.collection import Run
from chainbench_agent.client.errors import (
    BadAnswerError,
    ClientError,
    NoAnswerError,
    ProblemError,
    RunLostError,
    UnreachableError,
)

__all__ = [
    "Agent",
    "BadAnswerError",
    "ClientError",
    "NoAnswerError",
    "ProblemError",
    "Run",
    "RunLostError",
    "UnreachableError",
]
