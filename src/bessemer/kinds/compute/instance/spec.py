"""Instance: one virtual machine, a guest on one host, held by one Claim.

Invariants: it is Ready only when the guest itself has reported what was asked for; stopping keeps the Claim and the
disk, deleting releases both; it never moves by itself (migration is another kind's work). Metal joins later.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.core.values import Toleration
from bessemer.kinds.fields import Name


class InstanceSpec(ApiModel):
    flavor: Name
    image: Name
    running: bool = Field(
        True, description="False stops the guest; its disk and its place stay."
    )
    restart_policy: Literal["Always", "Never"] = Field(
        "Always", description="What follows when the guest dies by itself."
    )
    tolerations: list[Toleration] = Field(default_factory=list, max_length=64)


class GuestReport(ApiModel):
    """What the guest said of itself."""

    model_config = {"extra": "ignore"}

    kernel: str
    cpus: int
    memory_bytes: int
    addresses: list[str]
    hostname: str = ""
    uptime_seconds: float = 0.0


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
    reasons: list[dict[str, Any]] = Field(
        default_factory=list, description="Why no host was taken: code, hosts, text."
    )
    remedy: str = Field("", description="The cheapest change that would help.")


class Instance(Resource[InstanceSpec, InstanceStatus]):
    KIND = "Instance"

    status: InstanceStatus = Field(default_factory=InstanceStatus)
