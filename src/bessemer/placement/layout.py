"""Whether and how devices and what must lie near them can lie on one host: exact, over its cells.

A cell is a NUMA node, a PCIe switch, and an NVLink domain (of devices) or a rail (of companions); hosts that have the
same free in the same cells get the same answer, so it is looked for once for all of them. A switch that is said to be
on two nodes counts as two.

Where something must be near, the places (switches, or nodes) that devices are taken of are chosen such that there are
enough devices, enough companions near them, and of each at least one in each place. That is a sum over places in
several dimensions, solved exactly by adding one place after the other and keeping each sum once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bessemer.core.asking import Request
from bessemer.core.beside import Companion
from bessemer.placement.beside import Cell
from bessemer.placement.vectors import NONE

SUMS_MAX = 4096
"""Sums that are kept of one host. Known machines have a few hundred; past it, ways are missed and none is invented."""

Place = tuple[int, int]
"""A NUMA node and a PCIe switch of it, `NONE` where only the node matters."""

Frame = tuple[int | None, int | None, int | None]
"""The node, the switch and the domain that all devices must share; None where they need not."""

Supply = int | frozenset[int]
"""Companions in one place: how many, or where no two may share a rail, the rails."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is free of a host, by cell: devices, and of each companion what would do. ``nodes`` are those that have all
    of the cores and memory."""

    devices: Mapping[Cell, int]
    companions: Sequence[Mapping[Cell, int]]
    nodes: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to lie: devices within ``frame``, and where something must be near them of each of ``places``. ``cost`` are
    nodes, places, devices and companions that it draws on, small is good."""

    cost: tuple[int, ...]
    frame: Frame
    places: tuple[Place, ...] | None = None


def layout(request: Request, room: Room, *, numa: bool) -> Layout | None:
    """The way that breaks up the least, or None. With ``numa`` everything is on one node that has the cores and memory
    too."""
    found = [
        way for frame in _frames(request, room, numa=numa) if (way := _within(request, room, frame=frame)) is not None
    ]
    return min(found, key=lambda way: (way.cost, way.frame[0] or 0, way.places or ()), default=None)


def inside(cell: Cell, frame: Frame) -> bool:
    """Whether devices there are within the frame."""
    return all(wanted in (None, there) for there, wanted in zip(cell, frame, strict=True))


def place_of(cell: Cell, companions: Sequence[Companion]) -> Place | None:
    """The place of a device, as finely as something must be near it; None where that is not known."""
    node, switch, _ = cell
    if any(one.near == "switch" for one in companions):
        known = switch != NONE and (node != NONE or all(one.near != "node" for one in companions))
        return (node, switch) if known else None
    return (node, NONE) if node != NONE else None


def matched(supplies: Sequence[frozenset[int]]) -> list[int] | None:
    """A rail for each place, no two the same; None where there is no such way."""
    holder: dict[int, int] = {}

    def give(place: int, seen: set[int]) -> bool:
        for rail in sorted(supplies[place] - seen):
            seen.add(rail)
            if rail not in holder or give(holder[rail], seen):
                holder[rail] = place
                return True
        return False

    if not all(give(place, set()) for place in range(len(supplies))):
        return None
    return [rail for _, rail in sorted((place, rail) for rail, place in holder.items())]


def _frames(request: Request, room: Room, *, numa: bool) -> Iterator[Frame]:
    if not request.device_count:
        yield from ((node, None, None) for node in sorted(room.nodes)) if numa else ((None, None, None),)
        return
    musts = (numa, request.same_switch, request.same_nvlink)
    frames = {tuple(c if must else None for c, must in zip(cell, musts, strict=True)) for cell in room.devices}
    for node, switch, domain in sorted(frames, key=lambda frame: tuple(-1 if c is None else c for c in frame)):
        if NONE not in (node, switch, domain) and (not numa or node in room.nodes):
            yield node, switch, domain


