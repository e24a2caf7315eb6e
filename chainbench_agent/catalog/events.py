"""Events, which a module emits as they happen, in addition to what it counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something rare and notable; its handler calls cb_tell (probes/events.h) with MODULE_EVENT_NAME.

    `value`: the name of the number that is emitted with it, with its unit; empty: no number.
    """

    name: str
    help: str
    value: str = ""
