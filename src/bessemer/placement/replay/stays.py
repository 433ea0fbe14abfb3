"""Lets stays pass over a fleet, and looks at it now and then: what is held, who waits, what of the rest is of no use.

Other than a churn, in which who is refused is lost, who finds no room may wait here: whenever something is let go those
who wait are asked in the order in which they came, and whoever fits begins, for as long as it would have stayed.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bessemer.core.asking import Decision, Request
from bessemer.placement.demand import Mix
from bessemer.placement.facts import Hold
from bessemer.placement.fragmentation import fragmentation, stand_of
from bessemer.placement.replay.figures import Count, size_of, sizes_in_order
from bessemer.placement.replay.run import Desk, Told
from bessemer.placement.replay.trace import milli_of
from bessemer.placement.shape import Shape


@dataclass(frozen=True, slots=True)
class Stay:
    """When it comes and would leave, in hours; in order of ``comes``."""

    comes: float
    leaves: float
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From ``start`` on it is counted, to ``end``; in between the fleet is looked at ``samples`` times, evenly."""

    start: float
    end: float
    samples: int = 60


@dataclass(frozen=True, slots=True)
class Sample:
    """The fleet at an hour: thousandths of devices that are held, those that are free and serve nothing (expected), and
    who waits."""

    at: float
    held_milli: int
    useless_milli: float
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """What came of it. ``counts``: who never began, by size, is refused; ``waited`` began later than they came, for
    ``waited_hours`` in all; ``device_hours`` by model; ``allocated`` is the mean over time, a share of all devices."""

    samples: Sequence[Sample]
    counts: Mapping[str, Count]
    waited: int
    waited_hours: float
    device_hours: Mapping[str, float]
    allocated: float
    moves: int = 0


def live(
    desk: Desk, stays: Sequence[Stay], *, window: Window, capacity_milli: int, waits: bool, told: Told = lambda _: None
) -> Lived:
    """Let them come. What began before the window still holds there."""
    day = _Day(desk, waits=waits, start=window.start)
    mix = Mix.of(Counter(Shape.of(stay.request) for stay in stays))
    looks = iter(np.linspace(window.start, window.end, window.samples + 1)[1:].tolist())
    look = next(looks)
    samples: list[Sample] = []
    for n, stay in enumerate([*stays, None]):
        until = window.end if stay is None else min(stay.comes, window.end)
        while len(samples) < window.samples and look <= until:
            day.until(look)
            samples.append(Sample(look, day.held, _useless(desk, mix), len(day.waiting)))
            look = next(looks, window.end)
        if stay is None or stay.comes > window.end:
            break
        day.until(stay.comes)
        day.come(n, stay)
        if n % 64 == 0:
            told(n / len(stays))
    day.until(window.end)
    told(1.0)
    length = max(window.end - window.start, 1e-9)
    return Lived(
        samples=samples,
        counts=day.counts(),
        waited=day.waited,
        waited_hours=day.waited_hours,
        device_hours={model: area / 1000 for model, area in sorted(day.areas.items())},
        allocated=sum(day.areas.values()) / max(1, capacity_milli) / length,
    )


def _useless(desk: Desk, mix: Mix) -> float:
    return sum(use.useless_milli or 0.0 for use in fragmentation(stand_of(desk.fleet), mix))


@dataclass(slots=True)
class _Day:
    """Time that passes over a fleet. ``areas`` are thousandths of devices times hours, by model."""

    desk: Desk
    waits: bool
    start: float
    now: float = 0.0
    held: int = 0
    waited: int = 0
    waited_hours: float = 0.0
    waiting: dict[int, Stay] = field(default_factory=dict)
    areas: dict[str, float] = field(default_factory=dict)
    _standing: Counter[str] = field(default_factory=Counter)
    _leaving: list[tuple[float, int, Request, str]] = field(default_factory=list)
    _came: list[tuple[str, int]] = field(default_factory=list)
    _never: dict[int, tuple[str, int]] = field(default_factory=dict)

    def until(self, then: float) -> None:
        """Let those go whose time is over."""
        while self._leaving and self._leaving[0][0] <= then:
            at, n, request, model = heapq.heappop(self._leaving)
            self._pass(at)
            self.desk.fleet.drop(str(n))
            self.desk.left(request)
            self.held -= milli_of(request)
            self._standing[model] -= milli_of(request)
            self._again()
        self._pass(then)

    def come(self, n: int, stay: Stay) -> None:
        """One more."""
        if stay.comes >= self.start:
            self._came.append((size_of(stay.request), milli_of(stay.request)))
            self._never[n] = self._came[-1]
        if not self._begin(n, stay) and self.waits:
            self.waiting[n] = stay

    def counts(self) -> Mapping[str, Count]:
        """By size."""
        found: dict[str, Count] = {}
        for size, milli in self._came:
            found[size] = found.get(size, Count()) + Count(1, 0, milli, 0)
        for size, milli in self._never.values():
            found[size] += Count(0, 1, 0, milli)
        return {size: found[size] for size in sizes_in_order(found)}

    def _again(self) -> None:
        """Ask for those who wait; a shape that found no room finds none for the next of its sort."""
        refused: set[Shape] = set()
        for n, stay in list(self.waiting.items()):
            shape = Shape.of(stay.request)
            if shape in refused:
                continue
            if self._begin(n, stay):
                del self.waiting[n]
            else:
                refused.add(shape)

    def _begin(self, n: int, stay: Stay) -> bool:
        decision = self.desk.decide(stay.request)
        if not isinstance(decision, Decision):
            return False
        milli, model = milli_of(stay.request), self._model(decision)
        self.desk.fleet.hold(str(n), Hold.of(decision))
        self.held += milli
        self._standing[model] += milli
        heapq.heappush(self._leaving, (self.now + stay.leaves - stay.comes, n, stay.request, model))
        late = self.now - stay.comes
        if late > 0 and n in self._never:
            self.waited += 1
            self.waited_hours += late
        self._never.pop(n, None)
        return True

    def _model(self, decision: Decision) -> str:
        row = self.desk.fleet.row(decision.host)
        if not decision.devices or row is None:
            return ""
        return next(device.model for device in self.desk.fleet.devices(row) if device.id == decision.devices[0])

    def _pass(self, then: float) -> None:
        since, self.now = max(self.now, self.start), then
        if then > since:
            for model, milli in self._held():
                self.areas[model] = self.areas.get(model, 0.0) + milli * (then - since)

    def _held(self) -> Iterator[tuple[str, int]]:
        return ((model, milli) for model, milli in self._standing.items() if milli)
