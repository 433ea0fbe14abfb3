"""When and where something will fit, by when what runs will have ended.

Nobody's claims are removed for it: they are taken out of the arrays in thought, and put back. A request is looked for
host by host, from the one on that could have room first; a gang at the times at which anything ends, from the first on
at which it could have room by sums, for what fits once fits from then on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from bessemer.core.asking import Decision, Gang, Request
from bessemer.placement.arrays import Glance
from bessemer.placement.choose import place
from bessemer.placement.facts import Hold
from bessemer.placement.filters import fitting
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.queue.timeline import FAR, Timeline
from bessemer.placement.queue.values import Kept, Pending, Places, decisions
from bessemer.placement.sight import Sight
from bessemer.placement.thought import Thought
from bessemer.placement.vectors import Ints

EVER = FAR << 20
"""By when everything of a timeline ends."""

_TRIED = 256
"""Hosts that are tried for one request at most."""

_ASKED = 16
"""Times at which a gang is looked for at most: where that is not enough, it may fit sooner than is said."""


@contextmanager
def without(fleet: FleetArrays, holds: Mapping[str, Hold]) -> Iterator[None]:
    """The arrays as if these were gone."""
    with Thought(fleet) as thought:
        thought.leave_out(holds)
        yield


@contextmanager
def ended(fleet: FleetArrays, holds: Mapping[str, Hold], *, beside: Iterable[Kept]) -> Iterator[None]:
    """The arrays as if these had ended, where what is ``beside`` was kept for others."""
    with without(fleet, holds), relied(fleet, holds, beside=beside):
        yield


@contextmanager
def relied(fleet: FleetArrays, holds: Mapping[str, Hold], *, beside: Iterable[Kept]) -> Iterator[None]:
    """The arrays where these end, or are about to: of what they leave, that is kept for whoever of those ``beside``
    counts on it, and has not ended by then itself."""
    others = [one for one in beside if not one.gone.keys().isdisjoint(holds) and one.ghosts.keys().isdisjoint(holds)]
    with Thought(fleet):
        for one in others:
            left = {uid: hold for uid, hold in one.gone.items() if uid not in holds}
            for name, ghost in _ghosts(one.uid, one.places, gone=left).items():
                fleet.hold(name, ghost)
        yield


def earliest(
    timeline: Timeline, pending: Pending, *, places: Places, beside: Iterable[Kept] = (), by: int = EVER
) -> Kept | None:
    """Where ``pending`` will fit first, as the arrays are, ``beside`` what is kept for others. None where it will not
    ``by`` then, as far as the timeline knows."""
    if isinstance(pending.wants, Gang):
        return _together(timeline, pending, places=places, beside=list(beside), by=by)
    return _alone(timeline, pending, beside=list(beside), by=by)


def kept(uid: str, places: Sequence[Decision], *, start: int | None, gone: Mapping[str, Hold]) -> Kept:
    """What is kept for whoever goes to ``places`` at ``start``: of what the claims ``gone`` leave by then nothing, for
    nobody can have it before; of the rest what is needed of it. Whole devices are kept by name."""
    hosts = {one.host for one in places}
    there = {name: hold for name, hold in gone.items() if hold.host in hosts}
    ghosts = _ghosts(uid, places, gone=there)
    return Kept(uid=uid, start=start, places=tuple(places), ghosts=ghosts, gone=there)


def _ghosts(uid: str, places: Sequence[Decision], *, gone: Mapping[str, Hold]) -> Mapping[str, Hold]:
    left: dict[tuple[str, int], list[int]] = {}
    for hold in gone.values():
        for part in hold.allocations:
            sums = left.setdefault((hold.host, part.numa_node), [0, 0])
            sums[0] += part.taken_milli_cores
            sums[1] += part.plain_bytes
    ghosts = {}
    for number, place_ in enumerate(places):
        parts = []
        for part in place_.allocations:
            spare = left.get((place_.host, part.numa_node), [0, 0])
            cores, memory = min(spare[0], part.milli_cores), min(spare[1], part.plain_bytes)
            spare[0], spare[1] = spare[0] - cores, spare[1] - memory
            update = {"milli_cores": part.milli_cores - cores, "memory_bytes": part.memory_bytes - memory}
            parts.append(part.model_copy(update=update))
        ghosts[f"kept/{uid}/{number}"] = replace(Hold.of(place_), allocations=tuple(parts), shape=None, request=None)
    return ghosts


def _alone(timeline: Timeline, pending: Pending, *, beside: Sequence[Kept], by: int) -> Kept | None:
    request, fleet = pending.member, timeline.fleet
    later: list[tuple[int, str, int, int]] = []
    firsts = timeline.first(request, by=by)
    following = next(firsts, None)
    for _ in range(_TRIED):
        if following is not None and (not later or (following[0], fleet.names[following[1]]) <= later[0][:2]):
            at, row, gone = following
            following = next(firsts, None)
        elif later:
            at, _, gone, row = heapq.heappop(later)
        else:
            return None
        endings = timeline.at(row)
        leave = {uid: hold for _, uid, hold in endings[:gone]}
        with ended(fleet, leave, beside=beside):
            decision = _place_at(fleet, row, request=request)
        if decision is not None:
            return kept(pending.uid, [decision], start=at if at < FAR else None, gone=leave)
        if gone < len(endings) and endings[gone][0] <= by:
            heapq.heappush(later, (endings[gone][0], fleet.names[row], gone + 1, row))
    return None


def _place_at(fleet: FleetArrays, row: int, *, request: Request) -> Decision | None:
    sight = Sight.of(Glance(fleet, np.array([row])), request)
    fits = fitting(sight)
    return place(sight, fits) if fits.any() else None


def _together(timeline: Timeline, pending: Pending, *, places: Places, beside: Sequence[Kept], by: int) -> Kept | None:
    gang, times = pending.wants, timeline.times(by=by)
    assert isinstance(gang, Gang)

    def ask(at: int) -> Kept | None:
        rows = np.flatnonzero(timeline.members(gang, at=at))
        leave = timeline.gone(rows, at=at)
        with ended(timeline.fleet, leave, beside=beside):
            answer = places.place_gang(gang, Glance(timeline.fleet, rows))
        if answer is None:
            return None
        return kept(pending.uid, decisions(answer), start=at if at < FAR else None, gone=leave)

    low = _first_with_room(timeline, gang, times=times)
    found, high, step = None, len(times), 1
    # Mostly it fits at once, and else soon after: so times are tried ever further away, then between the last two.
    for _ in range(_ASKED):
        if low >= high:
            break
        middle = (low + high) // 2 if found is not None else min(low + step - 1, high - 1)
        answer = ask(int(times[middle]))
        if answer is None:
            low, step = middle + 1, 2 * step
        else:
            high, found = middle, answer
    return found


def _first_with_room(timeline: Timeline, gang: Gang, *, times: Ints) -> int:
    """The first of the times at which a gang could have room, by sums."""
    low, high = 0, len(times)
    if not high or not timeline.members(gang, at=int(times[-1])).any():
        return high
    while low < high:
        middle = (low + high) // 2
        if timeline.members(gang, at=int(times[middle])).any():
            high = middle
        else:
            low = middle + 1
    return low


def lasting(one: Kept, *, pending: Pending, now: int) -> Mapping[str, Hold]:
    """What is kept for somebody, as a claim that ends once it has run: others are looked for behind it."""
    asker = pending.asker
    if one.start is None or asker.ends is None:
        return one.ghosts
    ends = one.start + max(1, asker.ends - now)
    return {name: replace(ghost, tenure=replace(ghost.tenure, ends=ends)) for name, ghost in one.ghosts.items()}
