"""How long an engine may load its model: as long as it gets on.

A large model on a slow disk takes an hour, and an engine that hangs takes for ever; what tells them apart is not the
time but what happens in it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.drivers.process.protocol import Stats

LOOK_SECONDS = 15.0
"""Between two looks that count: a claim's status must not change with every one."""

IDLE_SECONDS = 180.0
"""How long it may neither read nor grow nor compute."""

BUSY_SECONDS = 1800.0
"""How long it may do nothing but compute, as one does that compiles for its model, and one whose threads spin."""

AWAY_SECONDS = 90.0
"""Of a longer while between two looks nothing is known: the clock jumped, or the agent was away."""

_CPU_SHARE = 0.01
_GROWTH_BYTES = 1 << 20


def look(seen: Mapping[str, Any] | None, stats: Stats | None, *, now: float) -> Mapping[str, Any]:
    """What is remembered after a look, of what was remembered before it.

    ``at`` is when this was written, ``moved`` when it last read or grew, ``busy`` when it last did anything.
    """
    if stats is None:
        return seen or {"at": now, "moved": now, "busy": now, "bytes": 0, "cpu": 0.0}
    had = stats.read_bytes + stats.memory_peak_bytes
    fresh = {"at": now, "moved": now, "busy": now, "bytes": had, "cpu": stats.cpu_seconds}
    if seen is None or not 0 <= now - seen["at"] <= AWAY_SECONDS:
        return fresh
    if now - seen["at"] < LOOK_SECONDS:
        return seen
    if had - seen["bytes"] >= _GROWTH_BYTES:
        return fresh
    computed = stats.cpu_seconds - seen["cpu"] > _CPU_SHARE * (now - seen["at"])
    return {**seen, "at": now, "cpu": stats.cpu_seconds, "busy": now if computed else seen["busy"]}


def stuck(seen: Mapping[str, Any], *, now: float) -> str:
    """Why it is given up, in words; "" while it gets on."""
    if now - seen["busy"] > IDLE_SECONDS:
        return f"the engine loads its model and has done nothing for {int(now - seen['busy'])} s"
    if now - seen["moved"] > BUSY_SECONDS:
        return f"the engine loads its model and has read nothing for {int(now - seen['moved'])} s"
    return ""
