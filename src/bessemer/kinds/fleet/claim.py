"""Claim: what one replica of one workload takes of one host. Everything that occupies hardware holds one.

Read-only to users; written by the ``Capacity`` port alone, its status by its host's agent alone. Named
``WORKLOADKIND-NAME-REPLICA`` in the workload's project. Gone is the agent's word that nothing is left on the host.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bessemer.core.resource import Resource, Status
from bessemer.core.values import ClaimPhase, ClaimSpec


class ClaimStatus(Status):
    phase: ClaimPhase = "Pending"
    reason: str = ""
    message: str = ""
    address: str = Field(
        "",
        description="Where the gateway reaches the replica: unix:/path or https://host:port.",
    )
    pid: int | None = None
    started_at: str | None = None
    restarts: int = 0
    detail: dict[str, Any] = Field(default_factory=dict, description="What only the workload's kind reads.")


class Claim(Resource[ClaimSpec, ClaimStatus]):
    KIND = "Claim"

    status: ClaimStatus = Field(default_factory=ClaimStatus)
