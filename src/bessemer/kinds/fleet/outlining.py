"""What is said of a plan, for people and programs: an `Outline` of what was decided (`planning`), with reasons and sums
in words, and the chosen hosts as they stand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from bessemer.core.asking import Decision, Gang, Refusal
from bessemer.kinds.fleet.outline import (
    OtherHost,
    Outline,
    PlannedDevice,
    PlannedGang,
    PlannedHost,
    PlannedLeaf,
    PlannedRefusal,
    PlannedReplica,
    RoomDevice,
    RoomHost,
    RoomLeaf,
    RoomNode,
)
from bessemer.kinds.fleet.planning import REPLICAS_MAX, Planned, Planner
from bessemer.kinds.fleet.terms import cost_words, of_a_device
from bessemer.kinds.workload import shown
from bessemer.placement import FleetArrays
from bessemer.placement.preview import HostRoom, Scored, host_room, leaf_rooms, models_at, switches_above


def outline(fleet: Planner, planned: Planned, *, named: bool) -> Outline:
    """Of replicas all that were decided, of a gang the first `REPLICAS_MAX` members and a line for each host.
    ``named``: who asks may read hosts."""
    listed = planned.decisions[:REPLICAS_MAX]
    replicas = [_replica(planned, number, fleet=fleet, named=named) for number in range(len(listed))]
    return Outline(
        fits=planned.refusal is None,
        message=_summary(planned),
        wanted=planned.wanted,
        tried=planned.tried,
        replicas=replicas,
        gang=_gang(planned, fleet.arrays),
        refusal=_refusal(planned.refusal, placed=len(replicas)) if planned.refusal is not None else None,
        hosts=list(_rooms(fleet.arrays, listed)),
        leaves=[
            RoomLeaf(leaf=room.leaf, hosts=room.hosts, fitting=room.fitting, devices=room.devices, free=room.free)
            for room in leaf_rooms(fleet.arrays, planned.request)
        ],
    )


def _replica(planned: Planned, number: int, *, fleet: Planner, named: bool) -> PlannedReplica:
    decision = planned.decisions[number]
    beside = planned.beside[number] if number < len(planned.beside) else ()
    models = models_at(fleet.arrays, decision.host)
    return PlannedReplica(
        replica=number,
        host=decision.host,
        fake=decision.fake,
        leaf=switches_above(fleet.arrays, decision.host)[0],
        rails=sorted({device.rail for device in decision.tree if device.rail is not None}),
        devices=[
            PlannedDevice(
                id=device, model=models.get(device, ""), milli=decision.device_milli, profile=decision.device_profile
            )
            for device in decision.devices
        ],
        allocations=list(decision.allocations),
        why=why(decision, beside) if planned.gang is None else "",
        fitting=decision.fitting,
        score=dict(decision.score),
        parts=dict(beside[0].parts) if beside else {},
        others=[
            OtherHost(
                host=one.host if named else "",
                why=_against(one, beside[0]),
                score=dict(one.score),
                parts=dict(one.parts),
            )
            for one in beside[1:]
        ],
        # Equal for all members: said once.
        reasons=shown(decision.reasons) if planned.gang is None or not number else [],
    )


def _refusal(refusal: Refusal, *, placed: int) -> PlannedRefusal:
    return PlannedRefusal(
        replica=placed,
        message=str(refusal),
        reasons=shown(refusal.reasons),
        remedy=_remedy(refusal.cheapest, placed=placed),
    )


def _remedy(cheapest: str, *, placed: int) -> str:
    """To wait for what is there in thought alone helps nobody; fewer replicas always do."""
    if not placed:
        return cheapest
    fewer = f"ask for at most {placed} replica{'s' if placed > 1 else ''}"
    return fewer if not cheapest or cheapest.startswith("wait ") else f"{fewer}, or {cheapest}"


def _summary(planned: Planned) -> str:
    room, wanted = len(planned.decisions), planned.wanted
    if wanted == 0:
        return "no replica is wanted"
    if isinstance(planned.wants, Gang):
        hosts = len({decision.host for decision in planned.decisions})
        on = planned.decisions[0].host if hosts == 1 else f"{hosts} hosts"
        return f"all {_members(wanted)} fit, on {on}" if room else f"{_members(wanted)} do not fit together now"
    if wanted == 1:
        return f"fits on {planned.decisions[0].host}" if room else "fits nowhere now"
    if planned.refusal is not None:
        return f"{room} of {wanted} replicas fit now"
    hosts = len({decision.host for decision in planned.decisions})
    place = planned.decisions[0].host if hosts == 1 else f"{hosts} hosts"
    more = f"; the other {wanted - room} were not looked at" if room < wanted else ""
    return f"{room if more else 'all'} of {wanted} replicas fit, on {place}{more}"


def _members(count: int) -> str:
    return f"{count} member{'s' if count != 1 else ''}"


# --- a gang -----------------------------------------------------------------------------------------------------------


def _gang(planned: Planned, arrays: FleetArrays) -> PlannedGang | None:
    """The whole of it, in the order of ranks."""
    if planned.gang is None:
        return None
    ranks: dict[str, list[int]] = defaultdict(list)
    for rank, member in enumerate(planned.gang.members):
        ranks[member.host].append(rank)
    above = {host: switches_above(arrays, host) for host in ranks}
    under: dict[tuple[str, str], list[str]] = defaultdict(list)
    for host, switches in above.items():
        under[switches].append(host)
    leaves = [
        PlannedLeaf(leaf=leaf, spine=spine, hosts=len(hosts), members=sum(len(ranks[host]) for host in hosts))
        for (leaf, spine), hosts in under.items()
    ]
    return PlannedGang(
        members=len(planned.gang.members),
        leaves=leaves,
        hosts=[PlannedHost(host=host, leaf=above[host][0], ranks=here) for host, here in ranks.items()],
        why=_spread(planned.gang.score, fitting=planned.decisions[0].fitting),
        score=dict(planned.gang.score),
    )


def _spread(score: Mapping[str, float], *, fitting: int) -> str:
    """How near each other, and what is left beside them."""

    plurals = {"host": "hosts", "leaf": "leaves", "spine": "spines", "site": "sites"}
    counts = {one: int(score.get(many, 0)) for one, many in plurals.items()}
    places = [f"{number} {one if number == 1 else plurals[one]}" for one, number in counts.items()]
    left = int(score.get("placesLeftOnLeaves", 0))
    more = f"room for {left or 'no'} more member{'' if left == 1 else 's'} there"
    return f"of {fitting} hosts with room: {' under '.join(places[:2])}, {', '.join(places[2:])}; {more}"


# --- why there --------------------------------------------------------------------------------------------------------

_SPANS = "spansNumaNodes"

_EQUAL = "as good, but for the order of hosts"


def why(decision: Decision, beside: Sequence[Scored]) -> str:
    """Why there, in a sentence."""
    if decision.fitting <= 1:
        return "no other host has room"
    parts = beside[0].parts if beside else {}
    cost = cost_words(parts)
    words = [f"it costs the fleet {f'least there, {cost}' if cost else 'nothing there' if parts else 'least there'}"]
    if _SPANS in decision.score:
        words.append("it spans NUMA nodes" if decision.score[_SPANS] else "all lies on one NUMA node")
    return f"of {decision.fitting} hosts with room: {'; '.join(words)}"


def _against(other: Scored, chosen: Scored) -> str:
    """In what it is worse first."""
    if other.score.get(_SPANS, 0) > chosen.score.get(_SPANS, 0):
        return "it would span NUMA nodes"
    # Of figures only the policy's is left, which may be below zero.
    if not any(value > chosen.score.get(name, value) for name, value in other.score.items() if name != _SPANS):
        return _EQUAL
    more = sum(other.parts.values()) - sum(chosen.parts.values())
    return f"it would cost the fleet {f'{of_a_device(more)} more' if other.parts else 'more'}"


# --- the chosen hosts -------------------------------------------------------------------------------------------------


def _rooms(arrays: FleetArrays, decisions: Sequence[Decision]) -> list[RoomHost]:
    by_host: dict[str, list[Decision]] = defaultdict(list)
    for decision in decisions:
        by_host[decision.host].append(decision)
    rooms = [(host_room(arrays, name), taken) for name, taken in by_host.items()]
    return [_room(room, taken) for room, taken in rooms if room is not None]


def _room(room: HostRoom, decisions: Sequence[Decision]) -> RoomHost:
    cores, memory, devices = defaultdict[int, int](int), defaultdict[int, int](int), defaultdict[str, int](int)
    for decision in decisions:
        for part in decision.allocations:
            cores[part.numa_node] += part.milli_cores
            memory[part.numa_node] += part.memory_bytes
        for device in decision.devices:
            devices[device] += decision.device_milli
    nodes = [
        RoomNode(
            id=node.id,
            milli_cores=node.milli_cores,
            milli_cores_free=node.milli_cores_free,
            milli_cores_taken=cores[node.id],
            memory_bytes=node.memory_bytes,
            memory_free_bytes=node.memory_free_bytes,
            memory_taken_bytes=memory[node.id],
        )
        for node in room.nodes
    ]
    there = [
        RoomDevice(
            id=device.id,
            model=device.model,
            numa_node=device.numa_node,
            pcie_switch=device.pcie_switch,
            nvlink_domain=device.nvlink_domain,
            healthy=device.healthy,
            free_milli=free,
            taken_milli=devices[device.id],
        )
        for device, free in room.devices
    ]
    return RoomHost(name=room.name, fake=room.fake, leaf=room.leaf, spine=room.spine, numa=nodes, devices=there)
