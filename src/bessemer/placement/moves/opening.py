"""`open_places`: several places for one request at once, by few moves; and `by_time`, what a move costs.

One after the other: what is free already is taken first, then the cheapest plan for one more, and so on, upon the
arrays as those before left them. Who was moved once is not moved again. So each step is legal when those before it are
done; that no other order would need fewer is not shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bessemer.core.asking import Decision, Request
from bessemer.placement.facts import Hold
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.plan import Move, Planner, Prices
from bessemer.placement.moves.trial import Trial
from bessemer.placement.policies import Floats
from bessemer.placement.vectors import WHOLE

START_SECONDS = 60
"""For so long nothing is earned with what is moved: it is stopped, or there twice."""

LEAST = 0.1
"""Devices that a claim without any counts as: its time is worth something, too."""

_OPEN = "\0open/"
"""Holds the places that are opened, under no uid that a claim could have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """``moves`` in the order in which they are carried out, after which all of ``places`` are free at once; the first
    ``there`` of them are so without any."""

    moves: tuple[Move, ...]
    places: tuple[Decision, ...]
    there: int

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where places are opened that were not there."""
        return tuple(sorted({place.host for place in self.places[self.there :]}))


def lost_seconds(holdings: Holdings, *, now: int) -> Floats:
    """[slots]: the time of each claim that is lost when it is moved, at most: since it was taken. Of what is replaced
    nothing is."""
    claims = holdings.claims
    found: Floats = np.where(claims["replaced"] > 0, 0.0, np.maximum(0, now - claims["since"]).astype(np.float64))
    return found


def by_time(now: int) -> Prices:
    """Prices in device-seconds: what is lost of work that was paid for, at most, the time in which nothing is earned,
    and one for the move itself."""

    def prices(holdings: Holdings) -> Floats:
        claims = holdings.claims
        may = (claims["used"] > 0) & (claims["restartable"] > 0) & (claims["ask"] >= 0)
        devices = np.maximum(claims["milli"] / WHOLE, LEAST)
        found: Floats = np.where(may, 1.0 + devices * (START_SECONDS + lost_seconds(holdings, now=now)), np.inf)
        return found

    return prices


def open_places(planner: Planner, request: Request, *, count: int, most: int) -> Opening:
    """As many places as can be had for the request at once, ``count`` at most, by ``most`` moves at most."""
    moves: list[Move] = []
    places: list[Decision] = []
    there = 0
    with Trial(planner.fleet) as trial:
        while len(places) < count:
            place = planner.place(request) or _made(planner, request, trial=trial, moves=moves, most=most)
            if place is None:
                break
            there += not moves
            trial.hold(f"{_OPEN}{len(places)}", Hold.of(place))
            places.append(place)
    return Opening(moves=tuple(moves), places=tuple(places), there=there)


def _made(planner: Planner, request: Request, *, trial: Trial, moves: list[Move], most: int) -> Decision | None:
    """One more place, by moves that are done, and added to ``moves``; who was moved stays where it is then."""
    plan = planner.opened(request, most=most - len(moves)) if len(moves) < most else None
    if plan is None:
        return None
    for move in plan.moves:
        trial.hold(move.uid, replace(move.hold, tenure=replace(move.hold.tenure, restartable=False)))
    moves += plan.moves
    return plan.decision
