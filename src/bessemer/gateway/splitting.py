"""Which of several endpoints answers for one, by weight. Pure but for whose turn it is.

Turns are dealt as evenly as whole requests can be: of any hundred in a row 90 to 10 is 90 and 10, and the ten are not
in a row. A request of a session goes where the others of its session go, and takes nobody's turn: its place is drawn by
its hash, the same at every gateway, and when a weight changes no session moves but those that have to.

Sources: smooth weighted round robin (nginx, 2012; turns of earliest deadline); Thaler, Ravishankar: Using Name-Based
Mappings to Increase Hit Rates (highest random weight, 1998), with weights as in Schindelhauer, Schomaker (2005).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

_SCALE = 1 << 64


class Split:
    """Endpoints by name, and the weight of each; some of them is more than 0."""

    __slots__ = ("_had", "weights")

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self._had = dict.fromkeys(self.weights, 0)
        """What each is owed: its weight for each turn, less all weights for each that was its own."""

    def pick(self, session: int = 0) -> str:
        """Whose turn it is; or where a session belongs, which is a hash, 0 for none."""
        if session:
            return min(self.weights, key=lambda name: _far(session, name) / self.weights[name])
        had = self._had
        for name, weight in self.weights.items():
            had[name] += weight
        chosen = max(had, key=had.__getitem__)
        had[chosen] -= sum(self.weights.values())
        return chosen


def split_of(backends: Iterable[Mapping[str, Any]], known: Split | None) -> Split | None:
    """As an Endpoint says it; the one that is known where that says the same, for it knows whose turn it is. None where
    nobody has a weight."""
    split = Split({one["endpoint"]: one.get("weight", 1) for one in backends})
    if known is not None and known.weights == split.weights:
        return known
    return split if split.weights else None


def _far(session: int, name: str) -> float:
    """How far a session is from one of weight 1: drawn from the exponential distribution."""
    drawn = int.from_bytes(blake2b(b"%d/%b" % (session, name.encode()), digest_size=8).digest(), "big")
    return -math.log((drawn + 1) / _SCALE)
