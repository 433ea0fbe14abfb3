"""Who is stopped for a gang: of one leaf all that it takes, where that suffices; else on the hosts on which least is
lost for a member.

First it is seen for how many members each host would have room, did all go that may, and hosts are taken on which
least is lost for a member, until they have room for all. Then, of the claims there, each stays beside which its host
still has room for its part of the gang, the dearest first: one of each host at a time, so that few questions are asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.asking import Gang
from bessemer.placement.arrays import Glance
from bessemer.placement.filters import fitting
from bessemer.placement.gangs.ground import Ground
from bessemer.placement.gangs.room import room as room_for
from bessemer.placement.moves.removal import without as removed
from bessemer.placement.policies import Floats
from bessemer.placement.queue.future import ended
from bessemer.placement.queue.stops import Claims, Eligible, Stop, eligible_for, made
from bessemer.placement.queue.values import Kept, Pending, Rules
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import NONE, Ints

LEAVES = 4
"""That are tried for one gang, from the one on where least would be lost."""

SPARE = (1, 4)
"""Of the whole fleet hosts are tried that have room for the gang, then for so many times as many."""


Unit = tuple[int, ...]
"""Slots of claims that are stopped together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """For one gang. ``beside`` is what is kept for others."""

    claims: Claims
    pending: Pending
    gang: Gang
    among: Eligible
    beside: Sequence[Kept]


def stop_for_gang(claims: Claims, pending: Pending, *, beside: Sequence[Kept], rules: Rules, now: int) -> Stop | None:
    """As `stops.stop`, for all of a gang."""
    gang = pending.wants
    assert isinstance(gang, Gang)
    among = eligible_for(claims, pending, rules=rules, now=now)
    if among is None:
        return None
    search = _Search(claims=claims, pending=pending, gang=gang, among=among, beside=beside)
    room = _room(search)
    if not room.any():
        return None
    best: Stop | None = None
    for rows in _leaves(search, room):
        found = _pruned(search, rows=rows)
        if found is not None and (best is None or (found.lost, len(found.uids)) < (best.lost, len(best.uids))):
            best = found
    if best is not None:
        return best
    return next(filter(None, (_pruned(search, rows=rows) for rows in _anywhere(search, room))), None)


def _room(search: _Search) -> Ints:
    """[hosts]: for how many members each would have room, did all go that may; none where that is too few."""
    claims, gang = search.claims, search.gang
    emptied = removed(
        Sight.of(claims.book.fleet, gang.member), claims.holdings, gone=search.among.slots | search.among.leaves
    )
    ground = Ground.of(emptied, gang)
    found = np.zeros(claims.book.fleet.size, dtype=np.int64)
    if ground.most(gang) >= gang.count:
        found[ground.rows] = ground.hosts
    return found


def _leaves(search: _Search, room: Ints) -> Iterator[Ints]:
    """Hosts of each leaf that has room for all, from where least would be lost with them."""
    fleet = search.claims.book.fleet
    leaf, each = fleet.leaf[: fleet.size], _each(search, room)
    known = (leaf != NONE) & (room > 0)
    sums = np.bincount(leaf[known], room[known])
    found = []
    for number in np.flatnonzero(sums >= search.gang.count).tolist():
        rows = np.flatnonzero(known & (leaf == number))
        some = _cheapest(search, rows, room=room, each=each, wanted=search.gang.count)
        found.append((float((each * room)[some].sum()), min(fleet.names[row] for row in rows), some))
    for _, _, rows in sorted(found, key=lambda one: one[:2])[:LEAVES]:
        yield rows


def _anywhere(search: _Search, room: Ints) -> Iterator[Ints]:
    """Hosts that have room for the gang together, from those on where least is lost for a member; then more of them."""
    rows, each = np.flatnonzero(room), _each(search, room)
    for times in SPARE:
        yield _cheapest(search, rows, room=room, each=each, wanted=times * search.gang.count)


