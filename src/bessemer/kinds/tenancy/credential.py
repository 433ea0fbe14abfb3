"""ApplicationCredential: lets a program act for a person, within bounds. ``POST …/applicationcredentials/NAME/token``
makes its secret.

It has no rights: it may what its owner may at that moment, less what it gives up here. ``status.secrets`` holds SHA-256
of at most two secrets, harmless to read; a rotation leaves the older one good for ``spec.overlapSeconds``. What a
credential is worth is judged by the api at each request; the phase here is what people see. It is not an ApiKey, which
opens endpoints and nothing else, nor a Session, which is a person.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from bessemer.core.clock import epoch
from bessemer.core.errors import Cause, NotFound
from bessemer.core.ports import Scope
from bessemer.core.resource import (
    ALL,
    READ,
    ApiModel,
    Change,
    Column,
    Done,
    Key,
    Kind,
    Outcome,
    Resource,
    Status,
    Verb,
    Wait,
    values_apart,
)
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Name, Names, ShortText, at, duplicates, time_problems
from bessemer.kinds.tenancy.rolebinding import leave_bindings
from bessemer.kinds.tenancy.session import session_labels
from bessemer.kinds.tenancy.user import User

DEADLINES: Mapping[str, float] = {"Pending": 1800.0}
"""Its secret is a person's to ask for, who may take their time."""

DAY = 86_400
OVERLAP_SECONDS_MAX = 30 * DAY
SECRETS_MAX = 2
_LOOK_SECONDS = 300.0
_LIST_MAX = 100

Reach = Literal["project", "tenant", "owner"]


class CredentialSpec(ApiModel):
    description: ShortText = Field("", description="What it is for.")
    user: str = Field("", description="Whose it is: who made it. Set by the server, for ever.", max_length=253)
    user_uid: str = Field("", description="Which User of that name. Set by the server.", max_length=64)
    expires_at: str = Field(description="From then on it is worth nothing (RFC 3339).")
    disabled: bool = Field(False, description="Worth nothing until it is enabled again.")
    reach: Reach = Field(
        "project",
        description="Where it acts: in its project, in all of the project's tenant, or wherever its owner may.",
    )
    roles: list[Annotated[Name, Names("Role")]] = Field(
        default_factory=list,
        max_length=_LIST_MAX,
        description="What it may at most, as names of roles; all of its owner's when empty.",
        json_schema_extra=values_apart(),
    )
    verbs: list[Verb] = Field(
        default_factory=list,
        max_length=_LIST_MAX,
        description="Verbs it may use; all when empty.",
        json_schema_extra=values_apart(),
    )
    kinds: list[ShortText] = Field(
        default_factory=list,
        max_length=_LIST_MAX,
        description="Kinds it may see and change, as Instance, each with its subresources; all when empty.",
        json_schema_extra=values_apart(),
    )
    names: list[Name] = Field(
        default_factory=list,
        max_length=_LIST_MAX,
        description="Names of objects; all when empty. With names it creates nothing.",
        json_schema_extra=values_apart(),
    )
    networks: list[ShortText] = Field(
        default_factory=list,
        max_length=_LIST_MAX,
        description="Where it may be used from, as 192.0.2.0/24 or 2001:db8::/48; anywhere when empty.",
        json_schema_extra=values_apart(),
    )
    unrestricted: bool = Field(
        False,
        description="It may make what lets people in or gives them rights: credentials, keys, users, roles. Then it is "
        "its owner whole, and stands beside no bound but networks.",
    )
    overlap_seconds: int = Field(
        DAY,
        ge=0,
        le=OVERLAP_SECONDS_MAX,
        description="How long the secret before stays good once there is a new one.",
    )


class Secret(ApiModel):
    """One secret, as far as it may be read."""

    digest: str = Field(description="SHA-256 of the secret; harmless to read.", pattern="^[0-9a-f]{64}$")
    hint: str = Field("", description="Its first characters, to tell secrets apart.")
    created: str = Field(description="When it was made.")
    until: str | None = Field(None, description="From then on it is worth nothing: a newer one took its place.")


class CredentialStatus(Status):
    phase: Literal["Pending", "Active", "Disabled", "Expired"] = Field(
        "Pending", description="Pending until it has a secret."
    )
    secrets: list[Secret] = Field(default_factory=list, description="The newest first; at most two.")
    last_used: str | None = Field(None, description="When it was last used, to the minute.")
    last_source: str = Field("", description="The address from which it was used then.")


class ApplicationCredential(Resource[CredentialSpec, CredentialStatus]):
    KIND = "ApplicationCredential"

    status: CredentialStatus = Field(default_factory=CredentialStatus)


