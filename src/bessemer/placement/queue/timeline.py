"""`Timeline`: what of a fleet ends when, and by when a host could have room, by what it lacks in sum."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bessemer.core.asking import Gang, Request
from bessemer.placement.facts import Hold
from bessemer.placement.filters import fitting
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.queue.book import Book, Ending, span
from bessemer.placement.queue.values import Kept
from bessemer.placement.room import Spare
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import NONE, WHOLE, Bools, Ints

FAR = 1 << 40
"""Seconds: after whatever ends at a time that somebody knows."""

_ANY = 1 << 31
"""Members that have room, where nothing is asked for."""


class Timeline:
    """Of all rows at once, as the book says. What should have ended ``stuck`` seconds ago ends nobody knows when. With
    ``drain`` also what ends so, and the rest of what runs, as little of it as possible, and nobody knows how long that
    takes. `add` is for what is kept for somebody who will have ended."""

    def __init__(self, book: Book, *, now: int, stuck: int, drain: bool = False) -> None:
        self.fleet = book.fleet
        self._now = now
        self._ending: dict[int, Sequence[Ending]] = {}
        self._rows: list[int] = []
        spans = []
        for row in book.rows_by_name():
            some, of = book.ending.get(row, ()), book.spans.get(row)
            if drain or (some and some[0][0] <= now - stuck):
                some = _draining(book, row, after=now - stuck) if drain else _known(some, after=now - stuck)
                of = span(some) if some else None
            if of is not None:
                self._rows.append(row)
                self._ending[row] = some
                spans.append(of)
        sizes = [of.shape[1] for of in spans]
        self._row = np.repeat(np.array(self._rows, dtype=np.int64), sizes)
        self._starts = np.cumsum([0, *sizes])[:-1]
        self._spans = np.concatenate(spans, axis=1) if spans else np.zeros((4, 0), dtype=np.int64)
        self._spans[0] = np.maximum(self._spans[0], now + 1)
        self._nth = np.arange(1, len(self._row) + 1) - np.repeat(self._starts, sizes)
        self._more: dict[int, list[Ending]] = {}
        self._relied: Ints = np.zeros((4, book.fleet.size), dtype=np.int64)
        self._possible: dict[Request, Bools] = {}
        self._times: Ints | None = None
        self._told = 0
        self._known, self._sums = (-1, -1), np.zeros((3, 0), dtype=np.int64)
        self._of, self._had = self.fleet.version, _free(self.fleet)

    def add(self, some: Mapping[str, Hold]) -> None:
        """These end, too."""
        self._told += 1
        for uid, hold in some.items():
            row = self.fleet.row(hold.host)
            if row is not None and hold.tenure.ends is not None:
                self._more.setdefault(row, []).append((hold.tenure.ends, uid, hold))

    def rely(self, one: Kept) -> None:
        """From its start on somebody has what this counts on."""
        self._told += 1
        for row, amounts in relied_by_row(one, self.fleet).items():
            self._relied[0, row] = max(self._relied[0, row], one.start or 0)
            self._relied[1:, row] += amounts

    def at(self, row: int) -> Sequence[Ending]:
        """Soonest first. What should have ended by now will in a second."""
        some = [*self._ending.get(row, ()), *self._more.get(row, ())]
        return sorted((max(ends, self._now + 1), uid, hold) for ends, uid, hold in some)

    def times(self, *, by: int) -> Ints:
        """At which anything ends, in order, up to ``by``; some come twice."""
        more = {max(ends, self._now + 1) for some in self._more.values() for ends, _, _ in some}
        if self._times is None:
            self._times = np.sort(self._spans[0])
        some = self._times[: np.searchsorted(self._times, by, side="right")]
        return np.sort(np.concatenate([some, np.array([at for at in more if at <= by], dtype=np.int64)]))

    def first(self, request: Request, *, by: int) -> Iterator[tuple[int, int, int]]:
        """``(time, row, claims)``: when a row could have room first by what it lacks in sum, and how many of its claims
        will have ended by then; up to ``by``, soonest first, and of equals by name."""
        fleet, possible = self.fleet, self._can(request)
        some = np.flatnonzero(self._spans[0] <= by)
        rows = self._row[some]
        enough, late = possible[rows], self._spans[0, some] >= self._relied[0, rows]
        for want, amounts, left, relied in zip(
            _wants(request), self._free(), self._spans[1:], self._relied[1:], strict=True
        ):
            enough &= left[some] - np.where(late, relied[rows], 0) >= (want - amounts)[rows]
        if self._more:
            enough &= ~np.isin(rows, list(self._more))
        found = some[enough]
        _, firsts = np.unique(self._row[found], return_index=True)
        found = np.sort(found[firsts])
        times = self._spans[0, found]
        order = np.argsort(times, kind="stable")
        plain = ((int(times[n]), int(self._row[found[n]]), int(self._nth[found[n]])) for n in order)
        own = sorted(self._behind(request, by=by), key=lambda one: (one[0], fleet.names[one[1]]))
        return heapq.merge(plain, own, key=lambda one: (one[0], fleet.names[one[1]]))

    def members(self, gang: Gang, *, at: int) -> Ints:
        """[hosts]: for how many members of a gang each could have room by then, by sums: where there is not room for
        all together as the gang says, they do not fit."""
        fleet, request = self.fleet, gang.member
        left = self._left(at)
        counts = np.full(fleet.size, min(gang.count, gang.per_host or gang.count), dtype=np.int64)
        for want, amounts, more in zip(_wants(request), self._free(), left, strict=True):
            counts = np.minimum(counts, np.maximum(amounts + more, 0) // want if want else _ANY)
        counts[~self._can(request)] = 0
        if gang.policy == "preferred":
            return counts if counts.sum() >= gang.count else np.zeros_like(counts)
        above = _above(fleet, gang)
        sums = np.bincount(above, counts, int(above.max(initial=0)) + 1)
        return np.where(sums[above] >= gang.count, counts, 0)

    def _left(self, at: int) -> Ints:
        """[3, hosts]: what has ended by then leaves, beside what others count on. Asked for one time by many gangs."""
        if self._known == (at, self._told):
            return self._sums
        gone = np.bincount(self._row[self._spans[0] <= at], minlength=self.fleet.size)
        left = np.zeros((3, self.fleet.size), dtype=np.int64)
        rows = np.array(self._rows, dtype=np.int64)
        some = gone[rows] > 0
        left[:, rows[some]] = self._spans[1:, self._starts[some] + gone[rows[some]] - 1]
        for row, endings in self._more.items():
            for ends, _, hold in endings:
                left[:, row] += span([(ends, "", hold)])[1:, 0] if ends <= at else 0
        left -= np.where(at >= self._relied[0], self._relied[1:], 0)
        self._known, self._sums = (at, self._told), left
        return left

    def soon(self, *, by: int) -> Mapping[str, Hold]:
        """What will have ended by then, anywhere."""
        return self.gone(np.unique(self._row[self._spans[0] <= by]), at=by)

    def gone(self, rows: Ints, *, at: int) -> Mapping[str, Hold]:
        """What will have ended on these rows."""
        return {uid: hold for row in rows.tolist() for ends, uid, hold in self.at(row) if ends <= at}

    def _free(self) -> tuple[Ints, Ints, Ints]:
        """[hosts] each, as `_wants`."""
        if self._of != self.fleet.version:
            self._of, self._had = self.fleet.version, _free(self.fleet)
        return self._had

    def _can(self, request: Request) -> Bools:
        if request not in self._possible:
            self._possible[request] = _possible(self.fleet, request)
        return self._possible[request]

    def _behind(self, request: Request, *, by: int) -> Iterator[tuple[int, int, int]]:
        """Of the rows to which something was added."""
        wants, free = _wants(request), self._free()
        for row in self._more:
            endings = [ending for ending in self.at(row) if ending[0] <= by]
            if not endings or not self._can(request)[row]:
                continue
            lacks = [want - int(amounts[row]) for want, amounts in zip(wants, free, strict=True)]
            ends, left = (of := span(endings))[0], of[1:]
            left -= np.where(ends >= self._relied[0, row], self._relied[1:, [row]], 0)
            found = np.flatnonzero((left >= np.array(lacks)[:, None]).all(axis=0))
            if len(found):
                yield endings[int(found[0])][0], row, int(found[0]) + 1


def _wants(request: Request) -> tuple[int, int, int]:
    """Cores, ordinary memory, and thousandths of devices that must be free whole or in shares."""
    memory = 0 if request.page_bytes else request.memory_bytes
    milli = 0 if request.device_profile or request.device_bytes else request.device_count * request.device_milli
    return request.milli_cores, memory, milli


def _free(fleet: FleetArrays) -> tuple[Ints, Ints, Ints]:
    """[hosts] each, as `_wants`. What is below zero is kept for somebody, or lost: less than nothing of no other."""
    cores, memory, milli = (
        np.maximum(amounts[: fleet.size], 0).sum(axis=1)
        for amounts in (fleet.cores_free, fleet.memory_free, fleet.device_milli)
    )
    return cores, memory, milli


def _possible(fleet: FleetArrays, request: Request) -> Bools:
    """[hosts]: where it would fit, were they empty."""
    n = fleet.size
    emptied = replace(
        Sight.of(fleet, request),
        cores_free=fleet.cores[:n],
        memory_free=fleet.memory[:n],
        device_milli=np.where(fleet.device_model[:n] != NONE, WHOLE, 0),
        drained=True,
        changed_spare=Spare.emptied(fleet, n),
    )
    return fitting(emptied)


def _above(fleet: FleetArrays, gang: Gang) -> Ints:
    """[hosts]: the switch under which all members lie. Of what is not known each is its own, and of two of one name one
    is made: that is more room than there is, and never less."""
    own = len(fleet.switches.all) + np.arange(fleet.size)
    if gang.level == "host":
        return own
    if gang.level == "site":
        return np.zeros(fleet.size, dtype=np.int64)
    switch = (fleet.leaf if gang.level == "leaf" else fleet.spine)[: fleet.size]
    return np.where(switch != NONE, switch, own)


def relied_by_row(one: Kept, fleet: FleetArrays) -> Mapping[int, Ints]:
    """By row: cores, memory and thousandths of devices that it has of what the claims leave on which it counts."""
    found: dict[int, Ints] = {}
    for place, ghost in zip(one.places, one.ghosts.values(), strict=True):
        row = fleet.row(place.host)
        if row is None:
            continue
        held = {device for hold in one.gone.values() if hold.host == place.host for device in hold.devices}
        cores = sum(part.milli_cores for part in place.allocations) - _cores(ghost)
        memory = sum(part.memory_bytes for part in (*place.allocations,)) - sum(
            p.memory_bytes for p in ghost.allocations
        )
        milli = place.device_milli * len(held & set(place.devices))
        found[row] = found.get(row, np.zeros(3, dtype=np.int64)) + np.array([cores, memory, milli])
    return found


def _known(endings: Sequence[Ending], *, after: int) -> Sequence[Ending]:
    return [ending for ending in endings if ending[0] > after]


def _draining(book: Book, row: int, *, after: int) -> Sequence[Ending]:
    """What ends, then the rest, the largest first."""
    held = book.fleet.held.at(book.fleet.names[row]) if book.fleet.present[row] else {}
    real = {uid: hold for uid, hold in held.items() if not uid.startswith("kept/")}
    ends = {uid: hold.tenure.ends for uid, hold in real.items() if hold.tenure.ends is not None}
    known = sorted((at, uid, real[uid]) for uid, at in ends.items() if at > after)
    rest = [(uid, hold) for uid, hold in real.items() if ends.get(uid, after) <= after]
    rest.sort(key=lambda one: (-len(one[1].devices) * one[1].device_milli, _cores(one[1]), one[0]))
    return [*known, *((FAR * (n + 1), uid, hold) for n, (uid, hold) in enumerate(rest))]


def _cores(hold: Hold) -> int:
    return sum(part.milli_cores for part in hold.allocations)