def _within(request: Request, room: Room, *, frame: Frame) -> Layout | None:
    wanted = request.companions
    devices = {cell: count for cell, count in room.devices.items() if inside(cell, frame)}
    if sum(devices.values()) < request.device_count:
        return None
    supplies = [{cell: n for cell, n in cells.items() if frame[0] in (None, cell[0])} for cells in room.companions]
    for one, cells in zip(wanted, supplies, strict=True):
        if _amount(_supply(one, cells)) < one.count:
            return None
    if not any(one.near for one in wanted):
        return Layout((1, 1, sum(devices.values())), frame)
    places: dict[Place, int] = {}
    for cell, count in devices.items():
        place = place_of(cell, wanted)
        if place is not None:
            places[place] = places.get(place, 0) + count
    near = tuple((one, cells) for one, cells in zip(wanted, supplies, strict=True) if one.near)
    return _Sums(request.device_count, places, near).best(frame)


@dataclass(frozen=True, slots=True)
class _Sum:
    """What some places have together. ``near`` is by companion that must be near: how many, or rails by place."""

    node: int
    nodes: int
    devices: int
    near: tuple[int | tuple[frozenset[int], ...], ...]


@dataclass(frozen=True, slots=True)
class _Sums:
    """``places`` have so many devices each; ``near`` is what must be near them, and where there is some."""

    wanted: int
    places: Mapping[Place, int]
    near: tuple[tuple[Companion, Mapping[Cell, int]], ...]

    def best(self, frame: Frame) -> Layout | None:
        """The places to take of."""
        found = [
            Layout((total.nodes, len(places), total.devices, *map(_count, total.near)), frame, places)
            for total, places in self._all().items()
            if total.devices >= self.wanted and self._enough(total)
        ]
        return min(found, key=lambda way: (way.cost, way.places or ()), default=None)

    def _all(self) -> dict[_Sum, tuple[Place, ...]]:
        near = self.near
        most = min([self.wanted, *(one.count for one, _ in near if one.near == "switch")])
        most_nodes = min((one.count for one, _ in near if one.near == "node"), default=len(self.places))
        nothing: tuple[int | tuple[frozenset[int], ...], ...] = tuple(() if one.rails else 0 for one, _ in near)
        sums: dict[tuple[_Sum, int], tuple[Place, ...]] = {(_Sum(NONE - 1, 0, 0, nothing), 0): ()}
        for place in sorted(self.places):
            here = [_at(one, cells, place=place) for one, cells in near]
            if not all(map(_amount, here)):
                continue
            for (total, count), chosen in list(sums.items()):
                more = self._more(total, place, here=here)
                if count < most and more.nodes <= most_nodes and len(sums) < SUMS_MAX:
                    sums.setdefault((more, count + 1), (*chosen, place))
        return {total: chosen for (total, count), chosen in sorted(sums.items(), key=lambda item: -item[0][1]) if count}

    def _more(self, total: _Sum, place: Place, *, here: Sequence[Supply]) -> _Sum:
        another = place[0] != total.node
        near = tuple(
            before if one.near == "node" and not another else _added(before, supply)
            for (one, _), before, supply in zip(self.near, total.near, here, strict=True)
        )
        return _Sum(place[0], total.nodes + another, total.devices + self.places[place], near)

    def _enough(self, total: _Sum) -> bool:
        for (one, _), found in zip(self.near, total.near, strict=True):
            if isinstance(found, int):
                if found < one.count:
                    return False
            elif len(frozenset().union(*found)) < one.count or matched(found) is None:
                return False
        return True


def _at(one: Companion, cells: Mapping[Cell, int], *, place: Place) -> Supply:
    """What lies in the place, as near as the companion must."""
    depth = 2 if one.near == "switch" else 1
    return _supply(one, {cell: n for cell, n in cells.items() if cell[:depth] == place[:depth]})


def _supply(one: Companion, cells: Mapping[Cell, int]) -> Supply:
    return frozenset(cell[2] for cell in cells) if one.rails else sum(cells.values())


def _amount(supply: Supply) -> int:
    return supply if isinstance(supply, int) else len(supply)


def _count(found: int | tuple[frozenset[int], ...]) -> int:
    return found if isinstance(found, int) else len(frozenset().union(*found))


def _added(before: int | tuple[frozenset[int], ...], supply: Supply) -> int | tuple[frozenset[int], ...]:
    if isinstance(before, int):
        return before + _amount(supply)
    return (*before, supply) if isinstance(supply, frozenset) else before
