"""`Beside`: the arrays of what a host has beside devices, cores and memory, and what is free of it.

Companions are devices of any kind but GPUs, whole or by their virtual functions; hardware threads are counted as far as
their numbers are known; huge pages by size. As with the rest, what is free is what there is less what holds name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from bessemer.core.asking import Allocation
from bessemer.core.beside import PAGE_SIZES
from bessemer.core.cpus import parse_cpus, parse_each
from bessemer.core.hosts import Device, NumaNode
from bessemer.placement import columns
from bessemer.placement.facts import Hold
from bessemer.placement.numbering import Numbers
from bessemer.placement.vectors import NONE, Bools, Ints, Smalls

Cores = tuple[tuple[int, ...], ...]
"""Hardware threads by number, each physical core's together."""

Cell = tuple[int, int, int]
"""Where something lies: NUMA node, PCIe switch, and NVLink domain or rail, by their columns or numbers."""

GPUS, OTHERS = 0, 1

Topology = tuple[tuple[Cell, ...], tuple[Cell, ...]]
"""The cells of a host in which devices lie, and those of what lies beside them."""


Layouts = dict[tuple[Hashable, ...], dict[bytes, tuple[Topology, bool]]]
"""By what is wanted, and then by what is free: in which topology, and whether there is a way to lie."""


@dataclass(slots=True)
class Parts:
    """What of a host is no number: ``others`` by column, ``cores`` by column of the node, and how many have a thread
    of their own: two may for a while."""

    others: Sequence[Device] = ()
    columns: Mapping[str, int] = field(default_factory=dict)
    cores: Sequence[Cores] = ()
    own: Counter[int] = field(default_factory=Counter)


def numbered(names: Sequence[str]) -> dict[str, int]:
    """Each name's number, in order of arrival. What has no name is together with nothing."""
    return {name: number for number, name in enumerate(dict.fromkeys(filter(None, names)))}


_PAGES = columns.Column(("nodes", len(PAGE_SIZES)))


