"""`Board`: what putting each shape on each host would cost, kept from one decision to the next.

A placement changes one host, so of each shape one figure. Those of a shape are brought up to date when it is asked for,
for the hosts that changed since, in one look at those alone; who may land where is apart from that, and is looked at
anew when that changed. What is decided is what a board made anew would decide.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import zip_longest
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bessemer.core.asking import Decision, Needs, Reason, Refusal, Request
from bessemer.placement.alike import Alike, Figure, Words, Worth
from bessemer.placement.arrays import Glance
from bessemer.placement.cheapest import Propose
from bessemer.placement.choose import instance_cost, place_at
from bessemer.placement.decide import refused
from bessemer.placement.filters import ABSENT, FACTS, FITS, HARDWARE, Verdicts, judged, sift
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.inbytes import costs_of
from bessemer.placement.policies import Floats, Policy, Rationing
from bessemer.placement.shape import Shape
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Bools, Ints

SHAPES_MAX = 1024
"""Shapes whose figures are kept: what is asked for comes in few; at 10,000 hosts each takes 170 kB."""

AHEAD_MAX = 256
"""Shapes of which costs are made ahead by another policy, beside those that are kept."""

AHEAD_HOSTS = 1024
"""Hosts that are looked at in one go: a millisecond or two."""

FEW_HOSTS = 8
"""As many are looked at one by one: what is known of a state costs a tenth of a look, and a look hardly more for each
host that it is at."""

Digests = NDArray[np.uint64]

_NOBODY = Request(tenant="", milli_cores=0, memory_bytes=0)

_LEAST = int(np.iinfo(np.int64).min)

Kept = TypeVar("Kept")
Named = TypeVar("Named", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What of a request the hardware must answer, and what is left of it: whose it is."""

    shape: Shape
    who: Request

    @classmethod
    def of(cls, request: Request) -> _Asked:
        # Who may land where hangs on whether it is a guest with devices, however many.
        handed = int(request.virtualization and bool(request.device_count or request.companions))
        return cls(Shape.of(request), request.needing(Needs(0, 0, device_count=handed, numa="legacy")))


@dataclass(slots=True, eq=False)
class _Figures:
    """Of one shape, [hosts]. ``verdict`` is `FITS`, `ABSENT`, or the link of `HARDWARE` that set the host aside.
    ``value`` is infinite where it does not fit; ``apart``: it would span NUMA nodes, which it would rather not.
    ``milli`` is as in `Costs` where it fits, and elsewhere the figure of which that link speaks. ``request`` is the
    shape as nobody's: whose it is can be in none of these figures."""

    request: Request
    position: int
    version: int
    alike: Alike
    verdict: Verdicts
    value: Floats
    milli: Ints
    apart: Bools
    counts: list[int] | None = None
    """How many hosts there are of each verdict, once somebody asked, and until several are looked at."""

    @classmethod
    def room(cls, request: Request, fleet: FleetArrays, *, worth: Worth) -> _Figures:
        rows = len(fleet.present)
        return cls(
            _NOBODY.needing(request),
            -1,
            -1,
            Alike(fleet, Shape.of(request), worth=worth),
            np.full(rows, ABSENT, dtype=np.uint8),
            np.full(rows, np.inf),
            np.zeros(rows, dtype=np.int64),
            np.zeros(rows, dtype=np.bool_),
        )

    def at(self, row: int) -> Figure:
        """Of one host."""
        return int(self.verdict[row]), float(self.value[row]), int(self.milli[row]), bool(self.apart[row])

    def set(self, row: int, figure: Figure) -> None:
        """Of one host, likewise."""
        if self.counts is not None:
            self.counts[self.verdict[row]] -= 1
            self.counts[figure[0]] += 1
        self.verdict[row], self.value[row], self.milli[row], self.apart[row] = figure

    def judge(self, rows: Ints, verdict: Verdicts) -> None:
        """These are the verdicts of hosts that were looked at."""
        if self.counts is not None:
            more = _by_verdict(verdict) - _by_verdict(self.verdict[rows])
            for number in np.flatnonzero(more).tolist():
                self.counts[number] += int(more[number])
        self.verdict[rows] = verdict

    def counted(self) -> list[int]:
        """By verdict, how many hosts."""
        if self.counts is None:
            self.counts = _by_verdict(self.verdict).tolist()
        return self.counts


