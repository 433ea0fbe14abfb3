"""The fleet as arrays: a row per host, a column per NUMA node or device.

What the arrays say is what `set_host` and `hold` were told and nothing else; an update touches its host's row alone.
Free may fall below zero where a host lost hardware under its claims, or sells less than it did. Column indices of NUMA
nodes, PCIe switches and NVLink domains are a host's own; models, taints and places are numbered over the fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bessemer.core.values import Allocation, Device, Inventory

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Smalls = NDArray[np.int16]

NONE = -1
"""In an array of indices: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What placement must know of one host. ``taints`` are keys; ``overcommit_milli`` 4000 sells a thread 4 times."""

    name: str
    inventory: Inventory
    overcommit_milli: int = 1000
    taints: tuple[str, ...] = ()
    schedulable: bool = True
    reachable: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """What one claim holds of one host."""

    host: str
    devices: tuple[str, ...]
    allocations: tuple[Allocation, ...]


class Names:
    """Strings as small numbers, in order of arrival."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._index: dict[str, int] = {}

    def index(self, name: str) -> int:
        """The number of ``name``, a new one where it is new."""
        found = self._index.get(name)
        if found is None:
            found = self._index[name] = len(self.all)
            self.all.append(name)
        return found

    def find(self, name: str) -> int:
        """The number of ``name``, or `NONE`."""
        return self._index.get(name, NONE)


class _Columns:
    """The storage of the arrays: it grows, and what grew keeps its values."""

    def _allocate(self, *, rows: int, nodes: int, devices: int) -> None:
        def bools(*shape: int) -> Bools:
            return np.zeros(shape, dtype=np.bool_)

        self.present, self.schedulable, self.reachable = bools(rows), bools(rows), bools(rows)
        self.virtual, self.isolated, self.fake = bools(rows), bools(rows), bools(rows)
        self.taints: Ints = np.zeros(rows, dtype=np.int64)
        self.site: Ints = np.zeros(rows, dtype=np.int64)
        self.leaf: Ints = np.zeros(rows, dtype=np.int64)
        self.spine: Ints = np.zeros(rows, dtype=np.int64)
        self.cores: Ints = np.zeros((rows, nodes), dtype=np.int64)
        self.memory: Ints = np.zeros((rows, nodes), dtype=np.int64)
        self.cores_free: Ints = np.zeros((rows, nodes), dtype=np.int64)
        self.memory_free: Ints = np.zeros((rows, nodes), dtype=np.int64)
        self.device_model: Smalls = np.full((rows, devices), NONE, dtype=np.int16)
        self.device_node: Smalls = np.full((rows, devices), NONE, dtype=np.int16)
        self.device_switch: Smalls = np.full((rows, devices), NONE, dtype=np.int16)
        self.device_nvlink: Smalls = np.full((rows, devices), NONE, dtype=np.int16)
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
        self.models = Names()
        self.places = Names()
        self.taint_sets: list[frozenset[str]] = [frozenset()]
        self.switch_count = 0
        self.nvlink_count = 0
        self._rows: dict[str, int] = {}
        self._vacant: list[int] = []
        self._facts: dict[int, HostFacts] = {}
        self._devices: dict[int, Sequence[Device]] = {}
        self._device_columns: dict[int, dict[str, int]] = {}
        self._node_columns: dict[int, dict[int, int]] = {}
        self._holds: dict[str, Hold] = {}
        self._holds_by_host: dict[str, set[str]] = {}
        self._allocate(rows=16, nodes=2, devices=8)

    def set_host(self, facts: HostFacts) -> None:
        """Add a host, or replace what is known of it."""
        row = self._rows.get(facts.name)
        if row is None:
            row = self._new_row(facts.name)
        gpus = sorted((d for d in facts.inventory.devices if d.kind == "gpu"), key=lambda d: d.id)
        self._widen(nodes=len(facts.inventory.numa), devices=len(gpus))
        self._facts[row] = facts
        self._devices[row] = gpus
        self._device_columns[row] = {device.id: column for column, device in enumerate(gpus)}
        self._node_columns[row] = {node.id: column for column, node in enumerate(facts.inventory.numa)}
        self._fill_host(row, facts)
        self._fill_devices(row, gpus)
        for uid in self._holds_by_host.get(facts.name, ()):
            self._apply(row, self._holds[uid], sign=-1)
        self.version += 1

    def remove_host(self, name: str) -> None:
        """Forget a host; its holds stay, for it may come back."""
        row = self._rows.pop(name, None)
        if row is None:
            return
        self.present[row] = False
        self.names[row] = ""
        for kept in (self._facts, self._devices, self._device_columns, self._node_columns):
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
        self._holds_by_host[hold.host].discard(uid)
        row = self._rows.get(hold.host)
        if row is not None:
            self._apply(row, hold, sign=1)
        self.version += 1

    def held(self, uid: str) -> Hold | None:
        """What is counted under ``uid``."""
        return self._holds.get(uid)

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
        self.present[row] = True
        self.schedulable[row] = facts.schedulable
        self.reachable[row] = facts.reachable
        self.virtual[row] = found.virtualization != "none"
        self.isolated[row] = found.isolation != "none"
        self.fake[row] = found.fake
        self.taints[row] = self._taint_set(facts.taints)
        self.site[row], self.leaf[row], self.spine[row] = map(
            self.places.index, (f"site {found.site}", f"leaf {found.leaf}", f"spine {found.spine}")
        )
        for total in (self.cores, self.memory):
            total[row] = 0
        for column, node in enumerate(found.numa):
            self.cores[row, column] = node.threads * facts.overcommit_milli
            self.memory[row, column] = node.memory_bytes
        self.cores_free[row] = self.cores[row]
        self.memory_free[row] = self.memory[row]

    def _fill_devices(self, row: int, gpus: Sequence[Device]) -> None:
        switches, domains = Names(), Names()
        self.device_model[row] = self.device_node[row] = self.device_switch[row] = self.device_nvlink[row] = NONE
        self.device_free[row] = self.device_sound[row] = False
        for column, gpu in enumerate(gpus):
            self.device_model[row, column] = self.models.index(gpu.model)
            self.device_node[row, column] = self._node_columns[row].get(gpu.numa_node, NONE)
            # Devices of which nobody knows the switch are not together on one.
            self.device_switch[row, column] = switches.index(gpu.pcie_switch) if gpu.pcie_switch else NONE
            self.device_nvlink[row, column] = domains.index(gpu.nvlink_domain) if gpu.nvlink_domain else NONE
            self.device_sound[row, column] = gpu.healthy
            self.device_free[row, column] = True
        self.switch_count = max(self.switch_count, len(switches.all))
        self.nvlink_count = max(self.nvlink_count, len(domains.all))

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

    def _taint_set(self, keys: Iterable[str]) -> int:
        taints = frozenset(keys)
        if taints not in self.taint_sets:
            self.taint_sets.append(taints)
        return self.taint_sets.index(taints)
