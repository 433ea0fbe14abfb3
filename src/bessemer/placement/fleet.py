"""The fleet as arrays, and what keeps them current.

What the arrays say is what `set_host` and `hold` were told and nothing else; an update touches its host's row alone.
What is free is what there is less what holds name, in whatever order they came and went. It falls below zero where a
host lost hardware under its claims or sells less than it did, and where a device is held twice for a while: by a claim
that is gone unseen, and by the next. The arrays are as wide as the widest host that ever was, which `Inventory` bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np

from bessemer.core.cpus import parse_cpus
from bessemer.core.hosts import UNSAID_ENGINES, Device
from bessemer.placement.arrays import ARRAYS, Arrays, View
from bessemer.placement.census import Census
from bessemer.placement.changes import Changes
from bessemer.placement.facts import Hold, HostFacts, Wall
from bessemer.placement.held import Held
from bessemer.placement.hostclass import HostClass
from bessemer.placement.numbering import Numbers
from bessemer.placement.partitions import offer_of
from bessemer.placement.slices.cuts import Cuts
from bessemer.placement.states import SIZES
from bessemer.placement.vectors import NONE, WHOLE, Ints


class FleetArrays(Arrays):
    """``version`` is another after each update, and of what is never the same again never the same; a `Thought` gives
    back the one from before. ``facts`` rises with updates after which another may land somewhere, whatever the
    hardware there: who is present, reachable, schedulable, walls, taints, virtualization, isolation and the switches
    above. ``hosts`` rises with each host that is set or removed: until then a number stands for the same in each array.
    ``changes`` are the rows whose hardware changed, or what is free of it, ``named`` those and the ones of which
    a claim is known by another name; ``census`` counts what hosts of each class hold. ``thoughts`` are those that go
    on: what each claim held that they touched, the innermost last."""

    def __init__(self) -> None:
        self.size = 0
        self.version = self._versions = 0
        self.facts = self.hosts = 0
        self.changes, self.named = Changes(), Changes()
        self.held = Held()
        self.names = []
        self.models = Numbers()
        self.walls = Numbers()
        self.engine_sets = Numbers()
        self.switches = Numbers()
        self.kinds = Numbers()
        self.offers = Numbers()
        self.cuts = Cuts()
        self.census = Census()
        self._taint_sets: Numbers[frozenset[str]] = Numbers()
        self.taint_sets = self._taint_sets.all
        self._rows: dict[str, int] = {}
        self._vacant: list[int] = []
        self._devices: dict[int, Sequence[Device]] = {}
        self._device_columns: dict[int, dict[str, int]] = {}
        self._node_columns: dict[int, dict[int, int]] = {}
        self._begin_beside()
        self._allocate(rows=16, nodes=2, devices=8, others=8)
        # Rows that are nobody's point to the first set of taints: there always is one.
        self._taint_sets.take(frozenset())
        self.walls.take(Wall())
        self.engine_sets.take(frozenset())

    def set_host(self, facts: HostFacts) -> None:
        """Add a host, or replace what is known of it."""
        assert not self.held.thoughts, "a host is set in no thought"
        row = self._rows.get(facts.name)
        if row is None:
            row = self._new_row(facts.name)
        before = _standing(self, row)
        self._give_back(row)
        # What an agent says twice counts once.
        nodes = list({node.id: node for node in facts.inventory.numa}.values())
        found = sorted({d.id: d for d in facts.inventory.devices}.values(), key=lambda d: d.id)
        gpus, others = [d for d in found if d.kind == "gpu"], [d for d in found if d.kind != "gpu"]
        self._widen(nodes=len(nodes), devices=len(gpus), others=len(others))
        self._devices[row] = gpus
        self._device_columns[row] = {device.id: column for column, device in enumerate(gpus)}
        self._node_columns[row] = {node.id: column for column, node in enumerate(nodes)}
        self._fill_host(row, facts)
        _stand_as(self, row, kind=HostClass.of(facts), holds=self.held.there(facts.name))
        self._fill_nodes(row, nodes, overcommit_milli=facts.overcommit_milli)
        self._fill_devices(row, gpus)
        self._fill_others(row, gpus=gpus, others=others, nodes=self._node_columns[row])
        self.device_cut[row, : len(gpus)] = self.cuts.begin(row, gpus, tables=facts.inventory.partitions)
        for hold in self.held.there(facts.name):
            self._apply(row, hold, sign=-1)
        self.facts += _standing(self, row) != before
        self.hosts += 1
        self._changed(row)

    def remove_host(self, name: str) -> None:
        """Forget a host; its holds stay, for it may come back."""
        assert not self.held.thoughts, "a host is removed in no thought"
        row = self._rows.pop(name, None)
        if row is None:
            return
        self._give_back(row)
        _stand_as(self, row, kind=None, holds=self.held.there(name))
        self._fill_nodes(row, (), overcommit_milli=0)
        self._fill_devices(row, ())
        self._fill_others(row, gpus=(), others=(), nodes={})
        self._leave_beside(row)
        self.present[row] = False
        self.names[row] = ""
        for kept in (self._devices, self._device_columns, self._node_columns):
            kept.pop(row, None)
        self._vacant.append(row)
        self.facts += 1
        self.hosts += 1
        self._changed(row)

    def hold(self, uid: str, hold: Hold) -> None:
        """Count a claim, in place of what was counted under ``uid`` before. Its host may come later."""
        before = self.held.of(uid)
        if before is hold or before == hold:
            return
        self.drop(uid)
        self.held.put(uid, hold)
        self.cuts.count(hold.device_profile, by=1)
        row = self._rows.get(hold.host)
        self.census.add(hold.shape, _class_at(self, row), count=1)
        if row is not None:
            self._apply(row, hold, sign=-1)
        self._changed(row)

    def drop(self, uid: str) -> Hold | None:
        """Count a claim no more; what was counted. Harmless when repeated."""
        hold = self.held.pop(uid)
        if hold is None:
            return None
        self.cuts.count(hold.device_profile, by=-1)
        row = self._rows.get(hold.host)
        self.census.add(hold.shape, _class_at(self, row), count=-1)
        if row is not None:
            self._apply(row, hold, sign=1)
        self._changed(row)
        return hold

    def view(self, rows: Ints) -> View:
        """Some rows alone, as they are now."""
        return View(self, rows)

    def row(self, name: str) -> int | None:
        return self._rows.get(name)

    def devices(self, row: int) -> Sequence[Device]:
        return self._devices[row]

    def node_ids(self, row: int) -> Sequence[int]:
        return list(self._node_columns[row])

    def _new_row(self, name: str) -> int:
        if self._vacant:
            row = self._vacant.pop()
            self.names[row] = name
        else:
            row = self.size
            if row == len(self.present):
                self._grow(rows=2 * row)
            self.size += 1
            self.names.append(name)
        self._rows[name] = row
        return row

    def _fill_host(self, row: int, facts: HostFacts) -> None:
        found = facts.inventory
        self.taints[row] = self._taint_sets.take(frozenset(facts.taints))
        self.wall[row] = self.walls.take(facts.wall)
        self.present[row] = True
        self.schedulable[row] = facts.schedulable
        self.reachable[row] = facts.reachable
        self.virtual[row] = found.virtualization != "none"
        self.isolated[row] = found.isolation != "none"
        self.engines[row] = self.engine_sets.take(frozenset(found.engines or UNSAID_ENGINES))
        self.fake[row] = found.fake
        self.sharing[row] = found.sharing != "none"
        self.handing[row] = found.passthrough
        offer = offer_of(found.nvlink_partitions, self._device_columns[row])
        self.offer[row] = NONE if offer is None else self.offers.take(offer)
        self.leaf[row] = self.switches.take(found.leaf) if found.leaf else NONE
        self.spine[row] = self.switches.take(found.spine) if found.spine else NONE

    def _fill_devices(self, row: int, gpus: Sequence[Device]) -> None:
        switches = _numbered(gpu.pcie_switch for gpu in gpus)
        domains = _numbered(gpu.nvlink_domain for gpu in gpus)
        self.device_model[row] = self.device_node[row] = self.device_switch[row] = self.device_nvlink[row] = NONE
        self.device_milli[row] = self.device_memory[row] = self.sizes[row] = 0
        self.device_sound[row] = False
        for column, gpu in enumerate(gpus):
            self.device_model[row, column] = self.models.take(gpu.model)
            self.device_node[row, column] = self._node_columns[row].get(gpu.numa_node, NONE)
            self.device_switch[row, column] = switches.get(gpu.pcie_switch, NONE)
            self.device_nvlink[row, column] = domains.get(gpu.nvlink_domain, NONE)
            self.device_memory[row, column] = gpu.memory_bytes
            self.device_sound[row, column] = gpu.healthy
            self.device_milli[row, column] = WHOLE

    def _changed(self, row: int | None) -> None:
        self._versions += 1
        self.version = self._versions
        if row is not None:
            self.changes.add(row)
            self.named.add(row)

    def _give_back(self, row: int) -> None:
        """The numbers that a host used."""
        if not self.present[row]:
            return
        self._leave_beside(row)
        self._taint_sets.give_back(int(self.taints[row]))
        self.walls.give_back(int(self.wall[row]))
        self.engine_sets.give_back(int(self.engines[row]))
        self.taints[row] = self.wall[row] = self.engines[row] = 0
        if self.offer[row] != NONE:
            self.offers.give_back(int(self.offer[row]))
            self.offer[row] = NONE
        self.cuts.end(row)
        self.device_cut[row] = NONE
        for above in (self.leaf, self.spine):
            if above[row] != NONE:
                self.switches.give_back(int(above[row]))
            above[row] = NONE
        models = self.device_model[row]
        for number in models[models != NONE]:
            self.models.give_back(int(number))
        models[:] = NONE

    def _apply(self, row: int, hold: Hold, *, sign: int) -> None:
        nodes, devices = self._node_columns[row], self._device_columns[row]
        for part in hold.allocations:
            column = nodes.get(part.numa_node)
            if column is not None:
                # Threads of its own take what they would be sold for by now, whatever that was when they were taken.
                own = len(parse_cpus(part.cpus)) * int(self.overcommit[row])
                self.cores_free[row, column] += sign * max(part.taken_milli_cores, own)
                self.memory_free[row, column] += sign * part.plain_bytes
        self._apply_beside(row, hold, sign=sign, nodes=nodes)
        held = set(hold.devices)
        for device in held & devices.keys():
            if hold.device_profile and self.cuts.at(row, devices[device]) != NONE:
                _recut(self, row, device=device)
            else:
                # Of what has an instance, and is said to be one piece now, nothing can be had.
                self.device_milli[row, devices[device]] += sign * (WHOLE if hold.device_profile else hold.device_milli)
        if held:
            size = 0 if hold.device_profile or hold.device_milli < WHOLE else min(len(held), SIZES - 1)
            self.sizes[row, size] -= sign


def set_wall(fleet: FleetArrays, host: str, *, wall: Wall) -> None:
    """What became of a host's wall alone, where the host is known."""
    row = fleet.row(host)
    if row is None or fleet.walls.all[int(fleet.wall[row])] == wall:
        return
    fleet.walls.give_back(int(fleet.wall[row]))
    fleet.wall[row] = fleet.walls.take(wall)
    fleet.facts += 1
    fleet._changed(None)


