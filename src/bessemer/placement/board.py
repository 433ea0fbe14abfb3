"""`Board`: what putting each shape on each host would cost, kept from one decision to the next.

A placement changes one host, so of each shape one figure. Those of a shape are brought up to date when it is asked for,
for the hosts that changed since, in one look at those alone; who may land where is apart from that, and is looked at
anew when that changed. What is decided is what a board made anew would decide.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TypeVar

import numpy as np

from bessemer.core.values import Decision, Refusal, Request
from bessemer.placement.choose import place_at
from bessemer.placement.decide import refused
from bessemer.placement.filters import FACTS, HARDWARE, fitting, sift
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.policies import Floats, Policy, Rationing
from bessemer.placement.shape import Shape
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Bools, Ints

SHAPES_MAX = 1024
"""Shapes whose figures are kept: what is asked for comes in few; at 10,000 hosts each takes 170 kB."""

Kept = TypeVar("Kept")
Named = TypeVar("Named", bound=Hashable)


@dataclass(slots=True, eq=False)
class _Figures:
    """Of one shape, [hosts]. ``value`` is infinite where it does not fit; ``apart``: it would span NUMA nodes, which it
    would rather not."""

    position: int
    version: int
    value: Floats
    milli: Ints
    apart: Bools

    @classmethod
    def room(cls, rows: int) -> _Figures:
        return cls(-1, -1, np.full(rows, np.inf), np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.bool_))


@dataclass(slots=True, eq=False)
class _Allowed:
    """To whom hosts are open, [hosts], as the facts were then."""

    facts: int
    hosts: Bools


@dataclass(slots=True, eq=False)
class _Order:
    """[hosts]: each host's place among equals, fixed by its name and nothing that a host is."""

    facts: int = -1
    ranks: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class Board:
    """Decides over a fleet by a policy."""

    def __init__(self, fleet: FleetArrays, policy: Policy) -> None:
        self._fleet = fleet
        self._policy = policy
        self._figures: OrderedDict[Shape, _Figures] = OrderedDict()
        self._allowed: OrderedDict[Request, _Allowed] = OrderedDict()
        self._order = _Order()

    def decide(self, request: Request) -> Decision | Refusal:
        """Where the request goes now, and why not elsewhere; or why nowhere, and what would help."""
        placed = self.place(request)
        sight = Sight.of(self._fleet, request)
        _, reasons = sift(sight)
        return refused(sight, reasons) if placed is None else replace(placed, reasons=reasons)

    def place(self, request: Request) -> Decision | None:
        """Where the request goes now, without the reasons against the others."""
        shape = Shape.of(request)
        figures = self._current(request, shape)
        n = self._fleet.size
        value = np.where(self._open_to(request), figures.value[:n], np.inf) + self._surcharges(shape)
        fits = np.isfinite(value)
        if not fits.any():
            return None
        near = fits & ~figures.apart[:n]
        close = bool(near.any())
        least = float(value[near if close else fits].min())
        rows = np.flatnonzero((near if close else fits) & (value == least))
        row = int(rows[np.argmin(self._ranks()[rows])])
        score = {"spansNumaNodes": float(not close)} if request.numa == "preferred" else {}
        sight = Sight.of(self._fleet.view(np.array([row])), request)
        decision = place_at(sight, 0, score={**score, self._policy.name: least}, wish=int(figures.milli[row]))
        return replace(decision, fitting=int(fits.sum()))

    def _surcharges(self, shape: Shape) -> Floats | float:
        """[hosts]: what a policy that rations scarce hosts adds at this moment."""
        policy, fleet = self._policy, self._fleet
        if not isinstance(policy, Rationing) or not policy.rationed(shape):
            return 0.0
        more = policy.surcharge(shape, fleet.census.of(shape))
        by_kind = np.array([more.get(kind, 0.0) for kind in fleet.kinds.all])
        added: Floats = by_kind[fleet.kind[: fleet.size]] if more else np.zeros(fleet.size)
        return added

    def _current(self, request: Request, shape: Shape) -> _Figures:
        """The figures of a request's shape, as the hardware is now."""
        fleet = self._fleet
        figures = _recent(self._figures, shape)
        if figures is None or len(figures.value) < fleet.size:
            figures = self._figures[shape] = _Figures.room(len(fleet.present))
            _keep_few(self._figures)
        rows = fleet.changes.since(figures.position) if figures.position >= 0 else None
        if rows is None or figures.version != self._policy.version:
            rows = np.arange(fleet.size)
        figures.position, figures.version = fleet.changes.position, self._policy.version
        if len(rows):
            self._look(request, rows, shape=shape, figures=figures)
        return figures

    def _look(self, request: Request, rows: Ints, *, shape: Shape, figures: _Figures) -> None:
        """Look at some hosts anew."""
        sight = Sight.of(self._fleet.view(rows), request)
        fits = fitting(sight, HARDWARE)
        figures.value[rows] = np.inf
        there = rows[fits]
        if not len(there):
            return
        costs = self._policy.costs(shape, self._fleet.states(there))
        figures.value[there] = costs.value
        figures.milli[there] = costs.milli
        figures.apart[there] = ~sight.close[fits] if request.numa == "preferred" else False

    def _open_to(self, request: Request) -> Bools:
        """[hosts]: to whom they are open, by what of the request that depends on."""
        who = replace(
            request,
            milli_cores=0,
            memory_bytes=0,
            device_count=0,
            device_milli=1000,
            device_models=frozenset(),
            numa="legacy",
            same_switch=False,
            same_nvlink=False,
            companions=(),
            cpu_policy="shared",
            page_bytes=0,
        )
        allowed = _recent(self._allowed, who)
        if allowed is None or allowed.facts != self._fleet.facts:
            hosts = fitting(Sight.of(self._fleet, who), FACTS)
            allowed = self._allowed[who] = _Allowed(self._fleet.facts, hosts)
            _keep_few(self._allowed)
        return allowed.hosts

    def _ranks(self) -> Ints:
        if self._order.facts != self._fleet.facts:
            names = self._fleet.names
            digests = [blake2b(name.encode(), digest_size=8).digest() for name in names]
            ranks = np.zeros(len(names), dtype=np.int64)
            ranks[sorted(range(len(names)), key=lambda row: (digests[row], names[row]))] = np.arange(len(names))
            self._order = _Order(self._fleet.facts, ranks)
        return self._order.ranks


def _recent(kept: OrderedDict[Named, Kept], name: Named) -> Kept | None:
    found = kept.get(name)
    if found is not None:
        kept.move_to_end(name)
    return found


def _keep_few(kept: OrderedDict[Named, Kept]) -> None:
    while len(kept) > SHAPES_MAX:
        kept.popitem(last=False)
