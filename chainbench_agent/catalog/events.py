"""The events that a module emits as they happen, next to what it counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something rare and notable; its handler calls cb_emit() (probes/lib/events.h) with MODULE_EVENT_NAME.

    `value`: the name of the number that comes with it, with its unit; empty: it has no number.
    """

    name: str
    help: str
    value: str = ""
