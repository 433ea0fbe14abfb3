"""ApiKey: lets an application speak to a project's endpoints. ``POST …/apikeys/NAME/token`` makes its secret.

The token is ``bsk_`` and 256 random bits; ``status.digest`` is its SHA-256, harmless to read; the gateway holds all of
them in memory and judges each request by spec and clock. A new token replaces the old one. Deleting or disabling the
key revokes it. The phase here is what people see, not what the gateway goes by.

Its bounds hold from the transaction that writes them; a request needs room in them, and in those of its owner, its
project and its tenant. Whose key it is stays so: what was spent is spent of their bounds. Who may not change the
project makes keys of their own alone (`api.keyowners`). Networks are judged by the
address of who connects to the gateway; no header is believed about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from bessemer.core.bounds import Budget, Limits
from bessemer.core.clock import epoch
from bessemer.core.errors import Cause
from bessemer.core.resource import ALL, READ, ApiModel, Column, Done, Kind, Outcome, Resource, Status, Wait
from bessemer.core.values import nothing
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Name, Names, ShortText, at, duplicates, time_problems, unchangeable

DEADLINES: Mapping[str, float] = {"Pending": 1800.0}
"""Its secret is a person's to ask for, who may take their time."""

_LOOK_SECONDS = 300.0

_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
Opened = Annotated[str, StringConstraints(pattern=rf"^{_NAME}(:{_NAME})?$", max_length=507)]
"""An endpoint, or one of its adapters."""


class ApiKeySpec(ApiModel):
    description: ShortText = Field("", description="What it is for.")
    endpoints: list[Opened] = Field(
        default_factory=list,
        description="Endpoints it may use, with their adapters; ENDPOINT:ADAPTER is that adapter alone. All of the "
        "project when empty.",
        max_length=1000,
    )
    disabled: bool = Field(False, description="Revoked until it is enabled again.")
    expires_at: str | None = Field(None, description="From then on it is worth nothing (RFC 3339).")
    owner: Annotated[Name, Names("User")] | None = Field(
        None,
        exclude_if=nothing,
        description="The member of the tenant whose key it is, and whose bounds hold for it; the project's when empty.",
    )
    networks: list[ShortText] = Field(
        default_factory=list,
        max_length=256,
        exclude_if=nothing,
        description="Networks (192.0.2.0/24, 2001:db8::/32) from which it is taken; from anywhere when empty.",
    )
    priority: Literal["flex", "default", "priority"] = Field(
        "default",
        exclude_if=lambda said: said == "default",
        description="Whose turn it is where requests wait: priority before default before flex, by weight. Raised by "
        "who may change the project.",
    )
    limits: Limits | None = Field(None, exclude_if=nothing, description="How much may be asked with it at a time.")
    budget: Budget | None = Field(None, exclude_if=nothing, description="What may be spent with it.")


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
    """A readable time, networks that are some, and no endpoint twice; an owner that stays."""
    causes = [
        *duplicates("spec.endpoints", new.spec.endpoints),
        *time_problems("spec.expiresAt", new.spec.expires_at),
        *_network_problems(new.spec.networks),
    ]
    if old is not None and new.spec.owner is not None:
        why = "what was spent with it is spent of their bounds; make another key"
        causes += unchangeable("spec.owner", new=new.spec.owner, old=old.spec.owner, why=why)
    return causes


def _network_problems(networks: Sequence[str]) -> Iterator[Cause]:
    for index, network in enumerate(networks):
        try:
            ip_network(network)
        except ValueError:
            yield Cause(f"spec.networks[{index}]", "must be a network as 192.0.2.0/24 or 2001:db8::/32")


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
        Column(name="Owner", value=at("spec", "owner"), wide=True),
        Column(name="Expires", value=at("spec", "expiresAt"), type="date"),
        Column(name="Description", value=at("spec", "description"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    deadlines=DEADLINES,
)
