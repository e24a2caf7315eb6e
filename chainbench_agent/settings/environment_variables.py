"""Finds environment variables that look like settings but are not, as a misspelt one would be ignored silently."""

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
"""Variables of scripts/ and tests/, which the agents that they start inherit."""

OF_KUBERNETES = "CHAINBENCH_AGENT_"
"""Prefix of the variables that Kubernetes sets in each pod for a Service called chainbench-agent (deploy/kubernetes):
CHAINBENCH_AGENT_SERVICE_HOST, CHAINBENCH_AGENT_PORT, CHAINBENCH_AGENT_PORT_9090_TCP and more."""


def strangers(environment: Iterable[str], settings: Iterable[str]) -> tuple[str, ...]:
    """The names in `environment` that have the prefix of settings but belong to no setting, in their order.

    Case is ignored, because settings may be written in lower case as well.
    """
    known = {CONFIG, *OF_THE_CHECKOUT, *(f"{ENV_PREFIX}{name.upper()}" for name in settings)}
    return tuple(
        name
        for name in environment
        if (upper := name.upper()).startswith(ENV_PREFIX) and not upper.startswith(OF_KUBERNETES) and upper not in known
    )


def no_such_setting(name: str, where: object, settings: Iterable[str], prefix: str = "") -> str:
    """An error sentence for an unknown setting: which one may be meant, and the names of all settings.

    `prefix` is ENV_PREFIX where the names are variables; it is left out when names are compared.
    """
    known = [name.upper() if prefix else name for name in settings]
    meant = nearest(name.upper().removeprefix(prefix), known)
    perhaps = f", perhaps {prefix}{meant} is meant" if meant else ""
    return f"no such setting ({where}){perhaps}; the settings are {', '.join(f'{prefix}{one}' for one in known)}"
