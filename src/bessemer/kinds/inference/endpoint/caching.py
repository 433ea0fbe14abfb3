"""How full a replica's cache of keys and values is, where its engine says so: by which its endpoint scales, too.

A cache that is nearly full makes requests wait or begin anew while slots are free. It is read every `READ_SECONDS`, and
said by steps from half full on, so that a claim's status does not change with every look.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from bessemer.drivers.engine.protocol import EngineMetrics
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.host_side import LOOK_SECONDS
from bessemer.kinds.inference.endpoint.spec import SORTS, ReplicaStatus

READ_SECONDS = 15.0
STEP, LEAST = 0.1, 0.5


def due(engine: str, now: float) -> bool:
    """Whether it is read with the look that is made now: with one of three, of an engine that says it."""
    return now % READ_SECONDS < LOOK_SECONDS and any(sort.caches for sort in SORTS if sort.name == engine)


def level(metrics: EngineMetrics) -> float | None:
    """The step that it has reached; None below the least."""
    used = metrics.kv_used
    if used is None or used < LEAST:
        return None
    return round(int(used / STEP + 1e-9) * STEP, 1)


def said(claim: Claim) -> float | None:
    """What a claim's host says of it; what makes no sense says nothing."""
    found: Any = claim.status.detail.get("cache")
    good = isinstance(found, int | float) and not isinstance(found, bool) and LEAST <= found <= 1.0
    return float(found) if good else None


def share(replicas: Sequence[ReplicaStatus]) -> float | None:
    """The mean of those that answer, for requests go where there is room; None where none says it."""
    found = [one.cache_share for one in replicas if one.ready]
    return fmean(one or 0.0 for one in found) if any(one is not None for one in found) else None
