"""Lease: who leads among programs that agree to ask here (coordination.k8s.io/v1). It is kept and nothing more.

Whoever writes under the revision that they read wins; times are the writers' own, and nobody here compares them. It is
not a lease of ours: what our own processes share stands in the store's table of leases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ALL, READ, ApiModel, Column, Kind, Resource
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at, time_problems
from bessemer.kinds.kubernetes.files import MOST


class LeaseSpec(ApiModel):
    holder_identity: str | None = Field(None, description="Who holds it; empty is nobody.", max_length=1024)
    lease_duration_seconds: int | None = Field(
        None, description="For how long it holds after renewTime.", gt=0, lt=1 << 31
    )
    acquire_time: str | None = Field(None, description="When the holder got it.")
    renew_time: str | None = Field(None, description="When the holder last renewed it.")
    lease_transitions: int | None = Field(None, description="How often it got another holder.", ge=0, lt=1 << 31)
    strategy: str | None = Field(None, description="How the next holder is chosen, where programs agree on that.")
    preferred_holder: str | None = Field(None, description="Who should have it next.")


class Lease(Resource[LeaseSpec, Any]):
    KIND = "Lease"
    status: ClassVar[None] = None  # type: ignore[misc]

    api_version: str = "coordination.k8s.io/v1"
    spec: LeaseSpec = Field(default_factory=LeaseSpec, description="Who holds it, and since when.")


def validate(new: Lease, old: Lease | None) -> Sequence[Cause]:
    """Times that can be read."""
    spec = new.spec
    return [
        *time_problems("spec.acquireTime", spec.acquire_time),
        *time_problems("spec.renewTime", spec.renew_time),
    ]


KIND: Kind[Context, Lease] = Kind(
    resource=Lease,
    plural="leases",
    namespaced=True,
    categories=(),
    group="coordination.k8s.io",
    version="v1",
    most=MOST,
    rights={"admin": ALL, "tenant-admin": ALL, "member": ALL, "reader": READ},
    columns=(Column(name="Holder", value=at("spec", "holderIdentity")),),
    validate=validate,
)
