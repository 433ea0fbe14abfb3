"""The machine that an Instance is on its host, out of its Claim: nodes, threads, pages and devices as they were
decided. Pure.

A guest has NUMA nodes where its host's are felt: where it has threads or pages of its own, devices, or a place on
several nodes. Its nodes are those of the decision, in order, whatever their numbers on the host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bessemer.core.units import MIB
from bessemer.core.values import ClaimSpec
from bessemer.drivers.passthrough.protocol import Handed, Wanted
from bessemer.drivers.qemu.protocol import GuestDevice, NumaCell


def wanted_of(spec: ClaimSpec) -> tuple[Wanted, ...]:
    """What is to be handed into the guest: its devices and what it has beside them. Of a share of a device nothing can
    be, and a Claim from before trees were said has none."""
    functions = {use.device: use.functions for use in spec.companions}
    had_whole = () if spec.shared else spec.devices
    return tuple(
        Wanted(place.device, place.kind, place.address, functions=functions.get(place.device, 0))
        for place in spec.tree
        if place.device in functions or place.device in had_whole
    )


def tree_of(spec: ClaimSpec, handed: Sequence[Handed]) -> tuple[GuestDevice, ...]:
    """Where in the guest each of them hangs: functions where the device hangs that they are of."""
    places = {place.device: place for place in spec.tree}
    return tuple(
        GuestDevice(one.device, one.properties, switch=place.switch, host_node=place.numa_node)
        for one in handed
        if (place := places.get(one.device)) is not None
    )


def cells_of(spec: ClaimSpec, *, cpus: int, memory_bytes: int) -> tuple[NumaCell, ...]:
    """The guest's NUMA nodes; () for one that lies wherever there is room on one node of its host."""
    parts = sorted((part for part in spec.allocations), key=lambda part: part.numa_node)
    nodes = sorted({part.numa_node for part in parts})
    if not nodes or not (len(nodes) > 1 or spec.pinned or spec.tree):
        return ()
    cores, memory, own = Counter[int](), Counter[int](), dict[int, list[str]]()
    for part in parts:
        cores[part.numa_node] += part.milli_cores
        memory[part.numa_node] += part.memory_bytes
        own.setdefault(part.numa_node, []).extend(filter(None, [part.cpus]))
    counts = _shares([cores[node] for node in nodes], cpus, unit=1)
    unit = max([part.page_bytes for part in parts] + [MIB])
    sizes = _shares([memory[node] for node in nodes], memory_bytes, unit=unit)
    rows = zip(nodes, counts, sizes, strict=True)
    return tuple(NumaCell(n, size, host_node=node, own_cpus=",".join(own[node])) for node, n, size in rows if n or size)


def _shares(of: Sequence[int], whole: int, *, unit: int) -> list[int]:
    """The whole in the proportions of ``of``, in units of which nothing is split; the rest is the first's. What adds
    up already is left as it is."""
    if sum(of) == whole and not any(one % unit for one in of[1:]):
        return list(of)
    total = sum(of) or 1
    found = [(whole * one // total) // unit * unit for one in of]
    found[max(range(len(of)), key=lambda n: of[n])] += whole - sum(found)
    return found
