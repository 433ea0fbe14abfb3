"""Plans of few moves: claims that are started anew at other places, so that a request fits or hosts are empty.

A plan is found by carrying it out: claims are taken off the arrays, the request is put where they were, and each claim
is placed anew by whoever decides, on the arrays as they then are. Where one finds no room, others may make room for it
in turn (a chain). The steps are told in an order in which each is legal when those before it are done; a ring, in which
each waits for the next, is none. Then all is put back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bessemer.core.asking import Decision, Request
from bessemer.placement.facts import Hold
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.removal import Removal, removals
from bessemer.placement.moves.screen import anywhere
from bessemer.placement.moves.trial import Trial
from bessemer.placement.policies import Floats
from bessemer.placement.vectors import WHOLE

Place = Callable[[Request], Decision | None]
"""Where a request goes on the arrays as they are; a Board's `place`."""

Prices = Callable[[Holdings], Floats]
"""[slots]: what it costs to start each claim anew elsewhere; infinite where it must stay."""

TRIES = 8
"""Hosts that are tried for a request; of those that are to make room for a claim in turn, a quarter."""

PER_DEVICE = 0.1
"""Moves that a device moved counts as, beside the move itself."""

_HERE = "\0here/"
"""Holds the place that is opened on a host, under no uid that a claim could have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A claim is stopped where ``source`` says and started as ``target`` says. ``cost`` as it was priced."""

    uid: str
    source: Hold
    target: Decision
    cost: float

    @property
    def hold(self) -> Hold:
        """What it holds from then on."""
        return _held(self.target, self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``moves`` in the order in which they are carried out; ``decision`` is where the request goes after them, None
    where hosts are emptied. ``stuck`` are claims that must stay or find no place, so that a host is not emptied."""

    moves: tuple[Move, ...]
    decision: Decision | None = None
    stuck: tuple[str, ...] = ()

    @property
    def cost(self) -> float:
        return sum(move.cost for move in self.moves)

    @property
    def milli(self) -> int:
        """Thousandths of devices that are moved."""
        return sum(len(set(move.source.devices)) * move.source.device_milli for move in self.moves)


def by_devices(holdings: Holdings) -> Floats:
    """The usual prices: one for the move, a little for each device, for those that say what they were placed by and
    may be started anew."""
    claims = holdings.claims
    may = (claims["used"] > 0) & (claims["restartable"] > 0) & (claims["ask"] >= 0)
    prices: Floats = np.where(may, 1.0 + PER_DEVICE * claims["milli"] / WHOLE, np.inf)
    return prices


class Planner:
    """Plans over ``fleet``, by ``place``, which reads it. The arrays change while a plan is looked for and are as they
    were when it is told; who must not have that gives a fork (`fleet.forked`) and a board over it. ``holdings`` are
    the fleet's, for who has them already."""

    def __init__(
        self, fleet: FleetArrays, place: Place, *, prices: Prices = by_devices, holdings: Holdings | None = None
    ) -> None:
        self.fleet = fleet
        self.holdings = holdings or Holdings(fleet)
        self.place = place
        self._prices = prices
        self._version = -1
        self._finds: dict[Request, bool] = {}
        self._vain: set[tuple[Request, int, int]] = set()

    def opened(self, request: Request, *, most: int, depth: int = 1) -> Plan | None:
        """The cheapest plan that was found of at most ``most`` moves, after which the request fits; None where none
        was. With a ``depth`` of 2 and more, claims make room for claims."""
        self._look_anew()
        if (request, most, depth) in self._vain:
            return None
        with Trial(self.fleet) as trial:
            plan = self._opened(request, trial, most=most, depth=depth)
        if plan is None:
            self._vain.add((request, most, depth))
        return plan

    def emptied(self, hosts: Sequence[str]) -> Plan:
        """All that hosts hold goes to others; largest claims first, for they find room in the fewest places."""
        with Trial(self.fleet) as trial:
            return self._emptied(hosts, trial)

    def prices(self) -> Floats:
        """[slots]: what each claim costs to move, as they are now."""
        self.holdings.refresh()
        return self._prices(self.holdings)

    def _opened(self, request: Request, trial: Trial, *, most: int, depth: int) -> Plan | None:
        for removal, claims in self._tries(request, trial, depth=depth, hosts=TRIES):
            if len(claims) > most:
                continue
            moves = self._cleared(removal.decision, trial, claims=claims, most=most, depth=depth)
            trial.back_to(0)
            ordered = None if moves is None else in_order(moves, trial, then=removal.decision)
            trial.back_to(0)
            if ordered is not None:
                return Plan(moves=tuple(ordered), decision=removal.decision)
        return None

    def _tries(
        self, request: Request, trial: Trial, *, depth: int, hosts: int
    ) -> list[tuple[Removal, list[_Standing]]]:
        """What may be removed for a request, and what that is as long as nothing else changes."""
        costs = self._movable(trial, depth=depth)
        found = []
        for removal in removals(self.holdings, request, cost=costs, most=hosts):
            row = self.fleet.row(removal.host)
            slots = [] if row is None else self.holdings.at(row)
            held = [_Standing(*self.holdings.held(slot), float(costs[slot])) for slot in slots]
            found.append((removal, [standing for standing in held if standing.uid in removal.uids]))
        return found

    def _cleared(
        self, decision: Decision, trial: Trial, *, claims: Sequence[_Standing], most: int, depth: int
    ) -> list[Move] | None:
        """``decision`` is held, and each of the claims that were there goes to another host. None where one finds no
        place with ``most`` moves in all; what was tried is then left for `Trial.back_to`."""
        for claim in claims:
            trial.drop(claim.uid)
        trial.hold(f"{_HERE}{decision.host}", _held(decision, None))
        trial.plug(decision.host)
        moves: list[Move] = []
        for claim in sorted(claims, key=_Standing.rank):
            found = self._settled(claim, trial, most=most - len(moves), depth=depth)
            if found is None:
                return None
            moves += found
        return moves

    def _settled(self, claim: _Standing, trial: Trial, *, most: int, depth: int) -> list[Move] | None:
        """A claim that stands nowhere finds a place; with a ``depth`` beyond 1 others make room for it."""
        request = claim.hold.request
        if request is None or most < 1:
            return None
        target = self.place(request)
        if target is not None and target.host not in trial.plugged:
            trial.hold(claim.uid, _held(target, claim.hold))
            return [claim.to(target)]
        if target is not None or depth < 2 or most < 2:
            return None
        for removal, others in self._tries(request, trial, depth=depth - 1, hosts=TRIES // 4):
            mark = trial.mark()
            moves = self._cleared(removal.decision, trial, claims=others, most=most - 1, depth=depth - 1)
            if moves is not None:
                return [*moves, claim.to(removal.decision)]
            trial.back_to(mark)
        return None

    def _emptied(self, hosts: Sequence[str], trial: Trial) -> Plan:
        self.holdings.refresh()
        costs = self._prices(self.holdings)
        rows = [row for row in map(self.fleet.row, hosts) if row is not None]
        slots = [slot for row in rows for slot in self.holdings.at(row)]
        claims = [_Standing(*self.holdings.held(slot), float(costs[slot])) for slot in slots]
        for claim in claims:
            if np.isfinite(claim.price):
                trial.drop(claim.uid)
        for row in rows:
            trial.plug(self.fleet.names[row])
        moves: list[Move] = []
        stuck: list[str] = []
        for claim in sorted(claims, key=_Standing.rank):
            found = self._settled(claim, trial, most=1, depth=1) if np.isfinite(claim.price) else None
            moves += found or ()
            stuck += [claim.uid] if found is None else []
        return Plan(moves=tuple(moves), stuck=tuple(stuck))

    def _movable(self, trial: Trial, *, depth: int) -> Floats:
        """[slots]: prices, infinite for what stands on a host that is being opened, and at the end of a chain for what
        had no place elsewhere."""
        self.holdings.refresh()
        claims, asks = self.holdings.claims, self.holdings.asks.all
        rows = [row for row in map(self.fleet.row, trial.plugged) if row is not None]
        prices = np.where(np.isin(claims["row"], rows), np.inf, self._prices(self.holdings))
        if depth < 2 and asks:
            # The last is for those that have no request, whose number is -1.
            there = np.array([*(self._finds.get(request, True) for request in asks), True], dtype=np.bool_)
            prices = np.where(there[claims["ask"]], prices, np.inf)
        return prices

    def _look_anew(self) -> None:
        """Where the fleet changed: who would find a place at all, of those that may be moved. Most do not in a full
        one, and what they stand on need not be tried."""
        if self._version == self.fleet.version:
            return
        self._version = self.fleet.version
        self._vain.clear()
        self.holdings.refresh()
        asks = self.holdings.claims["ask"][np.isfinite(self._prices(self.holdings))]
        requests = [self.holdings.asks.all[ask] for ask in np.unique(asks[asks >= 0]).tolist()]
        self._finds = dict(zip(requests, anywhere(self.fleet, requests).tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class _Standing:
    """A claim where it stands, and what moving it costs."""

    uid: str
    hold: Hold
    price: float

    def rank(self) -> tuple[int, int, int, str]:
        """The largest first: it finds room in the fewest places."""
        cores = sum(part.milli_cores for part in self.hold.allocations)
        memory = sum(part.memory_bytes for part in self.hold.allocations)
        return (-len(self.hold.devices) * self.hold.device_milli, -cores, -memory, self.uid)

    def to(self, target: Decision) -> Move:
        return Move(uid=self.uid, source=self.hold, target=target, cost=self.price)


def _held(decision: Decision, before: Hold | None) -> Hold:
    """What a claim holds at its new place; terms and wishes stay."""
    hold = Hold.of(decision)
    if before is None:
        return hold
    return replace(hold, shape=before.shape, request=before.request, tenure=before.tenure)


def in_order(moves: Sequence[Move], trial: Trial, *, then: Decision | None) -> list[Move] | None:
    """The moves in an order in which each is legal: the claim is stopped, and its new place is free. None where there
    is none, or ``then`` would not be free after them. ``trial`` stands where they begin, and after them."""
    waiting, ordered = list(moves), list[Move]()
    while waiting:
        first = next((move for move in waiting if _carried_out(move, trial)), None)
        if first is None:
            return None
        waiting.remove(first)
        ordered.append(first)
    return ordered if then is None or trial.free(then) else None


def _carried_out(move: Move, trial: Trial) -> bool:
    """Whether that could be done; then it is."""
    mark = trial.mark()
    trial.drop(move.uid)
    if not trial.free(move.target):
        trial.back_to(mark)
        return False
    trial.hold(move.uid, move.hold)
    return True
