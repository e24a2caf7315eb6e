"""The tree in errors.py is complete."""

import importlib
import pkgutil

import chainbench_agent
from chainbench_agent import errors


def test_the_tree_names_every_error():
    """The docstring has each public subclass of AgentError in the package."""
    for module in pkgutil.walk_packages(chainbench_agent.__path__, "chainbench_agent."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    found, todo = set(), [errors.AgentError]
    while todo:
        error = todo.pop()
        found.add(error.__name__)
        todo += error.__subclasses__()

    assert "NoEvents" in found
    assert {name for name in found if not name.startswith("_") and name not in errors.__doc__} == set()
