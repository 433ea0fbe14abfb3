"""Endpoint: a model served to OpenAI clients under a name, by replicas that each hold a Claim.

Clients ask for ``model: NAME`` with an ApiKey of the endpoint's project. Invariants: a replica counts only after a real
completion; losing replicas makes it Degraded while one is left; it is not the gateway, which reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.core.values import Toleration
from bessemer.kinds.fields import Name, duplicates, label_problems, unchangeable


class EndpointSpec(ApiModel):
    model: Name
    flavor: Name
    replicas: int = Field(1, ge=0, le=10_000)
    slots: int = Field(4, ge=1, le=256, description="Requests that one replica answers at the same time.")
    context_tokens: int = Field(2048, ge=64, le=1 << 22, description="Context of one slot.")
    tolerations: list[Toleration] = Field(default_factory=list, max_length=64)


class ReplicaStatus(ApiModel):
    """One replica as its Claim shows it."""

    replica: int
    claim: str
    host: str
    phase: str
    ready: bool = False
    reason: str = ""
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


class EndpointIntent(ApiModel):
    """What the control side asks of one replica's host side; frozen. ``model`` is a digest."""

    model: str
    alias: str
    slots: int
    context_tokens: int
    cores_milli: int
    memory_bytes: int
    needs_bytes: int = Field(0, description="What the Model says that an engine needs.")


_WHY = "replicas are made with it; make another endpoint"


def validate(new: Endpoint, old: Endpoint | None) -> Sequence[Cause]:
    """Its name is what clients call the model; what its replicas are made of cannot change."""
    causes = [*duplicates("spec.tolerations", [t.key for t in new.spec.tolerations], field="key")]
    if old is None:
        causes += label_problems(new.metadata.name)
    else:
        causes += unchangeable("spec.model", new=new.spec.model, old=old.spec.model, why=_WHY)
        causes += unchangeable("spec.flavor", new=new.spec.flavor, old=old.spec.flavor, why=_WHY)
        causes += unchangeable("spec.slots", new=new.spec.slots, old=old.spec.slots, why=_WHY)
        causes += unchangeable("spec.contextTokens", new=new.spec.context_tokens, old=old.spec.context_tokens, why=_WHY)
    return causes