def _cheapest(search: _Search, rows: Ints, *, room: Ints, each: Floats, wanted: int) -> Ints:
    """Of ``rows`` those on which least is lost for a member, until they have room for as many as are wanted."""
    rows = rows[np.lexsort((search.claims.holdings.ranks()[rows], each[rows]))]
    found: Ints = np.sort(rows[: int(np.searchsorted(np.cumsum(room[rows]), wanted)) + 1])
    return found


def _each(search: _Search, room: Ints) -> Floats:
    """[hosts]: what would be lost there for a member, with all that may go."""
    among, size = search.among, search.claims.book.fleet.size
    row = search.claims.holdings.claims["row"]
    lost = np.bincount(row[among.slots], among.together[among.slots], size)
    return lost / np.maximum(room, 1)


def _pruned(search: _Search, *, rows: Ints) -> Stop | None:
    """Of what may go on these hosts that which must, so that the gang fits there."""
    claims, among, fleet = search.claims, search.among, search.claims.book.fleet
    there = [slot for row in rows.tolist() for slot in claims.holdings.at(row)]
    units = _units(search, [slot for slot in there if among.slots[slot]])
    leaves = claims.running.held([slot for slot in there if among.leaves[slot]])
    going = {uid: hold for unit in units for uid, hold in claims.running.held(unit).items()}
    with ended(fleet, {**leaves, **going}, beside=search.beside):
        answer = claims.places.place_gang(search.gang, Glance(fleet, rows))
        if answer is None:
            return None
        needs = Counter(member.host for member in answer.members)
        wanted = np.array([needs[fleet.names[row]] for row in rows.tolist()], dtype=np.int64)
        gone = _least(search, units, rows=rows, wanted=wanted)
        # Where every host has room for its part of the gang, all of it fits there; what stays has its devices.
        answer = claims.places.place_gang(search.gang, Glance(fleet, rows[wanted > 0]))
    if answer is None:
        return None
    slots = [slot for unit in gone for slot in unit]
    return made(claims, search.pending, among=among, slots=slots, places=answer.members)


def _least(search: _Search, units: Sequence[Unit], *, rows: Ints, wanted: Ints) -> Sequence[Unit]:
    """Those of the units, which are gone, that must be, so that each host has room for as many members as are
    ``wanted`` of it [rows]. The others are put back: the dearest of each host first, of all hosts at a time."""
    row_of = search.claims.holdings.claims["row"]
    left = {unit: {int(row_of[slot]) for slot in unit} for unit in units}
    gone: list[Unit] = []
    while left:
        some, busy = [], set[int]()
        for unit, hosts in left.items():
            if busy.isdisjoint(hosts):
                some.append(unit)
            busy |= hosts
        for unit in some:
            _put_back(search, unit)
        short = set(rows[_counts(search, rows) < wanted].tolist())
        for unit in (unit for unit in some if not short.isdisjoint(left[unit])):
            gone.append(unit)
            _take_out(search, unit)
        left = {unit: hosts for unit, hosts in left.items() if unit not in some}
    return gone


def _put_back(search: _Search, unit: Unit) -> None:
    for uid, hold in search.claims.running.held(unit).items():
        search.claims.book.fleet.hold(uid, hold)


def _take_out(search: _Search, unit: Unit) -> None:
    for uid in search.claims.running.held(unit):
        search.claims.book.fleet.drop(uid)


def _counts(search: _Search, rows: Ints) -> Ints:
    """[rows]: for how many members each has room."""
    sight = Sight.of(Glance(search.claims.book.fleet, rows), search.gang.member)
    counts: Ints = np.where(fitting(sight), room_for(sight, most=search.gang.count), 0)
    return counts


def _units(search: _Search, slots: Sequence[int]) -> list[Unit]:
    """What goes together, the dearest first."""
    among, holdings = search.among, search.claims.holdings
    found: dict[int, Unit] = {}
    known: set[int] = set()
    for slot in slots:
        if slot not in known:
            unit = tuple(one for one in search.claims.running.together([slot]) if not among.leaves[one])
            known.update(unit)
            found[slot] = unit
    order = sorted(found, key=lambda slot: (-float(among.together[slot]), holdings.held(slot)[0]))
    return [found[slot] for slot in order]
