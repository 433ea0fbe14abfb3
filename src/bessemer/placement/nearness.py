"""Companions and closeness: which hosts have them as they are asked for, and what is said of those that have not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bessemer.core.asking import Reason, Request
from bessemer.placement.partitions import offered_sizes
from bessemer.placement.room import of_sort
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import WHOLE, Bools, Ints
from bessemer.placement.words import (
    best,
    companion_words,
    cores_words,
    device_words,
    memory_words,
    share_words,
    show_milli,
)


def wants_closeness(request: Request) -> bool:
    """Whether the request says how its parts must lie."""
    devices = request.device_count > 0 and (request.same_switch or request.same_nvlink)
    companions = any(one.near or one.rails for one in request.companions)
    return request.numa == "required" or devices or companions


def has_companions(sight: Sight) -> Bools:
    """[hosts]: what is to lie beside the devices is there, whoever holds it."""
    there = sight.everyone
    for one in sight.request.companions:
        there &= of_sort(sight.fleet, one, size=sight.size).sum(axis=1) >= one.count
    return there


def says_companions(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    """A reason for each companion that is the first that a host has not."""
    for one in sight.request.companions:
        there = of_sort(sight.fleet, one, size=sight.size).sum(axis=1)
        lacking = rejected & (there < one.count)
        rejected = rejected & ~lacking
        if lacking.any():
            yield Reason(
                "NoCompanion", int(lacking.sum()), f"without {companion_words(one)}{' on a rail' if one.rails else ''}"
            )


def has_free_companions(sight: Sight) -> Bools:
    """[hosts]: as much of it is free."""
    enough = sight.everyone
    for one, free in zip(sight.request.companions, sight.companions, strict=True):
        enough &= free.sum(axis=1) >= one.count
    return enough


def says_free_companions(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    """Likewise of what is free."""
    for one, free in zip(sight.request.companions, sight.companions, strict=True):
        count = free.sum(axis=1)
        lacking = rejected & (count < one.count)
        rejected = rejected & ~lacking
        if lacking.any():
            text = f"short of {companion_words(one)} ({best(int(lacking.sum()), int(count[lacking].max()))} free)"
            yield Reason("ShortOfCompanions", int(lacking.sum()), text)


def close(sight: Sight) -> Bools:
    """[hosts]: everything lies as near as it must."""
    if not wants_closeness(sight.request):
        return sight.everyone
    return sight.together(numa=sight.request.numa == "required")


def says_close(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    """What is in the way first: the devices among themselves, their node's cores and memory, what must be near them."""
    request = sight.request
    numa = request.numa == "required"
    alone = sight.devices_together(numa=numa)
    apart = rejected & ~alone
    unparted, told = _no_partition(sight, apart)
    yield from unparted
    apart = apart & ~told
    if apart.any() and numa:
        reasons, told = _short_nodes(sight, apart)
        yield from reasons
        apart = apart & ~told
    offering = apart & sight.offering
    if offering.any():
        near = " and one ".join(_musts(replace(request, same_nvlink=False)))
        text = f"with a free NVLink partition of {request.device_count}, but not on one {near}"
        yield Reason("NotTogether", int(offering.sum()), text)
    apart = apart & ~offering
    if apart.any():
        yield Reason("NotTogether", int(apart.sum()), f"with room, but not on one {' and one '.join(_musts(request))}")
    yield from _says_near(sight, rejected & alone)


def _no_partition(sight: Sight, apart: Bools) -> tuple[list[Reason], Bools]:
    """The hosts that offer NVLink partitions, and none as large, or none that is free; and which."""
    lacking = apart & sight.offering
    if not lacking.any():
        return [], lacking
    count = sight.request.device_count
    lacking[sight.partitions.rows] = False
    there = lacking & offered_sizes(sight.fleet, sight.size, count=count)
    found = (
        (lacking & ~there, f"without an NVLink partition of {count}"),
        (there, f"no free NVLink partition of {count}"),
    )
    return [Reason("NoPartition", int(hosts.sum()), text) for hosts, text in found if hosts.any()], lacking