def _by_verdict(verdict: Verdicts) -> Ints:
    """How many there are of each."""
    counts: Ints = np.bincount(verdict, minlength=max(FITS, ABSENT) + 1)
    return counts


@dataclass(slots=True, eq=False)
class _Allowed:
    """To whom hosts are open, [hosts], as the facts were then, and why the others are not. ``everywhere``: of hosts
    that there are, all."""

    facts: int
    hosts: Bools
    reasons: tuple[Reason, ...]
    everywhere: bool


_Look = tuple[_Figures, _Allowed]
"""At all hosts, as they were then."""


@dataclass(slots=True, eq=False)
class _Order:
    """[hosts]: what settles equals, fixed by a host's name and nothing that it is: 64 bits of a digest. ``names`` are
    those that it was made of."""

    facts: int = -1
    names: list[str] = field(default_factory=list)
    digests: Digests = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))


class Board:
    """Decides over a fleet by a policy. ``order`` names an order of hosts, by which what is equal is settled: those who
    decide over one fleet at once each have another, and seldom want the same. ``slack``: what costs by so much more
    than the least is as good."""

    def __init__(self, fleet: FleetArrays, policy: Policy, *, order: str = "") -> None:
        self._fleet = fleet
        self._named = order
        self.slack = 0.0
        self.policy = policy
        self.remedies: Sequence[Propose] = ()
        self._asked: OrderedDict[Request, _Asked] = OrderedDict()
        self._figures: OrderedDict[Shape, _Figures] = OrderedDict()
        self._allowed: OrderedDict[Request, _Allowed] = OrderedDict()
        self._order = _Order()
        self._worth = Worth()

    @property
    def policy(self) -> Policy:
        """By which it decides. Another may be set in its place, of another version."""
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._policy = policy
        self._rationing = policy if isinstance(policy, Rationing) else None

    def turn_to(self, policy: Policy) -> Iterator[None]:
        """Set another policy in the end. Its costs of the shapes that were asked for last are made first, some hosts at
        a time: whoever iterates may do something else in between, and decisions meanwhile go by the policy before."""
        made: dict[Shape, _Figures] = {}
        for shape, before in list(self._figures.items())[-AHEAD_MAX:]:
            figures = _Figures.room(before.request, self._fleet, worth=self._worth)
            figures.position, figures.version = self._fleet.changes.position, policy.version
            for start in range(0, self._fleet.size, AHEAD_HOSTS):
                rows = np.arange(start, min(start + AHEAD_HOSTS, self._fleet.size, len(figures.value)))
                self._look(rows, shape=shape, figures=figures, policy=policy)
                yield
            made[shape] = figures
        self.policy = policy
        for shape in made.keys() & self._figures.keys():
            self._figures[shape] = made[shape]

    def decide(self, request: Request) -> Decision | Refusal:
        """Where the request goes now, and why not elsewhere; or why nowhere, and what would help."""
        look = self._look_at_all(request)
        reasons = self.reasons(request, look)
        placed = self.place(request, look, reasons=reasons)
        if placed is None:
            return refused(Sight.of(self._fleet, request), reasons, remedies=self.remedies)
        return placed

    def place(
        self, request: Request, look: _Look | None = None, *, reasons: tuple[Reason, ...] = ()
    ) -> Decision | None:
        """Where the request goes now, without looking for the ``reasons`` against the others. Whoever has just looked
        says so."""
        figures, allowed = look or self._look_at_all(request)
        n = self._fleet.size
        value, room = figures.value[:n], figures.counted()[FITS]
        if not allowed.everywhere:
            room = int(np.count_nonzero((figures.verdict[:n] == FITS) & allowed.hosts))
            value = np.where(allowed.hosts, value, np.inf)
        if not room:
            return None
        more = self._surcharges(request)
        value = value if more is None else value + more
        rather = request.numa == "preferred"
        close, rows = _least(value, figures.apart[:n] if rather else None, slack=self.slack)
        if not len(rows):
            return None
        row = int(rows[np.argmin(self._digests()[rows])])
        least = float(value[row])
        score = {"spansNumaNodes": float(not close)} if rather else {}
        words = Words({**score, self._policy.name: least}, room, reasons)
        return _at(self._fleet, row, request=request, figures=figures, words=words)

    def reasons(self, request: Request, look: _Look | None = None) -> tuple[Reason, ...]:
        """Why hosts are set aside, as `sift` says it; of hosts that did not change since the last look from what is
        kept."""
        figures, allowed = look or self._look_at_all(request)
        n = self._fleet.size
        verdict, figure, counts = figures.verdict[:n], figures.milli[:n], figures.counted()
        if not allowed.everywhere:
            verdict, figure = verdict[allowed.hosts], figure[allowed.hosts]
            counts = np.bincount(verdict, minlength=len(HARDWARE)).tolist()
        found = list(allowed.reasons)
        for number, link in enumerate(HARDWARE):
            if not counts[number]:
                continue
            if link.measure is not None:
                most = int(figure.max(where=verdict == number, initial=_LEAST))
                found.append(link.measure.words(request, hosts=counts[number], most=most))
                continue
            # Words of several figures are found anew, of those hosts alone.
            rows = np.flatnonzero((figures.verdict[:n] == number) & allowed.hosts)
            found += link.says(Sight.of(Glance(self._fleet, rows), request), np.ones(len(rows), dtype=np.bool_))
        return tuple(found)

    def _surcharges(self, request: Request) -> Floats | None:
        """[hosts]: what a policy that rations scarce hosts adds at this moment; None for nothing."""
        policy, fleet = self._rationing, self._fleet
        if policy is None or not policy.rationed(shape := _parts(self._asked, request).shape):
            return None
        more = policy.surcharge(shape, fleet.census.of(shape))
        if not more:
            return None
        added: Floats = np.array([more.get(kind, 0.0) for kind in fleet.kinds.all])[fleet.kind[: fleet.size]]
        return added

    def _look_at_all(self, request: Request) -> _Look:
        asked = _parts(self._asked, request)
        return self._current(request, asked.shape), self._open_to(asked.who)

    def _current(self, request: Request, shape: Shape) -> _Figures:
        """The figures of a request's shape, as the hardware is now."""
        fleet = self._fleet
        figures = _recent(self._figures, shape)
        if figures is None or len(figures.value) < fleet.size:
            figures = self._figures[shape] = _Figures.room(request, fleet, worth=self._worth)
            _keep_few(self._figures)
        rows = fleet.changes.since(figures.position) if figures.position >= 0 else None
        if rows is None or figures.version != self._policy.version:
            rows, figures.alike = np.arange(fleet.size), Alike(fleet, shape, worth=self._worth)
        figures.position, figures.version = fleet.changes.position, self._policy.version
        if 0 < len(rows) <= FEW_HOSTS and figures.alike.asks():
            self._look_at_few(rows.tolist(), shape=shape, figures=figures)
        elif len(rows):
            self._look(rows, shape=shape, figures=figures, policy=self._policy)
        return figures

    def _look_at_few(self, rows: Sequence[int], *, shape: Shape, figures: _Figures) -> None:
        """Look at some hosts, as nearly each decision has to: hosts are alike and held alike, so most are in a state
        that another was in. Those that are in none are looked at together."""
        alike, anew = figures.alike, dict[int, bytes]()
        for row in rows:
            state = alike.state(row)
            figure = alike.figure(state)
            if figure is None:
                anew[row] = state
            else:
                figures.set(row, figure)
        if anew:
            self._look(np.array(list(anew)), shape=shape, figures=figures, policy=self._policy)
        for row, state in anew.items():
            alike.found(state, figures.at(row))

    def _look(self, rows: Ints, *, shape: Shape, figures: _Figures, policy: Policy) -> None:
        """Look at some hosts anew."""
        request = figures.request
        sight = Sight.of(Glance(self._fleet, rows), request)
        verdict, figure = judged(sight, HARDWARE)
        fits = verdict == FITS
        figures.judge(rows, verdict)
        figures.value[rows] = np.inf
        figures.milli[rows] = figure
        figures.apart[rows] = False
        there = rows[fits]
        if not len(there):
            return
        if shape.device_profile:
            # No policy knows what lies how on a device that is cut.
            figures.value[there] = instance_cost(sight)[fits]
            figures.apart[there] = ~sight.close[fits] if request.numa == "preferred" else False
            return
        costs = costs_of(policy, shape, fleet=self._fleet, rows=there)
        figures.value[there] = costs.value
        figures.milli[there] = costs.milli
        if request.numa == "preferred":
            figures.apart[there] = ~sight.close[fits]

    def _open_to(self, who: Request) -> _Allowed:
        """To whom of the request hosts are open."""
        allowed = _recent(self._allowed, who)
        if allowed is None or allowed.facts != self._fleet.facts:
            hosts, reasons = sift(Sight.of(self._fleet, who), FACTS)
            allowed = self._allowed[who] = _Allowed(self._fleet.facts, hosts, reasons, everywhere=not reasons)
            _keep_few(self._allowed)
        return allowed

    def _digests(self) -> Digests:
        order, names = self._order, self._fleet.names
        if order.facts != self._fleet.facts:
            order.facts = self._fleet.facts
            # Who is cordoned or comes back changes facts, and no names.
            if order.names != names:
                self._name_anew(order, names)
        return order.digests

    def _name_anew(self, order: _Order, names: list[str]) -> None:
        salt = blake2b(self._named.encode(), digest_size=16).digest() if self._named else b""
        order.digests = np.append(order.digests, np.zeros(len(names) - len(order.names), dtype=np.uint64))
        for row, (name, before) in enumerate(zip_longest(names, order.names)):
            if name != before:
                order.digests[row] = int.from_bytes(blake2b(name.encode(), digest_size=8, key=salt).digest(), "big")
        order.names = list(names)


