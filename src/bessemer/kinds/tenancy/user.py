"""User: a person who signs in. The password's argon2id hash is sealed, never part of the object.

Invariants: a disabled user's sessions and links are worth nothing from that moment (the api looks at each request); the
sessions of one who is disabled or gone are swept up here. A user leaves every tenant and every RoleBinding before the
name is free again, so that the next of that name is a member of nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import orjson
from pydantic import Field

from bessemer.core.errors import Cause, NotFound
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import ALL, READ, ApiModel, Column, Done, Kind, Outcome, Resource, Status
from bessemer.kinds.context import Context
from bessemer.kinds.fields import ShortText, at, unchangeable
from bessemer.kinds.tenancy.rolebinding import leave_bindings
from bessemer.kinds.tenancy.session import Session, session_labels

DEADLINES: Mapping[str, float] = {"Pending": 120.0}
"""It waits for nothing but its first look; what refuses one is an error, with its own words."""


class UserIdentity(ApiModel):
    issuer: str = Field(description="The issuer that vouches for this person.", min_length=1, max_length=512)
    subject: str = Field(description="Who they are to it, for good.", min_length=1, max_length=255)


class UserSpec(ApiModel):
    display_name: ShortText = Field("", description="What people call them; free text.")
    email: ShortText = Field("", description="An address for people; nothing is sent to it.")
    admin: bool = Field(False, description="Administrator of the whole platform.")
    disabled: bool = Field(False, description="May not sign in; sessions end at once.")
    identity: UserIdentity | None = Field(
        None, description="Who they are to an outside issuer; nobody else comes in by this name."
    )


class UserStatus(Status):
    phase: Literal["Pending", "Active", "Disabled"] = Field(
        "Pending", description="Where it is in its life, in one word."
    )
    last_sign_in: str | None = Field(None, description="When they last signed in.")
    signed_out_at: str | None = Field(
        None, description="When they signed out of their issuer: bearers that it made until then are worth nothing."
    )


class User(Resource[UserSpec, UserStatus]):
    KIND = "User"

    status: UserStatus = Field(default_factory=UserStatus)


def validate(new: User, old: User | None) -> Sequence[Cause]:
    """An address, where there is one, has two sides; the name of a part of the system is nobody's."""
    causes = []
    local, at_sign, domain = new.spec.email.partition("@")
    if (new.spec.email and not (local and at_sign and domain)) or any(c.isspace() for c in new.spec.email):
        causes.append(Cause("spec.email", "must read NAME@DOMAIN"))
    if old is None and new.metadata.name.startswith("system"):
        causes.append(Cause("metadata.name", "must not begin with system: those names are the platform's"))
    if old is not None and old.spec.identity is not None:
        why = "the name is theirs; make another User"
        causes += unchangeable("spec.identity", new=new.spec.identity, old=old.spec.identity, why=why)
    return causes


async def reconcile(ctx: Context, user: User) -> Outcome:
    """A disabled user keeps no session."""
    if not user.spec.disabled:
        return Done(status=user.status.model_copy(update={"phase": "Active"}))
    await end_sessions(ctx, user.metadata.name)
    status = user.status.model_copy(update={"phase": "Disabled"})
    return Done(status=status, ready=False, reason="Disabled", message="may not sign in")


async def finalize(ctx: Context, user: User) -> Outcome:
    """Sessions, memberships and what they were bound to go with their user."""
    await end_sessions(ctx, user.metadata.name)
    await leave_tenants(ctx, user.metadata.name)
    await leave_bindings(ctx, "User", name=user.metadata.name)
    return Done()


async def leave_tenants(ctx: Context, user: str) -> None:
    """Take the user out of every tenant. Raises Conflict where one changes meanwhile: the loop comes again."""
    page = await ctx.objects.list(Scope(kind="Tenant"))
    for stored in page.items:
        body = orjson.loads(stored.body)
        members = body["spec"].get("members", [])
        left = [member for member in members if member["user"] != user]
        if len(left) < len(members):
            try:
                await ctx.objects.replace({**body, "spec": {**body["spec"], "members": left}}, CONTROLLER)
            except NotFound:
                continue


async def end_sessions(ctx: Context, user: str) -> None:
    """Delete every session and link of the user."""
    page = await ctx.objects.list(Scope(kind="Session", labels=session_labels(user)))
    for stored in page.items:
        if Session.load(stored.body).spec.user == user:
            try:
                await ctx.objects.delete(stored.key, CONTROLLER, uid=stored.uid)
            except NotFound:
                continue


KIND: Kind[Context, User] = Kind(
    resource=User,
    plural="users",
    namespaced=False,
    rights={"admin": ALL, "auditor": READ},
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Admin", value=at("spec", "admin", default=False), type="boolean"),
        Column(name="Display", value=at("spec", "displayName"), wide=True),
        Column(name="Last sign-in", value=at("status", "lastSignIn"), type="date", wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    deadlines=DEADLINES,
)
