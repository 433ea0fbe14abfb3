"""What others may do so that a request fits: claims that are moved, claims that end. For `cheapest`, as proposals.

Nothing is done here. Each is tried in thought, and what is proposed has been carried out there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bessemer.core.asking import Request
from bessemer.placement.cheapest import Change
from bessemer.placement.filters import fitting
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.plan import Place, Plan, Planner, by_devices
from bessemer.placement.moves.removal import without
from bessemer.placement.moves.screen import anywhere
from bessemer.placement.sight import Sight
from bessemer.placement.thought import Thought
from bessemer.placement.vectors import NONE

MOST = 4
"""Moves that are proposed at most: of more nobody would call it a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The request fits on ``host`` at ``at`` (seconds since 1970), for the claims ``uids`` will have ended by then."""

    at: int
    host: str
    uids: tuple[str, ...]
    sight: Sight


def waiting(holdings: Holdings, request: Request) -> Wait | None:
    """The first time at which enough claims will have ended, as far as they say; None where they never do. Nobody else
    is thought to come."""
    holdings.refresh()
    fleet = holdings.fleet
    ends, used = holdings.claims["ends"], holdings.claims["used"] > 0
    known = used & (ends != NONE)
    rows = np.flatnonzero(fitting(without(Sight.of(fleet, request), holdings, gone=known)))
    if not len(rows):
        return None
    times = np.unique(ends[known])
    low, high = 0, len(times) - 1
    # Whoever has no room by then had none before: the hosts that are looked at become few.
    some = holdings.of(rows)
    while low < high:
        middle = (low + high) // 2
        fits = fitting(without(Sight.of(fleet.view(rows), request), some, gone=known & (ends <= times[middle])))
        if fits.any():
            high, rows = middle, rows[fits]
            some = holdings.of(rows)
        else:
            low = middle + 1
    row = int(rows[np.argmin(holdings.ranks()[rows])])
    slots = [slot for slot in holdings.at(row) if known[slot] and ends[slot] <= times[low]]
    uids = tuple(holdings.held(slot)[0] for slot in slots)
    after = without(Sight.of(fleet, request), holdings, gone=known & (ends <= times[low]))
    return Wait(at=int(times[low]), host=fleet.names[row], uids=uids, sight=after)


class Remedies:
    """Proposals over a fleet. ``place`` decides over it by the policy that decides in earnest; ``timed`` puts a time
    into words, for there is no clock here; ``told`` a plan: who reads it need not know whose the claims are."""

    def __init__(
        self, fleet: FleetArrays, place: Place, *, told: Callable[[Plan], str], timed: Callable[[int], str]
    ) -> None:
        self._holdings = Holdings(fleet)
        self._planner = Planner(fleet, place, holdings=self._holdings)
        self._told = told
        self._timed = timed

    def moved(self, sight: Sight) -> Iterator[Change]:
        """A move of a few claims that may be started anew."""
        self._holdings.refresh()
        asks = self._holdings.claims["ask"][np.isfinite(by_devices(self._holdings))]
        requests = [self._holdings.asks.all[ask] for ask in np.unique(asks).tolist()]
        # In a full fleet none of them would find another place: that is seen without a try.
        if not requests or not anywhere(self._holdings.fleet, requests).any():
            return
        plan = self._planner.opened(sight.request, most=MOST)
        if plan is not None and plan.moves and plan.decision is not None:
            yield Change(self._told(plan), self._moved_there(plan, sight.request, host=plan.decision.host))

    def ended(self, sight: Sight) -> Iterator[Change]:
        """The time at which claims will have ended."""
        wait = waiting(self._holdings, sight.request)
        if wait is not None:
            # Whose they are is nothing to who waits.
            yield Change(
                f"wait until {self._timed(wait.at)}: enough on {wait.host} will have ended by then", wait.sight
            )

    def _moved_there(self, plan: Plan, request: Request, *, host: str) -> Sight:
        """The host that was opened, with the moves carried out."""
        fleet = self._holdings.fleet
        with Thought(fleet):
            for move in plan.moves:
                fleet.hold(move.uid, move.hold)
            row = fleet.row(host)
            after = Sight.of(fleet.view(np.array([row])), request)
            # What depends on how devices are cut is read while they are.
            assert fitting(after).any()
        return after


def by_name(named: Callable[[str], str]) -> Callable[[Plan], str]:
    """`move a from h1 to h2, b from h1 to h3`, where ``named`` is how a claim is called."""

    def told(plan: Plan) -> str:
        moves = (f"{named(m.uid)} from {m.source.host} to {m.target.host}" for m in plan.moves)
        return f"move {', '.join(moves)}"

    return told