def _parts(kept: OrderedDict[Request, _Asked], request: Request) -> _Asked:
    asked = _recent(kept, request)
    if asked is None:
        asked = kept[request] = _Asked.of(request)
        _keep_few(kept)
    return asked


def _at(fleet: FleetArrays, row: int, *, request: Request, figures: _Figures, words: Words) -> Decision:
    """What to take of a host that fits: what was taken of one in its state, where there was one."""
    state = figures.alike.chosen(row)
    picked = figures.alike.picked(state, row)
    if picked is not None:
        return picked.at(fleet, row, request=request, words=words)
    sight = Sight.of(Glance(fleet, np.array([row])), request)
    decision = place_at(sight, 0, score=words.score, wish=int(figures.milli[row]))
    figures.alike.took(state, decision, row=row, figure=figures.at(row))
    return replace(decision, fitting=words.fitting, reasons=words.reasons)


def _least(value: Floats, apart: Bools | None, *, slack: float) -> tuple[bool, Ints]:
    """Whether any host has it all together, and the rows that cost least of those (of all, where none has)."""
    near = np.where(apart, np.inf, value) if apart is not None and apart.any() else value
    least = float(near.min())
    close = least < np.inf
    if not close:
        near, least = value, float(value.min())
    return close, np.flatnonzero(near <= least + slack) if least < np.inf else np.zeros(0, dtype=np.int64)


def _recent(kept: OrderedDict[Named, Kept], name: Named) -> Kept | None:
    found = kept.get(name)
    if found is not None:
        kept.move_to_end(name)
    return found


def _keep_few(kept: OrderedDict[Named, Kept]) -> None:
    while len(kept) > SHAPES_MAX:
        kept.popitem(last=False)
