"""Session: somebody signed in, or may once. Made by the api alone; the secret is shown once and kept as a hash.

The bearer is ``bss_NAME.SECRET`` with 256 random bits of secret, of which the object holds the SHA-256. ``link`` is
good for one exchange into a ``portal`` session. An expired session is worth nothing at once and deleted soon after. A
session is one User's, by uid: whoever has that name later finds none of them. It is not an ApiKey: sessions are people,
keys are for models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from bessemer.core.clock import epoch
from bessemer.core.errors import Cause, NotFound
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import READ, ApiModel, Column, Done, Kind, Outcome, Resource, Status
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Name, Names, at, time_problems

LABEL_USER = "bessemer.dev/user"
LABEL_PROVIDER = "bessemer.dev/provider"
LABEL_SID = "bessemer.dev/issuer-session"

DEADLINES: Mapping[str, float] = {"Pending": 120.0}
"""It waits for nothing but its first look."""


def session_labels(user: str) -> Mapping[str, str]:
    """The labels of a user's sessions, by which they are found; a name that is too long for a label by its digest."""
    return {LABEL_USER: user if len(user) <= 63 else hashlib.sha256(user.encode()).hexdigest()[:63]}


def vouched_labels(provider: str, provider_uid: str, *, sid: str = "") -> Mapping[str, str]:
    """The labels of a session that a provider vouched for, and of those that belong to one of the issuer's own."""
    labels = {LABEL_PROVIDER: provider}
    if sid:
        labels[LABEL_SID] = hashlib.sha256(f"{provider_uid} {sid}".encode()).hexdigest()[:63]
    return labels


class SessionSpec(ApiModel):
    user: Annotated[Name, Names("User")] = Field(description="Who is signed in.")
    user_uid: str = Field("", description="Which User of that name; a session that does not say is worth nothing.")
    purpose: Literal["portal", "cli", "link"] = Field(
        description="portal or cli; link is good for one exchange into a session."
    )
    digest: str = Field(description="SHA-256 of the secret, hexadecimal.", pattern="^[0-9a-f]{64}$")
    expires_at: str = Field(description="From then on it is worth nothing.")
    provider: str = Field("", description="The IdentityProvider that vouched for them; none for a password or a link.")
    provider_uid: str = Field("", description="Which IdentityProvider of that name.")
    groups: list[str] = Field(default_factory=list, description="Their groups, as the provider said at sign-in.")


class SessionStatus(Status):
    phase: Literal["Pending", "Active", "Expired"] = Field(
        "Pending", description="Where it is in its life, in one word."
    )


class Session(Resource[SessionSpec, SessionStatus]):
    KIND = "Session"

    status: SessionStatus = Field(default_factory=SessionStatus)


def validate(new: Session, old: Session | None) -> Sequence[Cause]:
    """A session says until when, and is never somebody else's afterwards."""
    causes = [*time_problems("spec.expiresAt", new.spec.expires_at)]
    if old is not None and new.spec != old.spec:
        causes.append(Cause("spec", "cannot change: sign in again"))
    return causes


async def reconcile(ctx: Context, session: Session) -> Outcome:
    """Delete it once it has expired."""
    left = epoch(session.spec.expires_at) - ctx.clock.now()
    if left > 0:
        return Done(status=session.status.model_copy(update={"phase": "Active"}), again=left)
    try:
        await ctx.objects.delete(session.key, CONTROLLER, uid=session.uid)
    except NotFound:
        pass
    return Done(ready=False, reason="Expired", message="expired", status=_expired(session))


def _expired(session: Session) -> SessionStatus:
    return session.status.model_copy(update={"phase": "Expired"})


KIND: Kind[Context, Session] = Kind(
    resource=Session,
    plural="sessions",
    namespaced=False,
    rights={"admin": (*READ, "delete", "deletecollection")},
    columns=(
        Column(name="User", value=at("spec", "user")),
        Column(name="Purpose", value=at("spec", "purpose")),
        Column(name="Expires", value=at("spec", "expiresAt"), type="date"),
    ),
    validate=validate,
    reconcile=reconcile,
    deadlines=DEADLINES,
)
