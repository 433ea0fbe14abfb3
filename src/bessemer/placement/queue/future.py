"""When and where something will fit, by when what runs will have ended.

Nobody's claims are removed for it: they are taken out of the arrays in thought, and put back. A request is looked for
host by host, from the one on that could have room first; a gang over the whole fleet, by bisection over the times at
which anything ends, for what fits once fits from then on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from bessemer.core.values import Decision, Gang, GangDecision, Request
from bessemer.placement.choose import place
from bessemer.placement.facts import Hold
from bessemer.placement.filters import sift
from bessemer.placement.fleet import FleetArrays, holds_of
from bessemer.placement.queue.book import Book
from bessemer.placement.queue.values import Kept, Pending, Places, decisions
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import NONE, WHOLE, Ints

FAR = 1 << 40
"""Seconds: after whatever ends at a time that somebody knows."""

_TRIED = 256
"""Hosts and times that are tried for one request at most."""

Ending = tuple[int, str, Hold]
"""When it ends, whose it is, what it holds."""


@contextmanager
def without(fleet: FleetArrays, holds: Mapping[str, Hold]) -> Iterator[None]:
    """The arrays as if these were gone."""
    for uid in holds:
        fleet.drop(uid)
    try:
        yield
    finally:
        for uid, hold in holds.items():
            fleet.hold(uid, hold)


def earliest(book: Book, pending: Pending, *, places: Places, now: int, drain: bool = False) -> Kept | None:
    """Where ``pending`` will fit first, as the arrays are. None where it will not by what is known to end; with
    ``drain`` also the rest is waited for, as little of it as possible, and nobody knows how long."""
    endings = _endings(book, now=now, drain=drain)
    if isinstance(pending.wants, Gang):
        return _together(book.fleet, pending, endings=endings, places=places, now=now)
    return _alone(book.fleet, pending, endings=endings, now=now)


def kept(uid: str, places: Sequence[Decision], *, start: int | None, gone: Mapping[str, Hold]) -> Kept:
    """What is kept for whoever goes to ``places`` at ``start``: of what the claims ``gone`` leave by then nothing, for
    nobody can have it before; of the rest what is needed of it. Whole devices are kept by name."""
    left: dict[tuple[str, int], list[int]] = {}
    for hold in gone.values():
        for part in hold.allocations:
            sums = left.setdefault((hold.host, part.numa_node), [0, 0])
            sums[0] += part.milli_cores
            sums[1] += part.memory_bytes
    ghosts = {}
    for number, place_ in enumerate(places):
        parts = []
        for part in place_.allocations:
            spare = left.get((place_.host, part.numa_node), [0, 0])
            cores, memory = min(spare[0], part.milli_cores), min(spare[1], part.memory_bytes)
            spare[0], spare[1] = spare[0] - cores, spare[1] - memory
            update = {"milli_cores": part.milli_cores - cores, "memory_bytes": part.memory_bytes - memory}
            parts.append(part.model_copy(update=update))
        ghosts[f"kept/{uid}/{number}"] = Hold(place_.host, place_.devices, tuple(parts), place_.device_milli)
    return Kept(uid=uid, start=start, places=tuple(places), ghosts=ghosts)


def _endings(book: Book, *, now: int, drain: bool) -> Mapping[int, Sequence[Ending]]:
    """By row, soonest first. What should have ended by now will in a second."""
    if not drain:
        return {row: [(max(at, now + 1), uid, hold) for at, uid, hold in some] for row, some in book.ending.items()}
    found: dict[int, Sequence[Ending]] = {}
    for row in range(book.fleet.size):
        held = holds_of(book.fleet, book.fleet.names[row]) if book.fleet.present[row] else {}
        real = {uid: hold for uid, hold in held.items() if not uid.startswith("kept/")}
        known = sorted(
            (max(hold.tenure.ends, now + 1), uid, hold) for uid, hold in real.items() if hold.tenure.ends is not None
        )
        rest = [(uid, hold) for uid, hold in real.items() if hold.tenure.ends is None]
        rest.sort(key=lambda one: (-len(one[1].devices) * one[1].milli, _cores(one[1]), one[0]))
        found[row] = [*known, *((FAR * (n + 1), uid, hold) for n, (uid, hold) in enumerate(rest))]
    return {row: some for row, some in found.items() if some}


def _alone(fleet: FleetArrays, pending: Pending, *, endings: Mapping[int, Sequence[Ending]], now: int) -> Kept | None:
    request = pending.member
    heap: list[tuple[int, str, int, int]] = []
    for row in _possible(fleet, np.array(sorted(endings), dtype=np.int64), request=request):
        gone = _enough(fleet, row, request=request, endings=endings[row])
        if gone:
            heapq.heappush(heap, (endings[row][gone - 1][0], fleet.names[row], gone, row))
    for _ in range(_TRIED):
        if not heap:
            return None
        at, name, gone, row = heapq.heappop(heap)
        leave = {uid: hold for _, uid, hold in endings[row][:gone]}
        with without(fleet, leave):
            decision = _place_at(fleet, row, request=request)
        if decision is not None:
            return kept(pending.uid, [decision], start=at if at < FAR else None, gone=leave)
        if gone < len(endings[row]):
            heapq.heappush(heap, (endings[row][gone][0], name, gone + 1, row))
    return None


def _possible(fleet: FleetArrays, rows: Ints, *, request: Request) -> Sequence[int]:
    """Of some rows those where it would fit, were they empty."""
    view = fleet.view(rows)
    view.cores_free, view.memory_free = view.cores.copy(), view.memory.copy()
    view.device_milli = np.where(view.device_model != NONE, WHOLE, 0)
    fits, _ = sift(Sight.of(view, request))
    found: list[int] = rows[fits].tolist()
    return found


def _enough(fleet: FleetArrays, row: int, *, request: Request, endings: Sequence[Ending]) -> int:
    """How many of a row's claims must end at least, by what it lacks in sum; 0 where all of them are too few."""
    cores = request.milli_cores - _free(fleet.cores_free[row])
    memory = request.memory_bytes - _free(fleet.memory_free[row])
    milli = request.device_count * request.device_milli - _free(fleet.device_milli[row])
    for number, (_, _, hold) in enumerate(endings, start=1):
        cores -= _cores(hold)
        memory -= sum(part.memory_bytes for part in hold.allocations)
        milli -= hold.milli * len(set(hold.devices))
        if cores <= 0 and memory <= 0 and milli <= 0:
            return number
    return 0