def set_open(fleet: FleetArrays, host: str, *, schedulable: bool) -> None:
    """Whether anything new may land on a host, where the host is known and nothing else of it changed."""
    row = fleet.row(host)
    if row is None or bool(fleet.schedulable[row]) == schedulable:
        return
    fleet.schedulable[row] = schedulable
    fleet.facts += 1
    fleet._changed(None)


def rename(fleet: FleetArrays, before: str, *, uid: str, hold: Hold) -> None:
    """Count ``hold`` under ``uid``, and what was counted under ``before``, if anything, no more. Where both take the
    same, nothing else is free than was, and the row is among ``named`` alone."""
    known = fleet.held.of(before)
    if known is None or fleet.held.of(uid) is not None or not (known is hold or known.takes_as(hold)):
        fleet.drop(before)
        fleet.hold(uid, hold)
        return
    fleet.held.pop(before)
    fleet.held.put(uid, hold)
    row = fleet.row(hold.host)
    fleet._changed(None)
    if row is not None:
        fleet.named.add(row)


def forked(fleet: FleetArrays) -> FleetArrays:
    """The same fleet for itself: holds that come and go there change nothing here. No host may be set in either, for
    what is known of hosts apart from holds is shared."""
    fork = copy(fleet)
    for name, value in vars(fleet).items():
        if isinstance(value, np.ndarray):
            setattr(fork, name, value.copy())
    fork.changes, fork.named, fork.held = Changes(), Changes(), fleet.held.copy()
    fork.census, fork.cuts = fleet.census.copy(), fleet.cuts.copy()
    fork._parts = dict(fleet._parts)
    return fork


