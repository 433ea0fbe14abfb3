"""`Arrays`: what a sight reads of a fleet, or of some rows of it.

A row per host, a column per NUMA node or device. Column indices of NUMA nodes, PCIe switches and NVLink domains are a
host's own; models, walls and sets of taints are numbered over the fleet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np

from bessemer.core.hosts import Device, NumaNode
from bessemer.placement.beside import Beside, Parts
from bessemer.placement.columns import DEVICES, NODES, Column, Width, declared
from bessemer.placement.facts import Wall
from bessemer.placement.hostclass import HostClass
from bessemer.placement.numbering import Numbers
from bessemer.placement.partitions import Offer
from bessemer.placement.slices.cuts import Cuts
from bessemer.placement.states import SIZES, States
from bessemer.placement.vectors import Bools, Ints, Smalls


class Arrays(Beside, ABC):
    """Rows ``[:size]`` may be read; a row without ``present`` is nobody's. Cores are thousandths, memory is bytes.
    ``device_milli`` [rows, devices] are free thousandths of each, sound or not; what is free may be below zero. Of a
    device that instances stand on none are free. ``device_cut`` [rows, devices] is its number in `cuts`, or `NONE`.
    ``device_memory`` [rows, devices] is what each has, 0 where nobody says it.
    ``offer`` [rows] is the number in `offers` of the NVLink partitions that a host offers, `NONE` where it says none.
    ``leaf`` and ``spine`` [rows] are the switches above a host, `NONE` where nobody says."""

    present: Annotated[Bools, Column(open=True)]
    schedulable: Annotated[Bools, Column(open=True)]
    reachable: Annotated[Bools, Column(open=True)]
    virtual: Annotated[Bools, Column(open=True)]
    handing: Annotated[Bools, Column(open=True)]
    isolated: Annotated[Bools, Column(open=True)]
    engines: Annotated[Ints, Column(open=True, numbers="engine_sets")]
    fake: Annotated[Bools, Column(open=True)]
    sharing: Annotated[Bools, Column()]
    taints: Annotated[Ints, Column(open=True, numbers="_taint_sets")]
    wall: Annotated[Ints, Column(open=True, numbers="walls")]
    leaf: Annotated[Smalls, Column(open=True, numbers="switches")]
    spine: Annotated[Smalls, Column(open=True, numbers="switches")]
    offer: Annotated[Smalls, Column(numbers="offers")]
    kind: Annotated[Smalls, Column(derived=True, numbers="kinds")]
    cores: Annotated[Ints, NODES]
    memory: Annotated[Ints, NODES]
    cores_free: Annotated[Ints, NODES]
    memory_free: Annotated[Ints, NODES]
    device_model: Annotated[Smalls, Column(("devices",), numbers="models")]
    device_node: Annotated[Smalls, DEVICES]
    device_switch: Annotated[Smalls, DEVICES]
    device_nvlink: Annotated[Smalls, DEVICES]
    device_milli: Annotated[Ints, DEVICES]
    device_memory: Annotated[Ints, DEVICES]
    device_sound: Annotated[Bools, DEVICES]
    device_cut: Annotated[Smalls, Column(("devices",), numbers="cuts")]
    sizes: Annotated[Ints, Column((SIZES,))]

    size: int
    names: list[str]
    models: Numbers[str]
    walls: Numbers[Wall]
    engine_sets: Numbers[frozenset[str]]
    """Sorts of engines that are on one host together."""
    switches: Numbers[str]
    """Names of leaves and spines; one name may stand for several, at several sites or under several spines."""
    kinds: Numbers[HostClass]
    offers: Numbers[Offer]
    cuts: Cuts
    taint_sets: Sequence[frozenset[str]]
    """The sets to which `taints` points."""

    @abstractmethod
    def row(self, name: str) -> int | None:
        """The row of a host."""

    @abstractmethod
    def devices(self, row: int) -> Sequence[Device]:
        """The GPUs of a row, in the order of its columns."""

    @abstractmethod
    def node_ids(self, row: int) -> Sequence[int]:
        """The NUMA nodes of a row, in the order of its columns."""

    def states(self, rows: Ints) -> States:
        """What policies look at of some rows, as it is now."""
        milli = np.where(self.device_sound[rows], np.maximum(self.device_milli[rows], 0), 0)
        return States(
            cores=np.maximum(self.cores_free[rows], 0).sum(axis=1),
            memory=np.maximum(self.memory_free[rows], 0).sum(axis=1),
            milli=milli,
            model=self.device_model[rows],
            sizes=self.sizes[rows],
            models=self.models.all,
            kind=self.kind[rows],
            kinds=self.kinds.all,
        )

    def _allocate(self, *, rows: int, nodes: int, devices: int, others: int) -> None:
        wide: Mapping[Width, int] = {"nodes": nodes, "devices": devices, "others": others}
        for name, array in ARRAYS.items():
            setattr(self, name, array.empty(rows, wide))

    def _fill_nodes(self, row: int, nodes: Sequence[NumaNode], *, overcommit_milli: int) -> None:
        self.cores[row] = self.memory[row] = 0
        for column, node in enumerate(nodes):
            self.cores[row, column] = node.threads * overcommit_milli
            self.memory[row, column] = node.plain_bytes
        self.cores_free[row] = self.cores[row]
        self.memory_free[row] = self.memory[row]
        self._fill_beside(row, nodes, overcommit_milli=overcommit_milli)

    def _widen(self, *, nodes: int, devices: int, others: int) -> None:
        wide = self.cores.shape[1], self.device_milli.shape[1], self.other_name.shape[1]
        if any(wanted > there for wanted, there in zip((nodes, devices, others), wide, strict=True)):
            self._grow(rows=len(self.present), nodes=nodes, devices=devices, others=others)

    def _grow(self, *, rows: int, nodes: int = 0, devices: int = 0, others: int = 0) -> None:
        """More room, in which all keeps its values."""
        old = {name: getattr(self, name) for name in ARRAYS}
        self._allocate(
            rows=rows,
            nodes=max(nodes, self.cores.shape[1]),
            devices=max(devices, self.device_milli.shape[1]),
            others=max(others, self.other_name.shape[1]),
        )
        for name, before in old.items():
            getattr(self, name)[tuple(slice(length) for length in before.shape)] = before


ARRAYS = declared(Arrays)
"""All that there are."""


class Glance(Arrays):
    """Some rows of a fleet, by numbers of their own, each array read when it is first asked for: for who is done with
    it before the fleet changes."""

    def __init__(self, fleet: Arrays, rows: Ints) -> None:
        self._fleet = fleet
        self._rows = rows
        self.size = len(rows)

    def __getattr__(self, name: str) -> Any:
        # Only for what is not there yet: whatever of the fleet's is an array stays here, narrowed.
        value = getattr(self._fleet, name)
        if isinstance(value, np.ndarray):
            value = value[self._rows]
            setattr(self, name, value)
        return value

    @cached_property
    def names(self) -> list[str]:  # type: ignore[override]
        return [self._fleet.names[row] for row in self._rows]

    def row(self, name: str) -> int | None:
        return self.names.index(name) if name in self.names else None

    def devices(self, row: int) -> Sequence[Device]:
        return self._fleet.devices(int(self._rows[row]))

    def node_ids(self, row: int) -> Sequence[int]:
        return self._fleet.node_ids(int(self._rows[row]))

    def parts(self, row: int) -> Parts:
        return self._fleet.parts(int(self._rows[row]))


class View(Glance):
    """Some rows of a fleet as they were when the view was made, by numbers of its own."""

    def __init__(self, fleet: Arrays, rows: Ints) -> None:
        super().__init__(fleet, rows)
        for name in ("names", *(name for name, value in vars(fleet).items() if isinstance(value, np.ndarray))):
            getattr(self, name)
