"""What a module tells as it happens, beside what it counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something rare and notable; its handler calls cb_tell (probes/lib/events.h) with MODULE_EVENT_NAME.

    `value`: what the number is that comes with it, with its unit; empty: there is none.
    """

    name: str
    help: str
    value: str = ""
