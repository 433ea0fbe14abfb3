"""`Outline`: the answer to where a workload would go, as api, command line and portal read it.

All that a drawing needs is in it: the chosen hosts with what is free of them and what would be taken, and how much
there is under each leaf. Nothing is kept, and nothing of another tenant's is named: of hosts that were not chosen the
names stand in it for whoever may read hosts, but for the one that a refusal's remedy waits for, as it does in the
status of an object.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bessemer.core.asking import Allocation, ReasonView
from bessemer.core.resource import ApiModel


class PlannedDevice(ApiModel):
    id: str = Field(description="The device's id on its host.")
    model: str = Field(description="Its model.")
    milli: int = Field(1000, description="Thousandths of it that would be taken.")
    profile: str = Field("", description="The profile of the instance of it that would be made, if it is one.")


class OtherHost(ApiModel):
    """One that has room and is not chosen."""

    host: str = Field("", description="Its name, for who may read hosts.")
    why: str = Field("", description="What it has against it, beside the chosen one.")
    score: dict[str, float] = Field(default_factory=dict, description="The figures of the chosen one; least wins.")
    parts: dict[str, float] = Field(default_factory=dict, description="The score by its parts.")


class PlannedReplica(ApiModel):
    replica: int = Field(description="Its number, from 0.")
    host: str = Field(description="Where it would go.")
    fake: bool = Field(False, description="Whether that host is fake.")
    leaf: str = Field("", description="The leaf switch above it.")
    rails: list[int] = Field(default_factory=list, description="The rails of the fabric that it would be on.")
    devices: list[PlannedDevice] = Field(default_factory=list, description="What it would take of its devices.")
    allocations: list[Allocation] = Field(default_factory=list, description="Cores and memory, by NUMA node.")
    why: str = Field("", description="Why there, in words.")
    fitting: int = Field(0, description="How many hosts have room.")
    score: dict[str, float] = Field(
        default_factory=dict, description="What chose between them, in the order in which it is looked at; least wins."
    )
    parts: dict[str, float] = Field(
        default_factory=dict,
        description="The policy's figure by its parts, in thousandths of a device; less than 0 is a gain.",
    )
    others: list[OtherHost] = Field(default_factory=list, description="The next best hosts, best first.")
    reasons: list[ReasonView] = Field(default_factory=list, description="Why the hosts without room were set aside.")


class PlannedLeaf(ApiModel):
    """What of a gang would be under one leaf."""

    leaf: str = Field(description="The leaf switch; empty where hosts do not say theirs.")
    spine: str = Field("", description="The spine switch above it.")
    hosts: int = Field(description="On how many hosts.")
    members: int = Field(description="How many members.")


class PlannedHost(ApiModel):
    """What of a gang would be on one host."""

    host: str = Field(description="Its name.")
    leaf: str = Field("", description="The leaf switch above it.")
    ranks: list[int] = Field(description="The members there, by rank.")


class PlannedGang(ApiModel):
    """Where a gang would go as a whole."""

    members: int = Field(description="How many there are.")
    leaves: list[PlannedLeaf] = Field(default_factory=list, description="By leaf switch, in the order of ranks.")
    hosts: list[PlannedHost] = Field(default_factory=list, description="By host, in the order of ranks.")
    why: str = Field("", description="Why there, in words.")
    score: dict[str, float] = Field(
        default_factory=dict, description="How far it is spread, in the order in which it is looked at; least wins."
    )


class PlannedRefusal(ApiModel):
    replica: int = Field(description="The first replica for which there is no room; of a gang 0.")
    message: str = Field(description="Why, in words.")
    reasons: list[ReasonView] = Field(default_factory=list, description="The same by set of hosts, counted.")
    remedy: str = Field("", description="The cheapest change that would help; empty where none is known.")


class Hindrance(ApiModel):
    """What keeps it from starting besides room."""

    reason: str = Field(description="In one CamelCase word, as the object's own status would have it.")
    message: str = Field(description="In words.")
    remedy: str = Field("", description="What helps.")
    passing: bool = Field(False, description="Whether it goes by itself.")


class PlannedStop(ApiModel):
    """A claim of the project that would make room for it."""

    claim: str = Field(description="Its name.")
    workload: str = Field(description="What holds it, as KIND/NAME.")
    devices: int = Field(description="Devices of which it has all or a part.")


class PlannedTurn(ApiModel):
    """Whose turn it would be, did it ask now: of its first replica, or the gang."""

    ahead: int = Field(description="How many that wait go before it.")
    waiting: int = Field(description="How many wait.")
    start: str | None = Field(None, description="When it starts at the latest; absent where nobody knows.")
    message: str = Field(description="When, and why not sooner, in words.")
    stops: list[PlannedStop] = Field(
        default_factory=list, description="Claims of its project that would be told to end for it."
    )
    other_claims: int = Field(0, description="How many claims of others would be.")
    other_devices: int = Field(0, description="Devices of which those have all or a part.")


class PriceLine(ApiModel):
    meter: str = Field(description="What is counted: cores, memory, devices.")
    model: str = Field("", description="Of the devices.")
    formula: str = Field(description="How its amount comes about.")
    amount_micro: int = Field(description="Micro-units of the currency.")


class HourlyPrice(ApiModel):
    """What all replicas that are wanted cost while they run, by the tenant's price plan: the invoice of an hour."""

    currency: str = Field(description="Three letters.")
    micro_per_hour: int = Field(description="Micro-units of it, for an hour of all of them.")
    lines: list[PriceLine] = Field(default_factory=list, description="What it is made of.")


