"""Claim: what one replica of one workload takes of one host. Everything that occupies hardware holds one.

Read-only to users; written by the ``Capacity`` port alone, its status by its host's agent alone. Named
``WORKLOADKIND-NAME-REPLICA`` in the workload's project. Gone is the agent's word that nothing is left on the host.
It has no control side of its own: the workload's folds what it says, and releases it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from bessemer.core.resource import READ, Column, Kind, Resource, Status
from bessemer.core.units import show_bytes
from bessemer.core.values import ClaimPhase, ClaimSpec
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at


class ClaimStatus(Status):
    phase: ClaimPhase = Field(
        "Pending", description="Where it is on its host; Gone is the agent's word that nothing is left."
    )
    reason: str = Field("", description="Why it is no further, in one CamelCase word.")
    message: str = Field("", description="Why, in a sentence.")
    address: str = Field("", description="Where the gateway reaches the replica: unix:/path or https://host:port.")
    pid: int | None = Field(None, description="Process id on the host.")
    started_at: str | None = Field(None, description="When this process was started.")
    restarts: int = Field(0, description="How often it was started again.")
    detail: dict[str, Any] = Field(default_factory=dict, description="What only the workload's kind reads.")


class Claim(Resource[ClaimSpec, ClaimStatus]):
    KIND = "Claim"

    status: ClaimStatus = Field(default_factory=ClaimStatus)


def _cores(body: Mapping[str, Any]) -> str:
    return f"{sum(part.get('milliCores', 0) for part in at('spec', 'allocations', default=())(body)) / 1000:g}"


def _memory(body: Mapping[str, Any]) -> str:
    return show_bytes(sum(part.get("memoryBytes", 0) for part in at("spec", "allocations", default=())(body)))


def _workload(body: Mapping[str, Any]) -> str:
    ref = at("spec", "workload", default={})(body)
    return f"{ref.get('kind', '')}/{ref.get('name', '')}"


KIND: Kind[Context, Claim] = Kind(
    resource=Claim,
    plural="claims",
    namespaced=True,
    short_names=("clm",),
    readonly=True,
    rights={
        "admin": READ,
        "auditor": READ,
        "tenant-admin": READ,
        "member": READ,
        "reader": READ,
        # Its host's alone, and of it the status.
        "agent": (*READ, "update"),
        "gateway": READ,
    },
    columns=(
        Column(name="Phase", value=at("status", "phase", default="Pending")),
        Column(name="Workload", value=_workload),
        Column(name="Host", value=at("spec", "host")),
        Column(name="Cores", value=_cores),
        Column(name="Memory", value=_memory),
        Column(name="GPUs", value=lambda body: len(at("spec", "devices", default=())(body)), type="integer"),
        Column(name="Fake", value=at("spec", "fake", default=False), type="boolean"),
        Column(name="Reason", value=at("status", "reason"), wide=True),
        Column(name="Restarts", value=at("status", "restarts", default=0), type="integer", wide=True),
    ),
)