class Beside:
    """A part of `Arrays`. ``device_rail`` [rows, devices] are as `rails_of` says. ``other_used`` [rows, others] are
    functions held, ``other_whole`` how many hold it whole; ``threads_free`` [rows, nodes] those that nobody has of
    their own, ``wholes_free`` physical cores likewise, each of ``smt`` threads; ``pages_free`` [rows, nodes, sizes] by
    `PAGE_SIZES`. ``…_all`` is what an empty host has."""

    other_name: Annotated[Smalls, columns.Column(("others",), numbers="other_names")]
    other_cell: Annotated[Smalls, columns.OTHERS]
    other_rail: Annotated[Smalls, columns.OTHERS]
    other_node: Annotated[Smalls, columns.OTHERS]
    other_sound: Annotated[Bools, columns.OTHERS]
    other_functions: Annotated[Ints, columns.OTHERS]
    other_used: Annotated[Ints, columns.OTHERS]
    other_whole: Annotated[Ints, columns.OTHERS]
    device_cell: Annotated[Smalls, columns.DEVICES]
    device_rail: Annotated[Smalls, columns.DEVICES]
    topology: Annotated[Smalls, columns.Column(numbers="topologies")]
    overcommit: Annotated[Ints, columns.Column(vacant=1)]
    threads_all: Annotated[Ints, columns.NODES]
    threads_free: Annotated[Ints, columns.NODES]
    wholes_all: Annotated[Ints, columns.NODES]
    wholes_free: Annotated[Ints, columns.NODES]
    smt: Annotated[Ints, columns.NODES]
    pages_all: Annotated[Ints, _PAGES]
    pages_free: Annotated[Ints, _PAGES]

    other_names: Numbers[tuple[str, str]]
    topologies: Numbers[Topology]
    layouts: Layouts
    """Kept by `cells`, for it is dear: nothing that hosts are."""

    def _begin_beside(self) -> None:
        self.other_names = Numbers()
        self.topologies = Numbers()
        self._parts: dict[int, Parts] = {}
        self.layouts: Layouts = {}
        self._cores_known: dict[tuple[str, ...], Cores] = {}

    def parts(self, row: int) -> Parts:
        """What of a row is no number."""
        return self._parts.get(row, Parts())

    def _fill_beside(self, row: int, nodes: Sequence[NumaNode], *, overcommit_milli: int) -> None:
        """Of an empty host, but for its devices."""
        self.overcommit[row] = max(1, overcommit_milli)
        for array in (self.threads_all, self.wholes_all, self.smt, self.pages_all):
            array[row] = 0
        cores = [self._cores_of(node) for node in nodes]
        self._parts[row] = Parts(cores=cores)
        for column, (node, siblings) in enumerate(zip(nodes, cores, strict=True)):
            self.threads_all[row, column] = sum(map(len, siblings))
            self.smt[row, column] = smt = usual(siblings)
            self.wholes_all[row, column] = sum(len(core) == smt for core in siblings)
            for number, size in enumerate(PAGE_SIZES):
                self.pages_all[row, column, number] = min(node.hugepages.get(str(size), 0), node.memory_bytes // size)
        self.threads_free[row], self.wholes_free[row] = self.threads_all[row], self.wholes_all[row]
        self.pages_free[row] = self.pages_all[row]

    def _fill_others(
        self, row: int, *, gpus: Sequence[Device], others: Sequence[Device], nodes: Mapping[int, int]
    ) -> None:
        """The devices of an empty host, and how they lie to each other; ``nodes`` are columns by NUMA node."""
        switches = numbered([device.pcie_switch for device in (*gpus, *others)])
        domains = numbered([gpu.nvlink_domain for gpu in gpus])

        def cell(device: Device, third: int) -> Cell:
            return nodes.get(device.numa_node, NONE), switches.get(device.pcie_switch, NONE), third

        places = (
            [cell(gpu, domains.get(gpu.nvlink_domain, NONE)) for gpu in gpus],
            [cell(other, NONE if other.rail is None else other.rail) for other in others],
        )
        cells = tuple({place: number for number, place in enumerate(dict.fromkeys(found))} for found in places)
        parts = self._parts[row]
        parts.others, parts.columns = others, {device.id: column for column, device in enumerate(others)}
        self.topology[row] = self.topologies.take((tuple(cells[GPUS]), tuple(cells[OTHERS])))
        for array in (self.device_cell, self.other_cell, self.other_node, self.other_rail, self.other_name):
            array[row] = NONE
        self.device_rail[row] = NONE
        self.device_rail[row, : len(gpus)] = rails_of(gpus, others)
        self.other_functions[row] = self.other_used[row] = self.other_whole[row] = 0
        self.other_sound[row] = False
        for column, place in enumerate(places[GPUS]):
            self.device_cell[row, column] = cells[GPUS][place]
        for column, (other, place) in enumerate(zip(others, places[OTHERS], strict=True)):
            self.other_cell[row, column] = cells[OTHERS][place]
            self.other_node[row, column], self.other_rail[row, column] = place[0], place[2]
            self.other_name[row, column] = self.other_names.take((other.kind, other.model))
            self.other_functions[row, column] = other.functions
            self.other_sound[row, column] = other.healthy and not other.in_use

    def _leave_beside(self, row: int) -> None:
        """The numbers that a host used."""
        names = self.other_name[row]
        for number in names[names != NONE]:
            self.other_names.give_back(int(number))
        names[:] = NONE
        if self.topology[row] != NONE:
            self.topologies.give_back(int(self.topology[row]))
            self.topology[row] = NONE
        self._parts.pop(row, None)

    def _apply_beside(self, row: int, hold: Hold, *, sign: int, nodes: Mapping[int, int]) -> None:
        """Count what a hold names, or count it no more."""
        parts = self._parts[row]
        for use in {use.device: use for use in hold.companions}.values():
            column = parts.columns.get(use.device)
            if column is not None and use.functions:
                self.other_used[row, column] += -sign * use.functions
            elif column is not None:
                self.other_whole[row, column] -= sign
        for part in hold.allocations:
            place = nodes.get(part.numa_node)
            if place is not None and part.cpus:
                self._own(row, part, place=place, sign=-sign)
            if place is not None and part.page_bytes in PAGE_SIZES:
                pages = part.memory_bytes // part.page_bytes
                self.pages_free[row, place, PAGE_SIZES.index(part.page_bytes)] += sign * pages

    def _own(self, row: int, part: Allocation, *, place: int, sign: int) -> None:
        # Another, and not the same changed: a fork of the fleet has it too.
        parts = self._parts[row] = replace(self._parts[row], own=self._parts[row].own.copy())
        own, siblings, smt = parts.own, parts.cores[place], int(self.smt[row, place])
        for cpu in parse_cpus(part.cpus):
            own[cpu] += sign
        self.threads_free[row, place] = sum(own[cpu] <= 0 for core in siblings for cpu in core)
        self.wholes_free[row, place] = sum(
            len(core) == smt and not any(own[cpu] > 0 for cpu in core) for core in siblings
        )

    def _cores_of(self, node: NumaNode) -> Cores:
        """The node's cores; none where its report makes no sense. Hosts are alike: each word is read once."""
        words = tuple(node.siblings)
        known = self._cores_known.get(words)
        if known is None:
            known = cores_of(words)
            if len(self._cores_known) < _KNOWN_MAX:
                self._cores_known[words] = known
        return known if sum(map(len, known)) <= node.threads else ()


BESIDE = columns.declared(Beside).keys()
"""The arrays of `Beside`: a request that asks for none of it is answered alike whatever they hold."""

_KNOWN_MAX = 1024


def rails_of(gpus: Sequence[Device], others: Sequence[Device]) -> list[int]:
    """The rail of each GPU: its own, or that of what is under its PCIe switch, where all of that is on one."""
    there: dict[str, set[int]] = {}
    for other in others:
        if other.pcie_switch and other.rail is not None:
            there.setdefault(other.pcie_switch, set()).add(other.rail)
    near = {switch: min(rails) for switch, rails in there.items() if len(rails) == 1}
    return [near.get(gpu.pcie_switch, NONE) if gpu.rail is None else gpu.rail for gpu in gpus]


def cores_of(siblings: Sequence[str]) -> Cores:
    """Threads by core, as an agent says; none where one is said twice, or is none."""
    try:
        cores = tuple(sorted(filter(None, parse_each(siblings))))
    except ValueError:
        return ()
    threads = [cpu for core in cores for cpu in core]
    return cores if len(threads) == len(set(threads)) else ()


def usual(cores: Cores) -> int:
    """How many threads most of the cores have, the more of two; 0 without any. Of others none is given whole."""
    sizes = Counter(map(len, cores))
    return max(sizes, key=lambda size: (sizes[size], size), default=0)