class RoomNode(ApiModel):
    id: int = Field(description="Its number on the host.")
    milli_cores: int = Field(description="Thousandths of cores that are sold.")
    milli_cores_free: int = Field(description="What is free of them now.")
    milli_cores_taken: int = Field(0, description="What would be taken.")
    memory_bytes: int = Field(description="Its memory.")
    memory_free_bytes: int = Field(description="What is free of it now.")
    memory_taken_bytes: int = Field(0, description="What would be taken.")


class RoomDevice(ApiModel):
    id: str = Field(description="Its id on the host.")
    model: str = Field(description="Its model.")
    numa_node: int = Field(description="The NUMA node that it is attached to.")
    pcie_switch: str = Field("", description="The PCIe switch above it.")
    nvlink_domain: str = Field("", description="Devices of one domain reach each other by NVLink.")
    healthy: bool = Field(True, description="Whether it may be given to anybody.")
    free_milli: int = Field(description="Thousandths of it that are free now.")
    taken_milli: int = Field(0, description="Thousandths that would be taken.")


class RoomHost(ApiModel):
    """A chosen host as it stands."""

    name: str = Field(description="Its name.")
    fake: bool = Field(False, description="Whether it is fake.")
    leaf: str = Field("", description="The leaf switch above it.")
    spine: str = Field("", description="The spine switch above that.")
    numa: list[RoomNode] = Field(default_factory=list, description="Its NUMA nodes.")
    devices: list[RoomDevice] = Field(default_factory=list, description="Its devices.")


class RoomLeaf(ApiModel):
    """The hosts under one leaf to which the workload may come at all."""

    leaf: str = Field(description="The leaf switch; empty where hosts do not say theirs.")
    hosts: int = Field(description="How many hosts.")
    fitting: int = Field(description="How many of them have room for one replica.")
    devices: int = Field(description="Their sound devices of the models that would do.")
    free: int = Field(description="Those of which nobody has anything.")


class PlacementQuestion(ApiModel):
    object: dict[str, Any] = Field(description="What would be created: an Instance, an Endpoint or a Job, whole.")
    after: list[dict[str, Any]] = Field(
        default_factory=list, max_length=16, description="What is taken to be placed before it, in this order."
    )


class Outline(ApiModel):
    """Where it would go now, were nobody else to ask."""

    fits: bool = Field(description="Whether all replicas find room and nothing else is in the way for good.")
    message: str = Field(description="The same in a sentence.")
    wanted: int = Field(1, description="Replicas, or members, that are wanted.")
    tried: int = Field(1, description="Replicas that were decided, one after the other; of very many, the first.")
    stands: list[str] = Field(
        default_factory=list, description="Hosts on which it is already; what it holds there is thought away."
    )
    replicas: list[PlannedReplica] = Field(
        default_factory=list, description="Those that find room; of a gang its first members."
    )
    gang: PlannedGang | None = Field(None, description="All members, where they are placed together or not at all.")
    refusal: PlannedRefusal | None = Field(None, description="Why the next one does not.")
    hindrances: list[Hindrance] = Field(default_factory=list, description="What is in the way besides room.")
    price: HourlyPrice | None = Field(None, description="What it costs; absent for who may not read the price plan.")
    turn: PlannedTurn | None = Field(None, description="Its turn among those who wait; absent where nobody is asked.")
    expected_start: str | None = Field(
        None, description="When it would begin to start at the latest; absent where nobody knows."
    )
    never: str = Field("", description="Why it can never begin, as it and the fleet are; empty where it may.")
    hosts: list[RoomHost] = Field(default_factory=list, description="The chosen hosts, as they stand.")
    leaves: list[RoomLeaf] = Field(default_factory=list, description="What there is under each leaf.")


class PlacementReview(ApiModel):
    """PlacementReview: where an object would go, were it created; why there, at which price, and what is in the way.

    It is created, answered at once and never kept; nothing is held by it. Whoever may create the object may ask.
    """

    spec: PlacementQuestion = Field(description="What is asked.")
    status: Outline | None = Field(None, description="The answer.")
