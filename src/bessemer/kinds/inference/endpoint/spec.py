"""Endpoint: a model served to OpenAI clients under a name, by replicas that each hold a Claim.

Clients ask for ``model: NAME`` with an ApiKey of the endpoint's project. Invariants: a replica counts only after a real
completion; losing replicas makes it Degraded while one is left; it is not the gateway, which reads it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.core.values import Toleration
from bessemer.kinds.fields import Name


class EndpointSpec(ApiModel):
    model: Name
    flavor: Name
    replicas: int = Field(1, ge=0, le=10_000)
    slots: int = Field(
        4,
        ge=1,
        le=256,
        description="Requests that one replica answers at the same time.",
    )
    context_tokens: int = Field(2048, ge=64, le=1 << 22, description="Context of one slot.")
    tolerations: list[Toleration] = Field(default_factory=list, max_length=64)


class ReplicaStatus(ApiModel):
    """One replica as its Claim shows it."""

    replica: int
    claim: str
    host: str
    phase: str
    ready: bool = False
    message: str = ""


EndpointPhase = Literal[
    "Pending",
    "Starting",
    "Ready",
    "Degraded",
    "Stopped",
    "Terminating",
    "Failed",
    "Unknown",
]


class EndpointStatus(Status):
    phase: EndpointPhase = "Pending"
    replicas: list[ReplicaStatus] = Field(default_factory=list)
    ready_replicas: int = 0
    wanted_replicas: int = 0
    fake: bool = False
    message: str = ""
    reasons: list[dict[str, Any]] = Field(default_factory=list)
    remedy: str = ""


class Endpoint(Resource[EndpointSpec, EndpointStatus]):
    KIND = "Endpoint"

    status: EndpointStatus = Field(default_factory=EndpointStatus)
