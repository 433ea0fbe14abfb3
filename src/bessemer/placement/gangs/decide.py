"""`decide_gang`: members placed one after the other, in the nearest domain that takes them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bessemer.core.values import Decision, Gang, GangDecision, Level, Reason, Refusal
from bessemer.placement.arrays import Arrays
from bessemer.placement.choose import place
from bessemer.placement.filters import fitting, sift
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import NONE, Bools, Ints

LEVELS: Sequence[Level] = ("host", "leaf", "spine", "site")


def decide_gang(fleet: Arrays, gang: Gang) -> GangDecision | Refusal:
    """Where all members of ``gang`` go now. The decision holds only as long as nobody else takes the same."""
    sight = Sight.of(fleet, gang.member)
    fits, reasons = sift(sight)
    above = {level: _domains(fleet, level) for level in LEVELS}
    first = LEVELS.index(gang.level)
    wider = () if gang.policy == "required" else LEVELS[first + 1 :]
    for level in (*LEVELS[: first + 1], *wider):
        for domain in np.unique(above[level][fits]):
            members = _filled(sight, fits & (above[level] == domain), gang=gang, blocks=above[gang.segment_level])
            if members is not None:
                rows = [fleet.row(member.host) for member in members]
                leaves, spines = (len({int(above[level][row]) for row in rows}) for level in ("leaf", "spine"))
                return GangDecision(members=tuple(members), leaves=leaves, spines=spines)
    some = Reason("NotTogether", int(fits.sum()), f"with room, but not for {gang.count} members under one {gang.level}")
    return Refusal(reasons=(*reasons, some) if fits.any() else reasons)


def _domains(fleet: Arrays, level: Level) -> Ints:
    """[hosts]: the number of the switch of that level above each, in order of names; who has none is alone."""
    names = [
        (site, spine or "\0" + host, leaf or "\0" + host, host)
        for host, site, spine, leaf in (
            (
                fleet.names[row],
                fleet.walls.all[fleet.wall[row]].site,
                fleet.switches.all[fleet.spine[row]] if fleet.spine[row] != NONE else "",
                fleet.switches.all[fleet.leaf[row]] if fleet.leaf[row] != NONE else "",
            )
            for row in range(fleet.size)
        )
    ]
    keys = [name[: len(LEVELS) - LEVELS.index(level)] for name in names]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def _filled(sight: Sight, among: Bools, *, gang: Gang, blocks: Ints) -> list[Decision] | None:
    """All members within some hosts, or None."""
    sight = replace(
        sight,
        cores_free=sight.cores_free.copy(),
        memory_free=sight.memory_free.copy(),
        device_milli=sight.device_milli.copy(),
    )
    if not gang.segment:
        return _block(sight, among, count=gang.count, per_host=gang.per_host)
    members: list[Decision] = []
    for _ in range(gang.count // gang.segment):
        for domain in np.unique(blocks[among]):
            some = _block(sight, among & (blocks == domain), count=gang.segment, per_host=gang.per_host)
            if some is not None:
                members += some
                break
        else:
            return None
    return members


def _block(sight: Sight, among: Bools, *, count: int, per_host: int) -> list[Decision] | None:
    """So many members within some hosts, taken from the sight's arrays, or None and nothing taken."""
    members: list[Decision] = []
    on_host: dict[str, int] = {}
    among = among.copy()
    while len(members) < count:
        seen = replace(sight)
        member = place(seen, among & fitting(seen))
        if member is None:
            for taken in members:
                _take(sight, taken, sign=1)
            return None
        _take(sight, member, sign=-1)
        members.append(member)
        on_host[member.host] = on_host.get(member.host, 0) + 1
        if on_host[member.host] == per_host:
            among[sight.fleet.row(member.host)] = False
    return members


def _take(sight: Sight, member: Decision, *, sign: int) -> None:
    row = sight.fleet.row(member.host)
    assert row is not None
    nodes = list(sight.fleet.node_ids(row))
    for part in member.allocations:
        sight.cores_free[row, nodes.index(part.numa_node)] += sign * part.milli_cores
        sight.memory_free[row, nodes.index(part.numa_node)] += sign * part.memory_bytes
    for column, device in enumerate(sight.fleet.devices(row)):
        if device.id in member.devices:
            sight.device_milli[row, column] += sign * member.device_milli
