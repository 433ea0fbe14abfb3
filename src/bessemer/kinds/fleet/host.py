"""Host: a server with its devices in a topology. Its agent speaks for it.

Two write its status: the agent writes ``report`` (what it found), the control side all else. A heartbeat renews a lease
and changes no object; when the lease runs out the Host is not Reachable, and its Claims stay until the agent is back or
the host is fenced. A fake host carries the taint ``bessemer.dev/fake`` and says so wherever it is shown.
"""

from __future__ import annotations

from pydantic import Field

from bessemer.core.resource import ApiModel, Resource, Status
from bessemer.core.values import Inventory, Taint
from bessemer.kinds.fields import Label

FAKE_TAINT = "bessemer.dev/fake"


class HostSpec(ApiModel):
    site: Label = "local"
    taints: list[Taint] = Field(default_factory=list, max_length=64)
    unschedulable: bool = Field(False, description="Cordoned: what runs goes on, nothing new lands here.")
    overcommit_milli: int = Field(
        1000,
        ge=1000,
        le=64_000,
        description="4000 sells each core four times; memory never.",
    )
    revoked: bool = Field(
        False,
        description="The agent's certificate is worth nothing; a new join is needed.",
    )
    fenced: bool = Field(False, description="An administrator's word that nothing runs there any more.")


class HostStatus(Status):
    report: Inventory | None = Field(None, description="What the agent found.")
    key_fingerprint: str = Field("", description="SHA-256 of the joined agent's public key.")
    joined_at: str | None = None
    message: str = ""


class Host(Resource[HostSpec, HostStatus]):
    KIND = "Host"

    status: HostStatus = Field(default_factory=HostStatus)