def _recut(fleet: FleetArrays, row: int, *, device: str) -> None:
    """What instances have of a device, looked at anew: one that is held twice for a while is in use until both went."""
    column = fleet._device_columns[row][device]
    number = fleet.cuts.at(row, column)
    holds = [hold for hold in fleet.held.there(fleet.names[row]) if hold.device_profile and device in hold.devices]
    before = fleet.cuts.used(number)
    fleet.device_cut[row, column] = moved = fleet.cuts.move(
        row, column, instances=[(hold.device_profile, hold.device_start) for hold in holds]
    )
    fleet.device_milli[row, column] += WHOLE * (int(before != 0) - int(fleet.cuts.used(moved) != 0))


def _class_at(fleet: FleetArrays, row: int | None) -> HostClass | None:
    number = NONE if row is None else int(fleet.kind[row])
    return None if number == NONE else fleet.kinds.all[number]


def _stand_as(fleet: FleetArrays, row: int, *, kind: HostClass | None, holds: Iterable[Hold]) -> None:
    """The row's host is of that class from here on, and with it what it holds."""
    before = _class_at(fleet, row)
    for hold in holds:
        fleet.census.add(hold.shape, before, count=-1)
        fleet.census.add(hold.shape, kind, count=1)
    if before is not None:
        fleet.kinds.give_back(int(fleet.kind[row]))
    fleet.kind[row] = NONE if kind is None else fleet.kinds.take(kind)


def _standing(fleet: FleetArrays, row: int) -> tuple[object, ...]:
    """What of a row is not hardware, and no number of the fleet's."""
    return tuple(meaning(fleet, name, value=int(getattr(fleet, name)[row])) for name in _OPEN)


_OPEN = tuple(name for name, array in ARRAYS.items() if array.column.open)


def meaning(fleet: FleetArrays, name: str, *, value: int) -> object:
    """What a value of an array says: where that is the number of something, what it is the number of, None for
    `NONE`."""
    numbers = ARRAYS[name].column.numbers
    if not numbers:
        return value
    return None if value == NONE else getattr(fleet, numbers).all[value]


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """Each name's number, in order of arrival. What has no name is together with nothing."""
    return {name: number for number, name in enumerate(dict.fromkeys(filter(None, names)))}