def _musts(request: Request) -> list[str]:
    wanted = (
        (request.numa == "required", "NUMA node"),
        (request.same_switch and request.device_count, "PCIe switch"),
        (request.same_nvlink and request.device_count, "NVLink domain"),
    )
    return [place for must, place in wanted if must]


def _short_nodes(sight: Sight, apart: Bools) -> tuple[list[Reason], Bools]:
    """The hosts on which the devices are together on a node that has no cores or memory for them; and which."""
    rows, nodes = _candidates(sight, apart)
    request = sight.request
    short_cores = sight.cores_here[rows, nodes] < request.milli_cores
    short_memory = sight.memory_here[rows, nodes] < request.memory_bytes
    told = np.zeros(sight.size, dtype=np.bool_)
    told[rows] = True
    there = np.bincount(rows, minlength=sight.size)
    no_cores = np.bincount(rows, weights=short_cores, minlength=sight.size) == there
    no_memory = np.bincount(rows, weights=short_memory, minlength=sight.size) == there
    single = there == 1
    counts: Counter[tuple[str, str]] = Counter()
    for row, node in zip(rows.tolist(), nodes.tolist(), strict=True):
        if single[row]:
            counts[f"NUMA node {sight.fleet.node_ids(row)[node]}", "cores" if no_cores[row] else "memory"] += 1
    for lack, those in (("cores", no_cores), ("memory", no_memory & ~no_cores), ("both", ~no_cores & ~no_memory)):
        counts["each NUMA node", lack] += int((told & ~single & those).sum())
    figures = {"cores": cores_words(request), "memory": memory_words(request)}
    figures["both"] = f"{figures['cores']} or {figures['memory']}"
    return [
        Reason("ShortOnNode", hosts, f"{node} short of {figures[lack]}")
        for (node, lack), hosts in sorted(counts.items())
        if hosts
    ], told


def _candidates(sight: Sight, apart: Bools) -> tuple[Ints, Ints]:
    """Rows and nodes on which the devices are together, whatever else is there."""
    fleet, request = sight.fleet, sight.request
    if request.device_count:
        near = [fleet.device_node]
        near += [fleet.device_switch] if request.same_switch else []
        near += [fleet.device_nvlink] if request.same_nvlink else []
        groups = sight.groups(*near)
        enough = (groups.counts >= request.device_count) & (apart & ~sight.offering)[groups.rows]
        found = np.stack([groups.rows[enough], groups.leads[enough]])
        if (apart & sight.offering).any():
            parts = sight.partitions
            some, nodes = _candidates(parts.apart, apart[parts.rows])
            found = np.concatenate([found, np.stack([parts.rows[some], nodes])], axis=1)
        pairs = np.unique(found, axis=1)
        return pairs[0], pairs[1]
    held = (sight.fleet.cores[: sight.size] > 0) & apart[:, None]
    rows, nodes = np.nonzero(held)
    return rows, nodes


def _says_near(sight: Sight, rejected: Bools) -> Iterator[Reason]:
    """Of hosts on which the devices can lie, but not with their companions."""
    request = sight.request
    numa = request.numa == "required"
    for one in request.companions:
        if not rejected.any():
            return
        alone = replace(sight, request=replace(request, companions=(one,))).together(numa=numa)
        lacking = rejected & ~alone
        rejected = rejected & alone
        if lacking.any():
            depth = "PCIe switch" if one.near == "switch" else "NUMA node"
            rails = " on different rails" if one.rails else ""
            whose = f"of {_devices(request)}" if request.device_count else "with its cores"
            where = f" {'under' if one.near == 'switch' else 'on'} the {depth} {whose}" if one.near or numa else ""
            yield Reason("NotNear", int(lacking.sum()), f"no {companion_words(one)}{rails}{where}")
    if rejected.any():
        names = " and ".join(companion_words(one) for one in request.companions)
        yield Reason("NotNear", int(rejected.sum()), f"no {names} near {_devices(request)} at once")


def _devices(request: Request) -> str:
    if request.device_milli < WHOLE:
        if request.device_bytes:
            return f"{share_words(request)} free"
        return f"{show_milli(request.device_milli)} free {device_words(request)}"
    return f"{request.device_count} free {device_words(request)}"