def validate(new: ApplicationCredential, old: ApplicationCredential | None) -> Sequence[Cause]:
    """A readable time, networks that are some, nothing twice, and no bounds on what is unrestricted."""
    spec = new.spec
    causes = [*time_problems("spec.expiresAt", spec.expires_at), *_network_problems(spec.networks)]
    for name in ("roles", "verbs", "kinds", "names", "networks"):
        causes += duplicates(f"spec.{name}", getattr(spec, name))
    bounded = [name for name in ("roles", "verbs", "kinds", "names") if getattr(spec, name)]
    if spec.reach != "owner":
        bounded.append("reach")
    if spec.unrestricted and bounded:
        words = f"would be a bound on nothing: an unrestricted credential can give itself back what {bounded[0]} takes"
        causes.append(Cause(f"spec.{bounded[0]}", words))
    if old is not None:
        kept = ((spec.user, old.spec.user), (spec.user_uid, old.spec.user_uid))
        if any(said and said != before for said, before in kept):
            causes.append(Cause("spec.user", "cannot change: make a credential of your own"))
    return causes


def _network_problems(networks: Sequence[str]) -> Iterator[Cause]:
    for index, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            words = "has bits set beyond its prefix" if "host bits" in str(error) else "must read 192.0.2.0/24"
            yield Cause(f"spec.networks[{index}]", f"{network[:63]} {words}")


async def reconcile(ctx: Context, credential: ApplicationCredential) -> Outcome:
    """Say whether it is good for anything, let a secret go whose time is over, and look again when the next thing
    ends."""
    now, spec, status = ctx.clock.now(), credential.spec, credential.status
    secrets = [secret for secret in status.secrets if secret.until is None or epoch(secret.until) > now]
    status = status.model_copy(update={"secrets": secrets})
    left = epoch(spec.expires_at) - now
    if spec.disabled:
        return _not_good(status, "Disabled", reason="Disabled", message="worth nothing until it is enabled again")
    if left <= 0:
        return _not_good(status, "Expired", reason="Expired", message=f"expired at {spec.expires_at}")
    if not await _owner_stands(ctx, spec.user):
        message = f"its owner {spec.user or '(nobody)'} may not sign in"
        return _not_good(status, "Disabled", reason="OwnerBarred", message=message)
    if not secrets:
        message = "has no secret yet: bessemer credential rotate makes one"
        status = status.model_copy(update={"phase": "Pending"})
        remedy = "Make a secret, or delete it if nobody needs it."
        return Wait(reason="NoSecret", message=message, status=status, again=min(_LOOK_SECONDS, left), remedy=remedy)
    ends = [epoch(secret.until) - now for secret in secrets if secret.until is not None]
    return Done(status=status.model_copy(update={"phase": "Active"}), again=min([left, *ends]))


def _not_good(status: CredentialStatus, phase: str, *, reason: str, message: str) -> Outcome:
    return Done(status=status.model_copy(update={"phase": phase}), ready=False, reason=reason, message=message)


async def finalize(ctx: Context, credential: ApplicationCredential) -> Outcome:
    """What it was bound to goes with it: the next of its name inherits nothing."""
    meta = credential.metadata
    await leave_bindings(ctx, "ApplicationCredential", name=f"{meta.namespace}/{meta.name}")
    return Done()


async def _owner_stands(ctx: Context, user: str) -> bool:
    try:
        return not User.load((await ctx.objects.get(Key("User", "", user))).body).spec.disabled
    except NotFound:
        return False


async def wake_by_user(ctx: Context, change: Change) -> AsyncIterator[Key]:
    """Who is disabled, or enabled again, has credentials that should say so."""
    page = await ctx.objects.list(Scope(kind="ApplicationCredential", labels=session_labels(change.key.name)))
    for stored in page.items:
        yield stored.key


KIND: Kind[Context, ApplicationCredential] = Kind(
    resource=ApplicationCredential,
    plural="applicationcredentials",
    namespaced=True,
    short_names=("appcred",),
    rights={"admin": ALL, "auditor": READ, "tenant-admin": ALL, "member": ALL, "reader": READ},
    below={"token": {"admin": ("create",), "tenant-admin": ("create",), "member": ("create",)}},
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Owner", value=at("spec", "user")),
        Column(name="Reach", value=at("spec", "reach", default="project")),
        Column(name="Expires", value=at("spec", "expiresAt"), type="date"),
        Column(name="Last used", value=at("status", "lastUsed"), type="date"),
        Column(name="Roles", value=lambda body: ",".join(at("spec", "roles", default=())(body)) or "all", wide=True),
        Column(name="From", value=lambda body: ",".join(at("spec", "networks", default=())(body)) or "*", wide=True),
        Column(name="Description", value=at("spec", "description"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    wakes={"User": wake_by_user},
    deadlines=DEADLINES,
)
