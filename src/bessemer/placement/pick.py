"""What to take of one host for a request with companions: which devices, and what beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.beside import Companion, CompanionUse
from bessemer.core.hosts import Device
from bessemer.placement.beside import GPUS, OTHERS, Cell
from bessemer.placement.cells import room_at
from bessemer.placement.layout import Layout, Place, inside, layout, matched, place_of
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Bools


@dataclass(frozen=True, slots=True)
class Way:
    """A way for a request to lie on the host of ``row``, which fits. ``usable`` [devices] are those to choose from."""

    sight: Sight
    row: int
    layout: Layout
    usable: Bools

    def allowed(self) -> list[int]:
        """The devices that may be taken, by column."""
        return [column for column in np.flatnonzero(self.usable).tolist() if self._may_be(self._cell(GPUS, column))]

    def spread(self) -> list[int] | None:
        """The devices to take where they must lie in several places: one of each, then what empties small places; None
        where any of those allowed do."""
        if self.layout.places is None:
            return None
        groups: dict[Place, list[int]] = {place: [] for place in self.layout.places}
        for column in self.allowed():
            groups[self._place(column)].append(column)
        firsts = [columns[0] for columns in groups.values()]
        rest = [column for columns in sorted(groups.values(), key=len) for column in columns[1:]]
        return [*firsts, *rest][: self.sight.request.device_count]

    def companions(self, devices: Sequence[int]) -> list[tuple[Companion, int]]:
        """What to take beside these devices, by column: what is near first, and of functions what is most used."""
        near = {self._cell(GPUS, column)[:2] for column in devices}
        chosen: list[tuple[Companion, int]] = []
        for one, free in zip(self.sight.request.companions, self.sight.companions, strict=True):
            node = self.layout.frame[0]
            columns = [c for c in np.flatnonzero(free[self.row]).tolist() if node in (None, self._other(c)[0])]
            columns.sort(key=lambda column: self._harm(column, near=near))
            chosen += [(one, column) for column in self._of(one, columns)]
        return chosen

    def _of(self, one: Companion, columns: Sequence[int]) -> list[int]:
        """``count`` of the columns, the first of them that do."""
        taken: list[int] = []
        rails: set[int] = set()

        def take(column: int) -> None:
            taken.append(column)
            rails.add(self._other(column)[2])

        depth = 2 if one.near == "switch" else 1
        if one.near:
            units = sorted({place[:depth] for place in self.layout.places or ()})
            columns = [column for column in columns if self._other(column)[:depth] in units]
            by_unit = [[column for column in columns if self._other(column)[:depth] == unit] for unit in units]
            ways = matched([frozenset(self._other(c)[2] for c in group) for group in by_unit]) if one.rails else None
            for number, group in enumerate(by_unit):
                take(next(c for c in group if ways is None or self._other(c)[2] == ways[number]))
        for column in columns:
            if len(taken) == one.count:
                break
            if column not in taken and not (one.rails and self._other(column)[2] in rails):
                take(column)
        return taken

    def _harm(self, column: int, *, near: set[Place]) -> tuple[bool, bool, int, int]:
        fleet, spare = self.sight.fleet, self.sight.spare
        node, switch, _ = self._other(column)
        left = int(fleet.other_functions[self.row, column] - spare.used[self.row, column])
        beside = (node, switch) in near and switch >= 0
        return (not beside, bool(near) and all(node != place[0] for place in near), left, column)

    def _may_be(self, cell: Cell) -> bool:
        places = self.layout.places
        return inside(cell, self.layout.frame) and (
            places is None or place_of(cell, self.sight.request.companions) in places
        )

    def _place(self, column: int) -> Place:
        place = place_of(self._cell(GPUS, column), self.sight.request.companions)
        if place is None:
            raise AssertionError("what is allowed has a place")
        return place

    def _other(self, column: int) -> Cell:
        return self._cell(OTHERS, column)

    def _cell(self, sort: int, column: int) -> Cell:
        fleet = self.sight.fleet
        numbers = fleet.device_cell if sort == GPUS else fleet.other_cell
        return fleet.topologies.all[int(fleet.topology[self.row])][sort][int(numbers[self.row, column])]


def way(sight: Sight, row: int, *, order: Sequence[int] = ()) -> Way:
    """How the request lies on a host that fits: on one NUMA node if it must or would rather, of one model where it can.
    Of a share, ``order`` are the devices to take it of, the first that does."""
    request = sight.request
    nodes = np.flatnonzero(sight.node_room[row]).tolist()
    companions = [free[row] for free in sight.companions]
    for numa in {"required": (True,), "preferred": (True, False), "legacy": (False,)}[request.numa]:
        for usable in _choices(sight, row, order=order):
            room = room_at(sight.fleet, row, usable=usable, companions=companions, nodes=nodes)
            found = layout(request, room, numa=numa)
            if found is not None:
                return Way(sight, row, found, usable)
    raise AssertionError("a host that fits has a way")


def _choices(sight: Sight, row: int, *, order: Sequence[int]) -> Iterator[Bools]:
    """[devices]: of which to choose, the better ones first."""
    usable, columns = sight.usable[row], np.arange(sight.usable.shape[1])
    if sight.request.device_milli < 1000 or sight.request.device_profile:
        yield from (columns == column for column in order)
        return
    models = sight.fleet.device_model[row]
    yield from (usable & (models == model) for model in np.unique(models[usable]))
    yield usable


def use_of(one: Companion, device: Device) -> CompanionUse:
    """What is taken of a device beside the others."""
    return CompanionUse(kind=device.kind, device=device.id, functions=one.functions, address=device.address)
