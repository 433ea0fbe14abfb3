"""What the queue would say of a request that is not in line yet, for who plans: its place in the order, when it would
start, and who would make room for it. Nothing is joined, kept or told by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bessemer.core.clock import rfc3339
from bessemer.placement.facts import Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """``ahead`` of ``waiting`` others go before it. ``start`` is when it starts at the latest, None where nobody knows:
    ``at_once``, or when the claims ``stops`` have made room for it, which are told where it asks, or others have ended.
    ``deep``: it is so far back in the order that nobody looks."""

    ahead: int
    waiting: int
    start: int | None
    at_once: bool = False
    deep: bool = False
    stops: Mapping[str, Hold] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """When, and why not sooner."""
        before = f"; {self.ahead} of {self.waiting} that wait go before it" if self.waiting else ""
        if self.at_once:
            return f"at once{before}"
        if self.start is not None:
            return f"by {rfc3339(self.start)}{before}"
        why = "nobody looks so far ahead" if self.deep else "nobody knows when what it would wait for ends"
        return f"not known: {why}{before}"
