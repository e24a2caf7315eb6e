"""The variables of the environment that are called like settings: a misspelt one would be passed over in silence."""

from __future__ import annotations

from collections.abc import Iterable

from chainbench_agent.settings.near_miss import nearest

ENV_PREFIX = "CHAINBENCH_"

CONFIG = "CHAINBENCH_CONFIG"
"""Names the configuration file."""

OF_THE_CHECKOUT = frozenset(
    {
        "CHAINBENCH_FRESH",
        "CHAINBENCH_PYTHON",
        "CHAINBENCH_REQUIRE_BPF",
        "CHAINBENCH_SUPPORT",
        "CHAINBENCH_VM_ALL",
        "CHAINBENCH_VM_CACHE",
        "CHAINBENCH_VM_SECONDS",
    }
)
"""What scripts/ and tests/ are told; the agents that they start inherit it."""

OF_KUBERNETES = "CHAINBENCH_AGENT_"
"""Kubernetes tells the pods of a namespace of its Services; of one called chainbench-agent, as in deploy/kubernetes, by
CHAINBENCH_AGENT_SERVICE_HOST, CHAINBENCH_AGENT_PORT, CHAINBENCH_AGENT_PORT_9090_TCP and more."""


def strangers(environment: Iterable[str], settings: Iterable[str]) -> tuple[str, ...]:
    """The names in `environment` that begin like a setting's and are of none of `settings`, in their order.

    In small letters as well, for in those a setting is taken too.
    """
    known = {CONFIG, *OF_THE_CHECKOUT, *(f"{ENV_PREFIX}{name.upper()}" for name in settings)}
    return tuple(
        name
        for name in environment
        if (upper := name.upper()).startswith(ENV_PREFIX) and not upper.startswith(OF_KUBERNETES) and upper not in known
    )


def no_such_setting(name: str, where: object, settings: Iterable[str], prefix: str = "") -> str:
    """The sentence about a name that is no setting: the one that may be meant, and all that there are.

    `prefix`: ENV_PREFIX where names are those of variables; it counts for nothing in how near two are.
    """
    known = [name.upper() if prefix else name for name in settings]
    meant = nearest(name.upper().removeprefix(prefix), known)
    perhaps = f", perhaps {prefix}{meant} is meant" if meant else ""
    return f"no such setting ({where}){perhaps}; the settings are {', '.join(f'{prefix}{one}' for one in known)}"
