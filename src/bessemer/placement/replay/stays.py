"""Lets stays pass over a fleet, and looks at it now and then: what is held, who waits, what of the rest is of no use.

Other than a churn, in which who is refused is lost, who finds no room may wait here, and begins when its turn comes
(`lines`), for as long as it would have stayed.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from bessemer.core.asking import Decision, Request
from bessemer.placement.demand import Mix
from bessemer.placement.facts import Hold, Tenure
from bessemer.placement.fragmentation import fragmentation, stand_of
from bessemer.placement.replay.figures import Count, size_of, sizes_in_order
from bessemer.placement.replay.run import Desk, Told, decided
from bessemer.placement.replay.trace import milli_of
from bessemer.placement.shape import Shape


@dataclass(frozen=True, slots=True)
class Stay:
    """When it comes and would leave, in hours; in order of ``comes``. ``project`` is whose it is, which matters to who
    waits in turn, as ``priority`` does."""

    comes: float
    leaves: float
    request: Request
    project: str = ""
    priority: int = 0


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
    """What came of it. ``counts``: who never began, by size, is refused; ``waits`` are the hours that each of those
    waited who came within the window and began, in no order; ``device_hours`` by model; ``allocated`` is the mean over
    time, a share of all devices."""

    samples: Sequence[Sample]
    counts: Mapping[str, Count]
    waits: Sequence[float]
    device_hours: Mapping[str, float]
    allocated: float
    moves: int = 0

    @property
    def waited(self) -> int:
        """How many began later than they came."""
        return sum(hours > 0 for hours in self.waits)


class Line(Protocol):
    """Those who wait."""

    @property
    def passed(self) -> bool:
        """Whether who comes and finds room begins at once."""
        ...

    def __len__(self) -> int: ...

    def join(self, number: int, stay: Stay) -> None:
        """One more."""
        ...

    def next(self, now: float) -> Iterable[tuple[int, Stay, Decision]]:
        """Those who begin at that hour, and where. Each is held before the next is asked for."""
        ...


def live(
    desk: Desk,
    stays: Sequence[Stay],
    *,
    window: Window,
    capacity_milli: int,
    line: Line | None,
    told: Told = lambda _: None,
) -> Lived:
    """Let them come. What began before the window still holds there. In ``line`` they wait; without, they are lost."""
    day = _Day(desk, line=line, start=window.start)
    mix = Mix.of(Counter(Shape.of(stay.request) for stay in stays))
    looks = iter(np.linspace(window.start, window.end, window.samples + 1)[1:].tolist())
    look = next(looks)
    samples: list[Sample] = []
    for n, stay in enumerate([*stays, None]):
        until = window.end if stay is None else min(stay.comes, window.end)
        while len(samples) < window.samples and look <= until:
            day.until(look)
            samples.append(Sample(look, day.held, useless(desk, mix), 0 if line is None else len(line)))
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
        waits=day.waited,
        device_hours={model: area / 1000 for model, area in sorted(day.areas.items())},
        allocated=sum(day.areas.values()) / max(1, capacity_milli) / length,
        moves=day.moves,
    )


def useless(desk: Desk, mix: Mix) -> float:
    """Thousandths of devices that are free and serve nothing of what is asked for (expected), as things stand."""
    return sum(use.useless_milli or 0.0 for use in fragmentation(stand_of(desk.fleet), mix))


@dataclass(slots=True)
class _Day:
    """Time that passes over a fleet. ``areas`` are thousandths of devices times hours, by model."""

    desk: Desk
    line: Line | None
    start: float
    now: float = 0.0
    held: int = 0
    moves: int = 0
    waited: list[float] = field(default_factory=list)
    areas: dict[str, float] = field(default_factory=dict)
    _standing: Counter[str] = field(default_factory=Counter)
    _leaving: list[tuple[float, int, Request]] = field(default_factory=list)
    _models: dict[int, str] = field(default_factory=dict)
    _came: list[tuple[str, int]] = field(default_factory=list)
    _never: dict[int, tuple[str, int]] = field(default_factory=dict)

    def until(self, then: float) -> None:
        """Let those go whose time is over."""
        while self._leaving and self._leaving[0][0] <= then:
            at, n, request = heapq.heappop(self._leaving)
            self._pass(at)
            self.desk.fleet.drop(str(n))
            self.desk.left(request)
            self.held -= milli_of(request)
            self._standing[self._models.pop(n)] -= milli_of(request)
            self._again()
        self._pass(then)

    def come(self, n: int, stay: Stay) -> None:
        """One more."""
        mover = self.desk.mover
        if stay.comes >= self.start:
            if mover is not None and not self._came:
                # As under churn: what came before anything counts allows no moves now, but for those that are saved.
                mover.forget()
            self._came.append((size_of(stay.request), milli_of(stay.request)))
            self._never[n] = self._came[-1]
        if self.line is not None and not self.line.passed:
            if mover is not None:
                mover.came()
            self.line.join(n, stay)
            self._again()
            return
        decision, moved = decided(self.desk, stay.request)
        self._moved(moved)
        if decision is not None:
            self._begin(n, stay, decision=decision)
        elif self.line is not None:
            self.line.join(n, stay)

    def counts(self) -> Mapping[str, Count]:
        """By size."""
        found: dict[str, Count] = {}
        for size, milli in self._came:
            found[size] = found.get(size, Count()) + Count(1, 0, milli, 0)
        for size, milli in self._never.values():
            found[size] += Count(0, 1, 0, milli)
        return {size: found[size] for size in sizes_in_order(found)}

    def _again(self) -> None:
        """Let those begin of who waits that may."""
        for n, stay, decision in self.line.next(self.now) if self.line is not None else ():
            self._begin(n, stay, decision=decision)

    def _begin(self, n: int, stay: Stay, *, decision: Decision) -> None:
        milli, model = milli_of(stay.request), self._model(decision)
        tenure = Tenure(
            project=stay.project,
            priority=stay.priority,
            since=int(self.now * 3600),
            restartable=self.desk.mover is not None,
        )
        self.desk.fleet.hold(str(n), replace(Hold.of(decision), tenure=tenure))
        self.held += milli
        self._standing[model] += milli
        self._models[n] = model
        heapq.heappush(self._leaving, (self.now + stay.leaves - stay.comes, n, stay.request))
        if self._never.pop(n, None) is not None:
            self.waited.append(max(0.0, self.now - stay.comes))

    def _moved(self, uids: Sequence[str]) -> None:
        """Some lie elsewhere now, perhaps on devices of another model."""
        self.moves += len(uids) if self.now >= self.start else 0
        for uid in uids:
            hold = self.desk.fleet.held.of(uid)
            if hold is not None and hold.devices:
                milli = hold.device_milli * len(hold.devices)
                self._standing[self._models[int(uid)]] -= milli
                self._models[int(uid)] = self._of(hold.host, hold.devices)
                self._standing[self._models[int(uid)]] += milli

    def _model(self, decision: Decision) -> str:
        return self._of(decision.host, decision.devices)

    def _of(self, host: str, devices: Sequence[str]) -> str:
        row = self.desk.fleet.row(host)
        if not devices or row is None:
            return ""
        return next(device.model for device in self.desk.fleet.devices(row) if device.id == devices[0])

    def _pass(self, then: float) -> None:
        since, self.now = max(self.now, self.start), then
        if then > since:
            for model, milli in self._held():
                self.areas[model] = self.areas.get(model, 0.0) + milli * (then - since)

    def _held(self) -> Iterator[tuple[str, int]]:
        return ((model, milli) for model, milli in self._standing.items() if milli)
