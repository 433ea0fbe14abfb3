"""The fleet as arrays: a row per host, a column per NUMA node or device.

What the arrays say is what `set_host` and `hold` were told and nothing else; an update touches its host's row alone.
Free may fall below zero where a host lost hardware under its claims, or sells less than it did. Column indices of NUMA
nodes, PCIe switches and NVLink domains are a host's own; models and sets of taints are numbered over the fleet, each as
long as a host has it. The arrays are as wide as the widest host that ever was, which `Inventory` bounds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bessemer.core.values import Allocation, Device, Inventory, NumaNode

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Smalls = NDArray[np.int32]

Named = TypeVar("Named", bound=Hashable)

NONE = -1
"""In an array of indices: there is none."""


@dataclass(frozen=True, slots=True)
class Wall:
    """Where a host stands, and the tenants that it is dedicated to: to none it is anybody's."""

    site: str = ""
    owners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What placement must know of one host. ``taints`` are keys; ``overcommit_milli`` 4000 sells a thread 4 times."""

    name: str
    inventory: Inventory
    overcommit_milli: int = 1000
    taints: tuple[str, ...] = ()
    wall: Wall = Wall()
    schedulable: bool = True
    reachable: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """What one claim holds of one host."""

    host: str
    devices: tuple[str, ...]
    allocations: tuple[Allocation, ...]


class Numbers(Generic[Named]):
    """Small numbers for what is in use. One that nobody uses any more is given to the next newcomer, so that hosts that
    keep changing their words use up neither numbers nor memory."""

    def __init__(self) -> None:
        self.all: list[Named] = []
        self._users: list[int] = []
        self._index: dict[Named, int] = {}
        self._vacant: list[int] = []

    def take(self, name: Named) -> int:
        """The number of ``name`` for one more user, a new one where it is new."""
        number = self._index.get(name)
        if number is None:
            number = self._index[name] = self._new(name)
        self._users[number] += 1
        return number

    def give_back(self, number: int) -> None:
        """One user less. ``all`` keeps the name until its number is given anew."""
        self._users[number] -= 1
        if not self._users[number]:
            del self._index[self.all[number]]
            self._vacant.append(number)

    def find(self, name: Named) -> int:
        """The number of ``name``, or `NONE`."""
        return self._index.get(name, NONE)

    def _new(self, name: Named) -> int:
        if self._vacant:
            number = self._vacant.pop()
            self.all[number] = name
            return number
        self.all.append(name)
        self._users.append(0)
        return len(self.all) - 1


class _Columns:
    """The storage of the arrays: it grows, and what grew keeps its values."""

    def _allocate(self, *, rows: int, nodes: int, devices: int) -> None:
        def bools(*shape: int) -> Bools:
            return np.zeros(shape, dtype=np.bool_)

        self.present, self.schedulable, self.reachable = bools(rows), bools(rows), bools(rows)
        self.virtual, self.isolated, self.fake = bools(rows), bools(rows), bools(rows)
        self.taints: Ints = np.zeros(rows, dtype=np.int64)
        self.wall: Ints = np.zeros(rows, dtype=np.int64)
        self.cores: Ints = np.zeros((rows, nodes), dtype=np.int64)
        self.memory: Ints = np.zeros((rows, nodes), dtype=np.int64)
        self.cores_free: Ints = np.zeros((rows, nodes), dtype=np.int64)
        self.memory_free: Ints = np.zeros((rows, nodes), dtype=np.int64)
        self.device_model: Smalls = np.full((rows, devices), NONE, dtype=np.int32)
        self.device_node: Smalls = np.full((rows, devices), NONE, dtype=np.int32)
        self.device_switch: Smalls = np.full((rows, devices), NONE, dtype=np.int32)
        self.device_nvlink: Smalls = np.full((rows, devices), NONE, dtype=np.int32)
        self.device_free = bools(rows, devices)
        self.device_sound = bools(rows, devices)

    def _widen(self, *, nodes: int, devices: int) -> None:
        if nodes > self.cores.shape[1] or devices > self.device_free.shape[1]:
            self._grow(rows=len(self.present), nodes=nodes, devices=devices)

    def _grow(self, *, rows: int, nodes: int = 0, devices: int = 0) -> None:
        old = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        self._allocate(
            rows=rows,
            nodes=max(nodes, self.cores.shape[1]),
            devices=max(devices, self.device_free.shape[1]),
        )
        for name, before in old.items():
            getattr(self, name)[tuple(slice(length) for length in before.shape)] = before


class FleetArrays(_Columns):
    """The arrays and what keeps them. Rows ``[:size]`` may be read; a row without ``present`` is nobody's."""

    def __init__(self) -> None:
        self.size = 0
        self.version = 0
        self.names: list[str] = []
        self.models: Numbers[str] = Numbers()
        self.walls: Numbers[Wall] = Numbers()
        self._taint_sets: Numbers[frozenset[str]] = Numbers()
        self._rows: dict[str, int] = {}
        self._vacant: list[int] = []
        self._devices: dict[int, Sequence[Device]] = {}
        self._device_columns: dict[int, dict[str, int]] = {}
        self._node_columns: dict[int, dict[int, int]] = {}
        self._holds: dict[str, Hold] = {}
        self._holds_by_host: dict[str, set[str]] = {}
        self._allocate(rows=16, nodes=2, devices=8)
        # Rows that are nobody's point to the first set of taints: there always is one.
        self._taint_sets.take(frozenset())
        self.walls.take(Wall())

    @property
    def taint_sets(self) -> Sequence[frozenset[str]]:
        """The sets to which `taints` points."""
        return self._taint_sets.all

    def set_host(self, facts: HostFacts) -> None:
        """Add a host, or replace what is known of it."""
        row = self._rows.get(facts.name)
        if row is None:
            row = self._new_row(facts.name)
        self._give_back(row)
        # What an agent says twice counts once.
        nodes = list({node.id: node for node in facts.inventory.numa}.values())
        gpus = sorted({d.id: d for d in facts.inventory.devices if d.kind == "gpu"}.values(), key=lambda d: d.id)
        self._widen(nodes=len(nodes), devices=len(gpus))
        self._devices[row] = gpus
        self._device_columns[row] = {device.id: column for column, device in enumerate(gpus)}
        self._node_columns[row] = {node.id: column for column, node in enumerate(nodes)}
        self._fill_host(row, facts)
        self._fill_nodes(row, nodes, overcommit_milli=facts.overcommit_milli)
        self._fill_devices(row, gpus)
        for uid in self._holds_by_host.get(facts.name, ()):
            self._apply(row, self._holds[uid], sign=-1)
        self.version += 1

    def remove_host(self, name: str) -> None:
        """Forget a host; its holds stay, for it may come back."""
        row = self._rows.pop(name, None)
        if row is None:
            return
        self._give_back(row)
        self.present[row] = False
        self.names[row] = ""
        for kept in (self._devices, self._device_columns, self._node_columns):
            kept.pop(row, None)
        self._vacant.append(row)
        self.version += 1

    def hold(self, uid: str, hold: Hold) -> None:
        """Count a claim, in place of what was counted under ``uid`` before. Its host may come later."""
        if self._holds.get(uid) == hold:
            return
        self.drop(uid)
        self._holds[uid] = hold
        self._holds_by_host.setdefault(hold.host, set()).add(uid)
        row = self._rows.get(hold.host)
        if row is not None:
            self._apply(row, hold, sign=-1)
        self.version += 1

    def drop(self, uid: str) -> None:
        """Count a claim no more. Harmless when repeated."""
        hold = self._holds.pop(uid, None)
        if hold is None:
            return
        others = self._holds_by_host[hold.host]
        others.discard(uid)
        row = self._rows.get(hold.host)
        if row is not None:
            # A device may be held twice for a while: by a claim that is gone unseen, and by the next.
            still = {device for other in others for device in self._holds[other].devices}
            free = tuple(device for device in hold.devices if device not in still)
            self._apply(row, replace(hold, devices=free), sign=1)
        if not others:
            del self._holds_by_host[hold.host]
        self.version += 1

    def row(self, name: str) -> int | None:
        """The row of a host."""
        return self._rows.get(name)

    def devices(self, row: int) -> Sequence[Device]:
        """The GPUs of a row, in the order of its columns."""
        return self._devices[row]

    def node_ids(self, row: int) -> Sequence[int]:
        """The NUMA nodes of a row, in the order of its columns."""
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
        self.fake[row] = found.fake

    def _fill_nodes(self, row: int, nodes: Sequence[NumaNode], *, overcommit_milli: int) -> None:
        self.cores[row] = self.memory[row] = 0
        for column, node in enumerate(nodes):
            self.cores[row, column] = node.threads * overcommit_milli
            self.memory[row, column] = node.memory_bytes
        self.cores_free[row] = self.cores[row]
        self.memory_free[row] = self.memory[row]

    def _fill_devices(self, row: int, gpus: Sequence[Device]) -> None:
        switches = _numbered(gpu.pcie_switch for gpu in gpus)
        domains = _numbered(gpu.nvlink_domain for gpu in gpus)
        self.device_model[row] = self.device_node[row] = self.device_switch[row] = self.device_nvlink[row] = NONE
        self.device_free[row] = self.device_sound[row] = False
        for column, gpu in enumerate(gpus):
            self.device_model[row, column] = self.models.take(gpu.model)
            self.device_node[row, column] = self._node_columns[row].get(gpu.numa_node, NONE)
            self.device_switch[row, column] = switches.get(gpu.pcie_switch, NONE)
            self.device_nvlink[row, column] = domains.get(gpu.nvlink_domain, NONE)
            self.device_sound[row, column] = gpu.healthy
            self.device_free[row, column] = True

    def _give_back(self, row: int) -> None:
        """The numbers that a host used."""
        if not self.present[row]:
            return
        self._taint_sets.give_back(int(self.taints[row]))
        self.walls.give_back(int(self.wall[row]))
        self.taints[row] = self.wall[row] = 0
        models = self.device_model[row]
        for number in models[models != NONE]:
            self.models.give_back(int(number))
        models[:] = NONE

    def _apply(self, row: int, hold: Hold, *, sign: int) -> None:
        nodes, devices = self._node_columns[row], self._device_columns[row]
        for part in hold.allocations:
            column = nodes.get(part.numa_node)
            if column is not None:
                self.cores_free[row, column] += sign * part.milli_cores
                self.memory_free[row, column] += sign * part.memory_bytes
        for device in hold.devices:
            if device in devices:
                self.device_free[row, devices[device]] = sign > 0


def set_wall(fleet: FleetArrays, host: str, *, wall: Wall) -> None:
    """What became of a host's wall alone, where the host is known."""
    row = fleet.row(host)
    if row is None or fleet.walls.all[int(fleet.wall[row])] == wall:
        return
    fleet.walls.give_back(int(fleet.wall[row]))
    fleet.wall[row] = fleet.walls.take(wall)
    fleet.version += 1


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """Each name's number, in order of arrival. What has no name is together with nothing."""
    return {name: number for number, name in enumerate(dict.fromkeys(filter(None, names)))}
