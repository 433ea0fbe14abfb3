"""Where replicas would go, one after the other: decided by what decides in earnest, upon arrays that are changed in
thought alone and are afterwards as they were, also where something goes wrong. It awaits nothing, so that nobody sees
them meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bessemer.core.asking import Decision, Refusal, Request
from bessemer.kinds.fleet.outline import (
    OtherHost,
    Outline,
    PlannedDevice,
    PlannedRefusal,
    PlannedReplica,
    RoomDevice,
    RoomHost,
    RoomLeaf,
    RoomNode,
)
from bessemer.kinds.workload import shown
from bessemer.placement import FleetArrays
from bessemer.placement.own import Own
from bessemer.placement.preview import HostRoom, Scored, host_room, leaf_rooms, ranked
from bessemer.placement.thought import Thought

REPLICAS_MAX = 64
"""Of one question, and as many of all that goes before: nobody else is served while they are decided."""

OTHERS = 3
"""Next best hosts that are told, of the first `EXPLAINED` replicas; they are dear: all hosts are looked at."""

EXPLAINED = 4


class Planner(Protocol):
    """Who decides over the fleet, and the arrays by which it does."""

    @property
    def arrays(self) -> FleetArrays: ...

    @property
    def own(self) -> Own: ...

    def ready(self) -> bool: ...

    def decide(self, request: Request) -> Decision | Refusal: ...

    def others(self) -> bool:
        """Whether somebody waits for a place already."""
        ...


@dataclass(slots=True)
class Planned:
    """What was decided of ``wanted`` replicas, with what was beside each; ``refusal`` says why there are not more.
    ``before`` is what went before, of which not everything was ``counted`` where it was too many."""

    request: Request
    wanted: int
    before: list[Planned] = field(default_factory=list)
    counted: bool = True
    decisions: list[Decision] = field(default_factory=list)
    beside: list[Sequence[Scored]] = field(default_factory=list)
    refusal: Refusal | None = None

    @property
    def tried(self) -> int:
        return len(self.decisions) + (self.refusal is not None)


def plan(fleet: Planner, request: Request, *, replicas: int, after: Sequence[tuple[Request, int]] = ()) -> Planned:
    """Decide the first `REPLICAS_MAX` of them, as if ``after``, of which as many are counted, had gone before, as far
    as it finds room. Raises Unavailable until the fleet has been read."""
    found = Planned(request, replicas)
    arrays = fleet.arrays
    with Thought(arrays) as thought:
        left = REPLICAS_MAX
        for asked, wanted in after:
            found.before.append(_suppose(fleet, asked, replicas=min(wanted, left), thought=thought))
            found.counted &= wanted <= left
            left -= min(wanted, left)
        for _ in range(min(replicas, REPLICAS_MAX)):
            answer = fleet.decide(request)
            if isinstance(answer, Refusal):
                found.refusal = answer
                break
            found.decisions.append(answer)
            most = OTHERS if len(found.beside) < EXPLAINED else 0
            found.beside.append(ranked(arrays, request, policy=fleet.own.policy, first=answer.host, most=most))
            thought.take(answer)
    return found


def _suppose(fleet: Planner, request: Request, *, replicas: int, thought: Thought) -> Planned:
    """Count as many as find room. Nobody asks why the others do not, and what would help is dear to say."""
    found = Planned(request, replicas)
    for _ in range(replicas):
        place = fleet.own.place(request)
        if place is None:
            break
        found.decisions.append(place)
        thought.take(place)
    return found


def outline(fleet: Planner, planned: Planned, *, named: bool) -> Outline:
    """The same for people and programs. ``named``: who asks may read hosts."""
    replicas = [_replica(planned, number, fleet=fleet, named=named) for number in range(len(planned.decisions))]
    refusal = None
    if planned.refusal is not None:
        refusal = PlannedRefusal(
            replica=len(replicas),
            message=str(planned.refusal),
            reasons=shown(planned.refusal.reasons),
            remedy=_remedy(planned.refusal.cheapest, placed=len(replicas)),
        )
    return Outline(
        fits=refusal is None,
        message=_summary(planned),
        wanted=planned.wanted,
        tried=planned.tried,
        replicas=replicas,
        refusal=refusal,
        hosts=list(_rooms(fleet.arrays, planned.decisions)),
        leaves=[
            RoomLeaf(leaf=room.leaf, hosts=room.hosts, fitting=room.fitting, devices=room.devices, free=room.free)
            for room in leaf_rooms(fleet.arrays, planned.request)
        ],
    )


def _replica(planned: Planned, number: int, *, fleet: Planner, named: bool) -> PlannedReplica:
    decision, beside = planned.decisions[number], planned.beside[number]
    row = fleet.arrays.row(decision.host)
    models = {device.id: device.model for device in fleet.arrays.devices(row)} if row is not None else {}
    return PlannedReplica(
        replica=number,
        host=decision.host,
        fake=decision.fake,
        devices=[
            PlannedDevice(
                id=device, model=models.get(device, ""), milli=decision.device_milli, profile=decision.device_profile
            )
            for device in decision.devices
        ],
        allocations=list(decision.allocations),
        why=why(decision, beside),
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
        reasons=shown(decision.reasons),
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
    if wanted == 1:
        return f"fits on {planned.decisions[0].host}" if room else "fits nowhere now"
    if planned.refusal is not None:
        return f"{room} of {wanted} replicas fit now"
    hosts = len({decision.host for decision in planned.decisions})
    place = planned.decisions[0].host if hosts == 1 else f"{hosts} hosts"
    more = f"; the other {wanted - room} were not looked at" if room < wanted else ""
    return f"{room if more else 'all'} of {wanted} replicas fit, on {place}{more}"


# --- why there --------------------------------------------------------------------------------------------------------

_TERMS: Mapping[str, str] = {
    "fragments": "left-overs that fit nothing typical",
    "waste": "left-overs of a device that cannot be cut up",
    "blocks": "a free host broken up",
    "strand": "devices left without cores",
    "plan": "a scarce kind of host",
    "surcharge": "more than this shape's part of a scarce kind of host",
}
"""A part of a policy's score in words."""

_SPANS = "spansNumaNodes"

_EQUAL = "as good, but for the order of hosts"


def why(decision: Decision, beside: Sequence[Scored]) -> str:
    """Why there, in a sentence."""
    if decision.fitting <= 1:
        return "no other host has room"
    parts = beside[0].parts if beside else {}
    told = [f"{_TERMS.get(name, name)} {figure:+g}" for name, figure in parts.items() if figure]
    words = ["it costs the fleet nothing there" if parts else "it costs the fleet least there"]
    if told:
        words = [
            f"it costs the fleet least there, {_of_a_device(sum(parts.values()))} ({', '.join(told)}, in thousandths)"
        ]
    if _SPANS in decision.score:
        words.append("it spans NUMA nodes" if decision.score[_SPANS] else "all lies on one NUMA node")
    return f"of {decision.fitting} hosts with room: {'; '.join(words)}"


def _of_a_device(milli: float) -> str:
    return f"{milli / 1000:.3g} of a device"


def _against(other: Scored, chosen: Scored) -> str:
    """In what it is worse first."""
    if other.score.get(_SPANS, 0) > chosen.score.get(_SPANS, 0):
        return "it would span NUMA nodes"
    # Of figures only the policy's is left, which may be below zero.
    if not any(value > chosen.score.get(name, value) for name, value in other.score.items() if name != _SPANS):
        return _EQUAL
    more = sum(other.parts.values()) - sum(chosen.parts.values())
    return f"it would cost the fleet {f'{_of_a_device(more)} more' if other.parts else 'more'}"


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
