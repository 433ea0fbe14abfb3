"""Instance: one virtual machine, a guest on one host, held by one Claim.

Invariants: it is Ready only when the guest itself has reported what was asked for; stopping keeps the Claim and the
disk, deleting releases both; it never moves by itself (migration is another kind's work). Metal joins later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from bessemer.core.asking import Toleration
from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel, Resource, keyed_by
from bessemer.core.values import nothing
from bessemer.kinds.fields import Name, Names, duplicates, label_problems, unchangeable
from bessemer.kinds.turns import Turned, WaitingStatus


class InstanceSpec(Turned):
    movable: bool = Field(
        False,
        exclude_if=nothing,
        description="Whether it may be stopped and started anew on another host, from its image: WHAT IS ON ITS "
        "DISK IS LOST. Counts for places that are taken from then on. What is preemptible may be moved, too.",
    )
    flavor: Annotated[Name, Names("Flavor")] = Field(description="Name of the Flavor: its size.")
    image: Annotated[Name, Names("Image")] = Field(description="Name of the Image that it boots.")
    running: bool = Field(True, description="False stops the guest; its disk and its place stay.")
    restart_policy: Literal["Always", "Never"] = Field(
        "Always", description="What follows when the guest dies by itself."
    )
    tolerations: list[Toleration] = Field(
        default_factory=list,
        max_length=64,
        description="Taints of hosts that it bears.",
        json_schema_extra=keyed_by("key"),
    )


Printable = Annotated[str, StringConstraints(pattern=r"^[ -~]*$", max_length=253)]
"""A guest is hostile: nothing of it that a terminal would obey."""


class GuestReport(ApiModel):
    """What the guest said of itself."""

    model_config = ConfigDict(extra="ignore")

    kernel: Printable = Field(description="The running kernel.")
    cpus: int = Field(ge=0, le=1 << 20, description="CPUs that the guest sees.")
    memory_bytes: int = Field(ge=0, le=1 << 60, description="Memory that the guest sees.")
    addresses: list[Printable] = Field(max_length=64, description="Addresses of the guest.")
    hostname: Printable = Field("", description="Its own name.")
    uptime_seconds: float = Field(
        0.0, ge=0.0, le=1e10, allow_inf_nan=False, description="How long it ran when it said this."
    )


InstancePhase = Literal[
    "Pending",
    "Preparing",
    "Booting",
    "Running",
    "Stopping",
    "Stopped",
    "Terminating",
    "Failed",
    "Unknown",
]


class InstanceStatus(WaitingStatus):
    phase: InstancePhase = Field("Pending", description="Where it is in its life, in one word.")
    claim: str = Field("", description="Name of the Claim that it holds.")
    host: str = Field("", description="The host that it is on.")
    fake: bool = Field(False, description="Whether that host is fake.")
    guest: GuestReport | None = Field(None, description="What the guest said of itself.")
    restarts: int = Field(0, description="How often the guest was started again.")
    started_at: str | None = Field(None, description="When the guest was started.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


class Instance(Resource[InstanceSpec, InstanceStatus]):
    KIND = "Instance"

    status: InstanceStatus = Field(default_factory=InstanceStatus)


class InstanceIntent(ApiModel):
    """What the control side asks of the host side. ``image`` is a digest; frozen but for the last two."""

    image: str
    cpus: int
    memory_bytes: int
    disk_bytes: int
    hostname: str
    running: bool = True
    restart_policy: Literal["Always", "Never"] = "Always"


def validate(new: Instance, old: Instance | None) -> Sequence[Cause]:
    """Its name is the guest's host name; what it is made of cannot change."""
    causes = [*duplicates("spec.tolerations", [t.key for t in new.spec.tolerations], field="key")]
    if old is None:
        causes += label_problems(new.metadata.name)
    else:
        causes += unchangeable("spec.flavor", new=new.spec.flavor, old=old.spec.flavor, why="make another instance")
        causes += unchangeable("spec.image", new=new.spec.image, old=old.spec.image, why="make another instance")
    return causes
