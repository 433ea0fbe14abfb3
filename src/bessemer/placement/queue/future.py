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

from bessemer.core.asking import Decision, Gang, GangDecision, Request
from bessemer.placement.choose import place
from bessemer.placement.facts import Hold
from bessemer.placement.filters import sift
from bessemer.placement.fleet import FleetArrays, holds_of
from bessemer.placement.queue.book import Book, span
from bessemer.placement.queue.values import Kept, Pending, Places, decisions
from bessemer.placement.sight import Sight
from bessemer.placement.thought import Thought
from bessemer.placement.vectors import NONE, WHOLE, Bools, Ints

FAR = 1 << 40
"""Seconds: after whatever ends at a time that somebody knows."""

_TRIED = 256
"""Hosts and times that are tried for one request at most."""

Ending = tuple[int, str, Hold]
"""When it ends, whose it is, what it holds."""


@contextmanager
def without(fleet: FleetArrays, holds: Mapping[str, Hold]) -> Iterator[None]:
    """The arrays as if these were gone."""
    with Thought(fleet) as thought:
        thought.leave_out(holds)
        yield


class Timeline:
    """What ends when, of all rows at once, as the book says. With ``drain`` also the rest of what runs, as little of it
    as possible, and nobody knows how long that takes. `add` is for what is kept for somebody who will have ended."""

    def __init__(self, book: Book, *, now: int, drain: bool = False) -> None:
        self.fleet = book.fleet
        self._now = now
        self._ending: Mapping[int, Sequence[Ending]] = _draining(book, now=now) if drain else book.ending
        spans = {row: span(some) for row, some in self._ending.items()} if drain else book.spans
        self._rows = sorted(spans, key=lambda row: book.fleet.names[row])
        sizes = [spans[row].shape[1] for row in self._rows]
        self._row = np.repeat(np.array(self._rows, dtype=np.int64), sizes)
        self._nth = np.concatenate([np.arange(1, size + 1) for size in sizes]) if sizes else self._row
        self._spans = np.concatenate([spans[row] for row in self._rows], axis=1) if sizes else np.zeros((4, 0), int)
        self._more: dict[int, list[Ending]] = {}
        self._possible: dict[Request, Bools] = {}

    def add(self, ghosts: Mapping[str, Hold]) -> None:
        """These end, too."""
        for uid, hold in ghosts.items():
            row = self.fleet.row(hold.host)
            if row is not None and hold.tenure.ends is not None:
                self._more.setdefault(row, []).append((hold.tenure.ends, uid, hold))

    def at(self, row: int) -> Sequence[Ending]:
        """Soonest first. What should have ended by now will in a second."""
        some = [*self._ending.get(row, ()), *self._more.get(row, ())]
        return sorted((max(ends, self._now + 1), uid, hold) for ends, uid, hold in some)

    def all(self) -> Mapping[int, Sequence[Ending]]:
        """Of every row."""
        return {row: self.at(row) for row in {*self._rows, *self._more}}

    def first(self, request: Request) -> Iterator[tuple[int, int, int]]:
        """``(time, row, claims)``: when a row could have room first by what it lacks in sum, and how many of its claims
        will have ended by then; soonest first, and of equals by name."""
        fleet = self.fleet
        if request not in self._possible:
            self._possible[request] = _possible(fleet, request)
        wants = (request.milli_cores, request.memory_bytes, request.device_count * request.device_milli)
        free = (fleet.cores_free, fleet.memory_free, fleet.device_milli)
        enough = self._possible[request][self._row]
        for want, amounts, left in zip(wants, free, self._spans[1:], strict=True):
            # What is below zero is kept for somebody, or lost: it is less than nothing of no other.
            enough &= left >= want - np.maximum(amounts[: fleet.size], 0).sum(axis=1)[self._row]
        if self._more:
            enough &= ~np.isin(self._row, list(self._more))
        found = np.flatnonzero(enough)
        _, firsts = np.unique(self._row[found], return_index=True)
        found = np.sort(found[firsts])
        times = np.maximum(self._spans[0, found], self._now + 1)
        order = np.argsort(times, kind="stable")
        plain = ((int(times[n]), int(self._row[found[n]]), int(self._nth[found[n]])) for n in order)
        own = sorted(self._behind(request), key=lambda one: (one[0], fleet.names[one[1]]))
        return heapq.merge(plain, own, key=lambda one: (one[0], fleet.names[one[1]]))

    def _behind(self, request: Request) -> Iterator[tuple[int, int, int]]:
        """Of the rows to which something was added."""
        for row in self._more:
            endings = self.at(row)
            gone = _enough(self.fleet, row, request=request, endings=endings)
            if gone and self._possible[request][row]:
                yield endings[gone - 1][0], row, gone


def earliest(timeline: Timeline, pending: Pending, *, places: Places) -> Kept | None:
    """Where ``pending`` will fit first, as the arrays are. None where it will not by what the timeline has."""
    if isinstance(pending.wants, Gang):
        return _together(timeline.fleet, pending, endings=timeline.all(), places=places)
    return _alone(timeline, pending)


def kept(uid: str, places: Sequence[Decision], *, start: int | None, gone: Mapping[str, Hold]) -> Kept:
    """What is kept for whoever goes to ``places`` at ``start``: of what the claims ``gone`` leave by then nothing, for
    nobody can have it before; of the rest what is needed of it. Whole devices are kept by name."""
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
    return Kept(uid=uid, start=start, places=tuple(places), ghosts=ghosts)


def _draining(book: Book, *, now: int) -> Mapping[int, Sequence[Ending]]:
    """By row: what ends, then the rest, the largest first."""
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


def _alone(timeline: Timeline, pending: Pending) -> Kept | None:
    request, fleet = pending.member, timeline.fleet
    later: list[tuple[int, str, int, int]] = []
    firsts = timeline.first(request)
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
        with without(fleet, leave):
            decision = _place_at(fleet, row, request=request)
        if decision is not None:
            return kept(pending.uid, [decision], start=at if at < FAR else None, gone=leave)
        if gone < len(endings):
            heapq.heappush(later, (endings[gone][0], fleet.names[row], gone + 1, row))
    return None


def _possible(fleet: FleetArrays, request: Request) -> Bools:
    """[hosts]: where it would fit, were they empty."""
    view = fleet.view(np.arange(fleet.size))
    view.cores_free, view.memory_free = view.cores, view.memory
    view.device_milli = np.where(view.device_model != NONE, WHOLE, 0)
    return sift(Sight.of(view, request))[0]


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
    return int(np.maximum(amounts, 0).sum())


def _place_at(fleet: FleetArrays, row: int, *, request: Request) -> Decision | None:
    sight = Sight.of(fleet.view(np.array([row])), request)
    fits, _ = sift(sight)
    return place(sight, fits) if fits.any() else None


def _together(
    fleet: FleetArrays, pending: Pending, *, endings: Mapping[int, Sequence[Ending]], places: Places
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


def lasting(one: Kept, *, pending: Pending, now: int) -> Mapping[str, Hold]:
    """What is kept for somebody, as a claim that ends once it has run: others are looked for behind it."""
    asker = pending.asker
    if one.start is None or asker.ends is None:
        return one.ghosts
    ends = one.start + max(1, asker.ends - now)
    return {name: replace(ghost, tenure=replace(ghost.tenure, ends=ends)) for name, ghost in one.ghosts.items()}
