"""`Mover`: makes room for requests that would be refused, as far as moves are allowed."""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core.asking import Request
from bessemer.placement.moves.plan import Plan, Planner
from bessemer.placement.replay.trace import milli_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How much may be moved: ``per_hundred`` moves for a hundred requests that came so far, ``at_once`` for one of
    them at most, and no more than bring ``gain`` devices each; with a ``depth`` of 2, claims make room for claims."""

    per_hundred: float
    at_once: int = 4
    gain: float = 0.0
    depth: int = 1


class Mover:
    """Spends an allowance. What is not spent is kept: a fleet is not full from the start."""

    def __init__(self, planner: Planner, allowance: Allowance) -> None:
        self._planner = planner
        self._allowance = allowance
        self._came = 0
        self._moves = 0

    def came(self) -> None:
        """One more request did."""
        self._came += 1

    def forget(self) -> None:
        """Count from nothing on: what was saved so far is not spent later."""
        self._came = self._moves = 0

    def room_for(self, request: Request) -> Plan | None:
        """A plan for a request that fits nowhere; whoever asks carries it out."""
        allowed = self._allowance
        most = min(int(allowed.per_hundred * self._came / 100) - self._moves, allowed.at_once)
        if allowed.gain:
            most = min(most, int(milli_of(request) / 1000 / allowed.gain))
        if most <= 0:
            return None
        plan = self._planner.opened(request, most=most, depth=allowed.depth)
        self._moves += 0 if plan is None else len(plan.moves)
        return plan
