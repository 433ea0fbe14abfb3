"""ApiKey: lets an application speak to a project's endpoints. ``POST …/apikeys/NAME/token`` makes its secret.

The token is ``bsk_`` and 256 random bits; ``status.digest`` is its SHA-256, harmless to read; the gateway holds all of
them in memory and judges each request by spec and clock. A new token replaces the old one. Deleting or disabling the
key revokes it. The phase here is what people see, not what the gateway goes by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from bessemer.core.clock import epoch
from bessemer.core.errors import Cause
from bessemer.core.resource import ALL, READ, ApiModel, Column, Done, Kind, Outcome, Resource, Status, Wait
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Name, ShortText, at, duplicates, time_problems

DEADLINES: Mapping[str, float] = {"Pending": 1800.0}
"""Its secret is a person's to ask for, who may take their time."""

_LOOK_SECONDS = 300.0


class ApiKeySpec(ApiModel):
    description: ShortText = Field("", description="What it is for.")
    endpoints: list[Name] = Field(
        default_factory=list, description="Endpoints it may use; all of the project when empty.", max_length=1000
    )
    disabled: bool = Field(False, description="Revoked until it is enabled again.")
    expires_at: str | None = Field(None, description="From then on it is worth nothing (RFC 3339).")


class ApiKeyStatus(Status):
    phase: Literal["Pending", "Active", "Disabled", "Expired"] = Field(
        "Pending", description="Pending until it has a token."
    )
    digest: str = Field("", description="SHA-256 of the token; harmless to read.")
    hint: str = Field("", description="The first characters of the token, to tell keys apart.")
    token_created: str | None = Field(None, description="When the token was made.")


class ApiKey(Resource[ApiKeySpec, ApiKeyStatus]):
    KIND = "ApiKey"

    status: ApiKeyStatus = Field(default_factory=ApiKeyStatus)


def validate(new: ApiKey, old: ApiKey | None) -> Sequence[Cause]:
    """A readable time, and no endpoint twice."""
    return [
        *duplicates("spec.endpoints", new.spec.endpoints),
        *time_problems("spec.expiresAt", new.spec.expires_at),
    ]


async def reconcile(ctx: Context, key: ApiKey) -> Outcome:
    """Say whether it is good for anything, and look again when that ends."""
    left = epoch(key.spec.expires_at) - ctx.clock.now() if key.spec.expires_at else None
    if key.spec.disabled:
        return _not_good(key, "Disabled", message="revoked until it is enabled again")
    if left is not None and left <= 0:
        return _not_good(key, "Expired", message=f"expired at {key.spec.expires_at}")
    if not key.status.digest:
        return _without_token(key, left=left)
    return Done(status=key.status.model_copy(update={"phase": "Active"}), again=left)


def _not_good(key: ApiKey, phase: str, *, message: str) -> Outcome:
    status = key.status.model_copy(update={"phase": phase})
    return Done(status=status, ready=False, reason=phase, message=message)


def _without_token(key: ApiKey, *, left: float | None) -> Outcome:
    message = f"has no token yet: make one with POST …/apikeys/{key.metadata.name}/token"
    status = key.status.model_copy(update={"phase": "Pending"})
    again = min(_LOOK_SECONDS, left if left is not None else _LOOK_SECONDS)
    return Wait(reason="NoToken", message=message, status=status, again=again, remedy="Delete it if nobody needs it.")


KIND: Kind[Context, ApiKey] = Kind(
    resource=ApiKey,
    plural="apikeys",
    namespaced=True,
    short_names=("key",),
    rights={"admin": ALL, "auditor": READ, "tenant-admin": ALL, "member": ALL, "reader": READ, "gateway": READ},
    below={"token": {"admin": ("create",), "tenant-admin": ("create",), "member": ("create",)}},
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Hint", value=at("status", "hint")),
        Column(name="Endpoints", value=lambda body: ",".join(at("spec", "endpoints", default=())(body)) or "all"),
        Column(name="Expires", value=at("spec", "expiresAt"), type="date"),
        Column(name="Description", value=at("spec", "description"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    deadlines=DEADLINES,
)
