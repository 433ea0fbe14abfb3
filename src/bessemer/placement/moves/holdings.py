"""`Holdings`: what is held of a fleet, claim by claim, as arrays.

Who is to make room is decided over all claims at once, and 80,000 of them are too many to look at one by one. So each
has a slot, and parts of devices and of NUMA nodes that point to it; rows of the fleet that changed are read anew, all
others stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import NamedTuple

import numpy as np

from bessemer.core.asking import Request
from bessemer.placement.facts import Hold
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.numbering import Numbers
from bessemer.placement.policies import Floats
from bessemer.placement.vectors import NONE, Ints

CLAIM = ("used", "row", "ask", "milli", "priority", "since", "ends", "preemptible", "restartable", "replaced")
"""The columns of `Holdings.claims`."""


class Columns:
    """Whole numbers under names, [slots]. A slot that nobody has any more holds zeros until it is given anew."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._values: Ints = np.zeros((len(names), 64), dtype=np.int64)
        self._vacant: list[int] = []
        self.size = 0

    def __getitem__(self, name: str) -> Ints:
        return self._values[self._names.index(name), : self.size]

    def add(self, *values: int) -> int:
        """The slot in which they are."""
        if self._vacant:
            slot = self._vacant.pop()
        else:
            slot = self.size
            self.size += 1
            if slot == self._values.shape[1]:
                self._values = np.concatenate([self._values, np.zeros_like(self._values)], axis=1)
        self._values[:, slot] = values
        return slot

    def at(self, places: Ints) -> Mapping[str, Ints]:
        """The slots in use whose row has a place [rows], with that as their row."""
        # A slot that nobody has says the first row, of which it holds nothing.
        row = places[self["row"]]
        found = np.flatnonzero(row != NONE)
        return {name: row[found] if name == "row" else self[name][found] for name in self._names}

    def copy(self) -> Columns:
        """One that goes its own way."""
        other = Columns(*self._names)
        other._values, other._vacant, other.size = self._values.copy(), list(self._vacant), self.size
        return other

    def free(self, slots: Sequence[int]) -> None:
        """They are nobody's."""
        self._values[:, slots] = 0
        self._vacant += slots


class Parts(NamedTuple):
    """What is held of some hosts, by their place among them; columns as in `Holdings`."""

    devices: Mapping[str, Ints]
    nodes: Mapping[str, Ints]


class Holdings:
    """The holds that stand on hosts of ``fleet``, as they were at the last `refresh`.

    ``claims`` has a slot for each: ``used`` (1, or 0 where it is nobody's), ``row``, ``ask`` (the number of its request
    in ``asks``; -1: nobody says), ``milli`` (thousandths of devices in all), and of its tenure ``priority``, ``since``,
    ``ends`` (-1: nobody knows), ``preemptible``, ``restartable``, ``replaced``. ``devices`` are ``slot, row, column,
    milli`` of each device held, ``nodes`` are ``slot, row, column, cores, memory`` of each NUMA node. What a host does
    not have any more is no part of either.
    """

    def __init__(self, fleet: FleetArrays) -> None:
        self.fleet = fleet
        self.claims = Columns(*CLAIM)
        self.devices = Columns("slot", "row", "column", "milli")
        self.nodes = Columns("slot", "row", "column", "cores", "memory")
        self.asks: Numbers[Request] = Numbers()
        self._held: dict[int, tuple[str, Hold]] = {}
        self._parts: dict[int, tuple[list[int], list[int]]] = {}
        self._slots: dict[int, list[int]] = {}
        self._position = -1
        self._facts = -1
        self._ranks: Ints = np.zeros(0, dtype=np.int64)
        self.refresh()

    def forked(self, fleet: FleetArrays) -> Holdings:
        """The same for a fork of the fleet that was made just now, read no claim anew."""
        self.refresh()
        fork = copy(self)
        fork.fleet = fleet
        fork.claims, fork.devices, fork.nodes = self.claims.copy(), self.devices.copy(), self.nodes.copy()
        fork.asks = self.asks.copy()
        fork._held, fork._parts = dict(self._held), dict(self._parts)
        fork._slots = {row: list(slots) for row, slots in self._slots.items()}
        fork._position = fleet.named.position
        return fork

    def refresh(self) -> None:
        """Read what changed."""
        changes = self.fleet.named
        rows = changes.since(self._position) if self._position >= 0 else None
        self._position = changes.position
        for row in range(self.fleet.size) if rows is None else rows.tolist():
            self._forget(row)
            self._read(row)

    def of(self, rows: Ints) -> Parts:
        """What is held of some hosts."""
        places = np.full(self.fleet.size, NONE)
        places[rows] = np.arange(len(rows))
        return Parts(self.devices.at(places), self.nodes.at(places))

    def at(self, row: int) -> Sequence[int]:
        """The slots of a host's holds, by uid."""
        return self._slots.get(row, ())

    def held(self, slot: int) -> tuple[str, Hold]:
        """Whose a slot is, and what it holds."""
        return self._held[slot]

    def costs(self, cost: Callable[[str, Hold], float | None]) -> Floats:
        """[slots]: what removing each would cost, asked one by one; None: it may not be. Who knows it from the columns
        of ``claims`` makes the same array at once."""
        found = np.full(self.claims.size, np.inf)
        for slot, (uid, hold) in self._held.items():
            value = cost(uid, hold)
            found[slot] = np.inf if value is None else value
        return found

    def ranks(self) -> Ints:
        """[hosts]: the place of each in the order of names."""
        if self._facts != self.fleet.facts or len(self._ranks) != self.fleet.size:
            names = self.fleet.names[: self.fleet.size]
            self._ranks = np.zeros(len(names), dtype=np.int64)
            self._ranks[sorted(range(len(names)), key=lambda row: names[row])] = np.arange(len(names))
            self._facts = self.fleet.facts
        return self._ranks

    def _forget(self, row: int) -> None:
        slots = self._slots.pop(row, [])
        for slot in slots:
            devices, nodes = self._parts.pop(slot)
            self.devices.free(devices)
            self.nodes.free(nodes)
            ask = int(self.claims["ask"][slot])
            if ask != NONE:
                self.asks.give_back(ask)
            del self._held[slot]
        self.claims.free(slots)

    def _read(self, row: int) -> None:
        fleet = self.fleet
        if not fleet.present[row]:
            return
        devices = {device.id: column for column, device in enumerate(fleet.devices(row))}
        nodes = {node: column for column, node in enumerate(fleet.node_ids(row))}
        for uid, hold in fleet.held.at(fleet.names[row]).items():
            slot = self._add(row, uid, hold=hold)
            self._slots.setdefault(row, []).append(slot)
            self._parts[slot] = (
                [self.devices.add(slot, row, column, hold.frees) for column in _columns(hold, devices)],
                [
                    self.nodes.add(slot, row, nodes[part.numa_node], part.taken_milli_cores, part.plain_bytes)
                    for part in hold.allocations
                    if part.numa_node in nodes
                ],
            )

    def _add(self, row: int, uid: str, *, hold: Hold) -> int:
        tenure = hold.tenure
        slot = self.claims.add(
            1,
            row,
            NONE if hold.request is None else self.asks.take(hold.request),
            hold.device_milli * len(set(hold.devices)),
            tenure.priority,
            tenure.since,
            NONE if tenure.ends is None else tenure.ends,
            tenure.preemptible,
            tenure.restartable,
            tenure.replaced,
        )
        self._held[slot] = (uid, hold)
        return slot


def _columns(hold: Hold, devices: Mapping[str, int]) -> list[int]:
    return sorted({devices[device] for device in hold.devices if device in devices})