def _free(amounts: Ints) -> int:
    """What is below zero is kept for somebody, or lost: it is less than nothing of no other."""
    return int(np.maximum(amounts, 0).sum())


def _place_at(fleet: FleetArrays, row: int, *, request: Request) -> Decision | None:
    sight = Sight.of(fleet.view(np.array([row])), request)
    fits, _ = sift(sight)
    return place(sight, fits) if fits.any() else None


def _together(
    fleet: FleetArrays, pending: Pending, *, endings: Mapping[int, Sequence[Ending]], places: Places, now: int
) -> Kept | None:
    assert isinstance(pending.wants, Gang)
    times = sorted({at for some in endings.values() for at, _, _ in some})
    low, high, found = 0, len(times), None
    while low < high:
        middle = (low + high) // 2
        leave = {uid: hold for some in endings.values() for at, uid, hold in some if at <= times[middle]}
        with without(fleet, leave):
            answer = places.decide_gang(pending.wants)
        if isinstance(answer, GangDecision):
            start = times[middle] if times[middle] < FAR else None
            high, found = middle, kept(pending.uid, decisions(answer), start=start, gone=leave)
        else:
            low = middle + 1
    return found


def _cores(hold: Hold) -> int:
    return sum(part.milli_cores for part in hold.allocations)


def lasting(uid: str, one: Kept, *, pending: Pending, now: int) -> Mapping[str, Hold]:
    """What is kept for somebody, as a claim that ends once it has run: others are looked for behind it."""
    asker = pending.asker
    if one.start is None or asker.ends is None:
        return one.ghosts
    ends = one.start + max(1, asker.ends - now)
    return {name: replace(ghost, tenure=replace(ghost.tenure, ends=ends)) for name, ghost in one.ghosts.items()}
