"""Instance: one virtual machine, a guest on one host, held by one Claim.

Invariants: it is Ready only when the guest itself has reported what was asked for; stopping keeps the Claim and the
disk, deleting releases both; it never moves by itself (migration is another kind's work). Metal joins later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.core.values import Toleration
from bessemer.kinds.fields import Name, duplicates, label_problems, unchangeable


class InstanceSpec(ApiModel):
    flavor: Name
    image: Name
    running: bool = Field(True, description="False stops the guest; its disk and its place stay.")
    restart_policy: Literal["Always", "Never"] = Field(
        "Always", description="What follows when the guest dies by itself."
    )
    tolerations: list[Toleration] = Field(default_factory=list, max_length=64)


Printable = Annotated[str, StringConstraints(pattern=r"^[ -~]*$", max_length=253)]
"""A guest is hostile: nothing of it that a terminal would obey."""


class GuestReport(ApiModel):
    """What the guest said of itself."""

    model_config = ConfigDict(extra="ignore")

    kernel: Printable
    cpus: int = Field(ge=0, le=1 << 20)
    memory_bytes: int = Field(ge=0, le=1 << 60)
    addresses: list[Printable] = Field(max_length=64)
    hostname: Printable = ""
    uptime_seconds: float = Field(0.0, ge=0.0, le=1e10, allow_inf_nan=False)


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


class InstanceStatus(Status):
    phase: InstancePhase = "Pending"
    claim: str = ""
    host: str = ""
    fake: bool = False
    guest: GuestReport | None = None
    restarts: int = 0
    started_at: str | None = None
    message: str = ""
    reasons: list[dict[str, Any]] = Field(default_factory=list, description="Why no host was taken: code, hosts, text.")
    remedy: str = Field("", description="The cheapest change that would help.")


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
