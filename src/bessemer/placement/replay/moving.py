"""`Mover`: makes room for requests that would be refused, as far as moves are allowed."""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core.asking import Request
from bessemer.placement.moves.plan import Plan, Planner
from bessemer.placement.own import devices
from bessemer.placement.replay.trace import milli_of

PLENTY = 1 / 150
"""Moves for each device of the fleet that are left when a move is at its cheapest: some forty in a fleet of 6,000."""

CHEAPEST = 0.5
"""What a move must bring then, as a part of what the last one must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How much may be moved: ``per_hundred`` moves for a hundred requests that came so far, ``at_once`` for one of
    them at most, and no more than bring ``gain`` devices each; with a ``depth`` of 2, claims make room for claims.

    What came before anything counts allows nothing after it, unless moves are ``saved``, so many at most. The last of
    them must then bring ``gain`` devices each; the more are left the less, down to half of it (`PLENTY`, `CHEAPEST`).
    """

    per_hundred: float
    at_once: int = 4
    gain: float = 0.0
    saved: int | None = None
    depth: int = 1


class Mover:
    """Spends an allowance. What is not spent is kept: a fleet is not full from the start."""

    def __init__(self, planner: Planner, allowance: Allowance) -> None:
        self._planner = planner
        self._allowance = allowance
        self._came = 0
        self._spent = 0.0

    @property
    def left(self) -> float:
        """Moves that may be made now."""
        return self._allowance.per_hundred * self._came / 100 - self._spent

    def came(self) -> None:
        """One more request did."""
        self._came += 1
        if self._allowance.saved is not None:
            self._spent += max(0.0, self.left - self._allowance.saved)

    def forget(self) -> None:
        """Count from nothing on: what came so far allows nothing later, but for what is saved."""
        if self._allowance.saved is None:
            self._came, self._spent = 0, 0.0

    def room_for(self, request: Request) -> Plan | None:
        """A plan for a request that fits nowhere; whoever asks carries it out."""
        allowed = self._allowance
        most, price = min(int(self.left), allowed.at_once), self._price()
        if price:
            most = min(most, int(milli_of(request) / 1000 / price))
        if most <= 0:
            return None
        plan = self._planner.opened(request, most=most, depth=allowed.depth)
        self._spent += 0 if plan is None else len(plan.moves)
        return plan

    def _price(self) -> float:
        """Devices that each move must bring."""
        allowed = self._allowance
        if allowed.saved is None:
            return allowed.gain
        plenty = max(1.0, PLENTY * devices(self._planner.fleet))
        return allowed.gain * (1 - (1 - CHEAPEST) * min(1.0, self.left / plenty))
