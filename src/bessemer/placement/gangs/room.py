"""How many members of a gang fit on a host at once."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from bessemer.core.asking import Needs, Request
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import NONE, WHOLE, Bools, Ints

COUNTED = frozenset(
    {
        "milli_cores",
        "memory_bytes",
        "device_count",
        "device_milli",
        "device_bytes",
        "device_models",
        "numa",
        "same_switch",
        "same_nvlink",
        "cpu_policy",
        "page_bytes",
    }
)
"""What of `Needs` is understood here well enough to put several on one host. Of who may land there nothing need be."""

_NOT_COUNTED = tuple((need.name, need.default) for need in fields(Needs) if need.name not in COUNTED)

_ANY = 1 << 31
"""As many as one likes, where nothing is asked for."""


def understood(request: Request) -> bool:
    """Whether it asks for nothing else."""
    return all(getattr(request, name) == default for name, default in _NOT_COUNTED)


def room(sight: Sight, *, most: int) -> Ints:
    """[hosts]: how many fit at once, ``most`` at most; only of hosts that fit one at all does it say anything.

    Exact: members are equal, and each takes its devices of one group that is as near as must be (a NUMA node, a PCIe
    switch, an NVLink domain, or all of a host), so a group of n devices serves n // count of them, whichever they
    take; threads of their own, cores and huge pages are taken of a node in equal pieces. NVLink partitions serve one
    each. Of what is not understood one goes to a host, and one where partitions have devices in common.
    """
    ask = sight.request
    if not understood(ask):
        return np.ones(sight.size, dtype=np.int64)
    # Of NVLink partitions that have devices in common it depends on which is taken first how many more there are.
    most_here = np.where(_overlapping(sight), min(most, 1), most) if sight.offering.any() else most
    if ask.numa == "required":
        return np.minimum(_by_node(sight, most), most_here)
    memory = _times(sight.memory_sum, ask.memory_bytes)
    counts: Ints = np.minimum(np.minimum(_by_cores(sight), memory), np.minimum(_by_devices(sight), most_here))
    return counts


def _overlapping(sight: Sight) -> Bools:
    """[hosts]: whether two of the free NVLink partitions have a device in common."""
    parts = sight.partitions
    taken = np.zeros(sight.able.shape, dtype=np.int64)
    np.add.at(taken, (parts.rows[:, None], parts.columns), 1)
    several: Bools = taken.max(axis=1, initial=0) > 1
    return several


def _times(free: Ints, each: int) -> Ints:
    return np.maximum(free, 0) // each if each else np.full(free.shape, _ANY, dtype=np.int64)


def _by_cores(sight: Sight) -> Ints:
    """[hosts]: for how many there are cores, of whichever nodes. Whole cores are taken up to the last thread that is
    wanted: so many to each, where all have equally many threads; else one member is thought to fit."""
    ask = sight.request
    if ask.cpu_policy != "cores" or not ask.milli_cores:
        return _times(sight.cores_sum, ask.milli_cores)
    smt = sight.fleet.smt[: sight.size]
    most, least = smt.max(axis=1), np.where(smt > 0, smt, smt.max(axis=1, keepdims=True)).min(axis=1)
    counts = _wholes(sight).sum(axis=1) // _each(sight, most)
    return np.where(most == least, counts, np.minimum(_times(sight.cores_sum, ask.milli_cores), 1))


def _cores_by_node(sight: Sight) -> Ints:
    """[hosts, nodes]: the same on one node each."""
    ask = sight.request
    if ask.cpu_policy != "cores" or not ask.milli_cores:
        return _times(sight.cores_here, ask.milli_cores)
    counts: Ints = _wholes(sight) // _each(sight, sight.fleet.smt[: sight.size])
    return counts


def _wholes(sight: Sight) -> Ints:
    """[hosts, nodes]: cores that a node can give whole."""
    smt = sight.fleet.smt[: sight.size]
    wholes: Ints = sight.cores_here // (1000 * np.maximum(smt, 1))
    return wholes


def _each(sight: Sight, smt: Ints) -> Ints:
    """How many cores of ``smt`` threads a member takes."""
    each: Ints = -(-sight.request.milli_cores // (1000 * np.maximum(smt, 1)))
    return each


def _by_devices(sight: Sight) -> Ints:
    """[hosts]: for how many there are devices, wherever cores and memory are."""
    ask, fleet = sight.request, sight.fleet
    if not ask.device_count:
        return np.full(sight.size, _ANY, dtype=np.int64)
    if ask.device_milli < WHOLE:
        shares: Ints = np.where(sight.able, sight.device_milli // sight.each, 0).sum(axis=1)
        return shares
    near = [fleet.device_switch] if ask.same_switch else []
    near += [fleet.device_nvlink] if ask.same_nvlink else []
    if not near:
        return sight.usable_count // ask.device_count
    groups = sight.groups(*near)
    counts = np.zeros(sight.size, dtype=np.int64)
    np.add.at(counts, groups.rows, groups.counts // ask.device_count)
    if sight.offering.any():
        parts = sight.partitions
        counts[sight.offering] = 0
        np.add.at(counts, parts.rows, parts.apart.devices_together(numa=False))
    return counts


def _by_node(sight: Sight, most: int) -> Ints:
    """[hosts]: each with all that it wants on one NUMA node."""
    ask = sight.request
    counts = np.minimum(_cores_by_node(sight), _times(sight.memory_here, ask.memory_bytes))
    if ask.device_count:
        counts = np.minimum(counts, _devices_by_node(sight))
    total: Ints = np.minimum(counts, most).sum(axis=1)
    return total


def _devices_by_node(sight: Sight) -> Ints:
    """[hosts, nodes]: for how many there are devices on each node."""
    ask, fleet = sight.request, sight.fleet
    counts = np.zeros(sight.cores_free.shape, dtype=np.int64)
    if ask.device_milli < WHOLE:
        rows, columns = np.nonzero(sight.able & (fleet.device_node[: sight.size] != NONE))
        shares = sight.device_milli[rows, columns] // sight.each[rows, columns]
        np.add.at(counts, (rows, fleet.device_node[rows, columns]), shares)
        return counts
    near = [fleet.device_switch] if ask.same_switch else []
    near += [fleet.device_nvlink] if ask.same_nvlink else []
    groups = sight.groups(fleet.device_node, *near)
    np.add.at(counts, (groups.rows, groups.leads), groups.counts // ask.device_count)
    if sight.offering.any():
        parts = sight.partitions
        counts[sight.offering] = 0
        found = _devices_by_node(parts.apart)
        np.add.at(counts, parts.rows, found)
    return counts
