"""Who somebody is that an issuer vouches for: the User of that name, made at first sight, and nobody else's.

All Users are in memory, by one watch. A name is ``PREFIX.claim``, mapped so that no two claims have one name; the User
says of which issuer and subject it is (``spec.identity``), and a name whose User says something else, or nothing, is
refused: neither another issuer nor a subject that was made anew under an old name takes it over.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bessemer.api.names import NAME_MAX, is_subdomain
from bessemer.core.clock import epoch
from bessemer.core.errors import AlreadyExists, Unauthenticated, Unavailable
from bessemer.core.ports import Objects, Stored, Writer
from bessemer.core.resource import API_VERSION, Change, Key

FULL_SECONDS_MAX = 2.0
GROUPS_MAX = 256
CLAIM_LENGTH_MAX = 128
GROUP_LENGTH_MAX = 253
SYSTEM = Writer("system", "api")

_CLAIM = re.compile(r"[a-z0-9](?:[a-z0-9]|[-.@_+](?=[a-z0-9]))*")
_WORDS = {"@": "--at--", "_": "--us--", "+": "--plus--"}
"""What no name may hold, in letters. A claim has none of its own: what joins letters stands between two of them."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a verified token says of a person. ``name`` and ``groups`` carry the provider's prefix; ``made`` and
    ``expires`` are epoch seconds."""

    provider: str
    provider_uid: str
    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...]
    made: float
    expires: float
    display: str = ""
    email: str = ""
    sid: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """A User, as far as it matters who they are. ``left`` is when they signed out everywhere, epoch seconds."""

    revision: int
    uid: str
    admin: bool
    barred: bool
    issuer: str
    subject: str
    left: float


async def whole(full: asyncio.Event) -> None:
    """Return once a first look is complete. Raises Unavailable where it does not come."""
    if not full.is_set():
        try:
            async with asyncio.timeout(FULL_SECONDS_MAX):
                await full.wait()
        except TimeoutError as error:
            raise Unavailable("the server has not read its people yet") from error


class People:
    """Feed it with `apply`; it is filled by `api.oidc`'s watch."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._people: dict[str, Person] = {}
        self._names: dict[tuple[str, str], str] = {}
        self.full = asyncio.Event()

    def apply(self, change: Change) -> None:
        """What the watch brings."""
        name, known = change.key.name, self._people.get(change.key.name)
        if known is not None and known.revision > change.revision:
            return
        self._forget(name)
        if change.type != "DELETED":
            self._know(name, _person(change.body, revision=change.revision, uid=change.uid))

    def clear(self) -> None:
        """What is known is not whole any more."""
        self.full.clear()
        self._people.clear()
        self._names.clear()

    def name_of(self, issuer: str, subject: str) -> str:
        """The User of a subject, or ""."""
        return self._names.get((issuer, subject), "")

    async def admitted(self, who: Vouched, *, create: bool) -> Person:
        """The User that somebody is, made where there is none and ``create``. Raises Unauthenticated."""
        await whole(self.full)
        person = self._people.get(who.name)
        if person is None:
            if not create:
                raise Unauthenticated("an administrator has to let you in first")
            person = await self._made(who)
        if (person.issuer, person.subject) != (who.issuer, who.subject):
            raise Unauthenticated(f"the name {who.name} is somebody else's here")
        if person.barred:
            raise Unauthenticated("the user may not sign in")
        return person

    async def _made(self, who: Vouched) -> Person:
        body = {
            "apiVersion": API_VERSION,
            "kind": "User",
            "metadata": {"name": who.name},
            "spec": {
                "displayName": who.display,
                "email": who.email,
                "identity": {"issuer": who.issuer, "subject": who.subject},
            },
        }
        try:
            stored = await self._objects.create(body, SYSTEM)
        except AlreadyExists:
            stored = await self._objects.get(Key("User", "", who.name))
        return self.learn(stored)

    def learn(self, stored: Stored) -> Person:
        """What was read or written just now, before the watch tells of it."""
        name, known = stored.key.name, self._people.get(stored.key.name)
        if known is not None and known.revision >= stored.revision:
            return known
        self._forget(name)
        return self._know(name, _person(stored.body, revision=stored.revision, uid=stored.uid))

    def _know(self, name: str, person: Person) -> Person:
        self._people[name] = person
        if person.subject:
            self._names[person.issuer, person.subject] = name
        return person

    def _forget(self, name: str) -> None:
        before = self._people.pop(name, None)
        if before is not None and self._names.get((before.issuer, before.subject)) == name:
            del self._names[before.issuer, before.subject]


def _person(body: bytes, *, revision: int, uid: str) -> Person:
    user = orjson.loads(body)
    spec, status = user["spec"], user.get("status", {})
    identity = spec.get("identity") or {}
    left = status.get("signedOutAt")
    return Person(
        revision,
        uid,
        bool(spec.get("admin")),
        bool(spec.get("disabled")) or "deletionTimestamp" in user["metadata"],
        identity.get("issuer", ""),
        identity.get("subject", ""),
        epoch(left) if left else 0.0,
    )


# --- what a token calls them ------------------------------------------------------------------------------------


def person_name(claims: Mapping[str, Any], claim: str, *, prefix: str, fold_case: bool) -> str:
    """The User's name. Raises Unauthenticated where the claim is none, or cannot be one."""
    value = claims.get(claim)
    if not isinstance(value, str) or not value:
        raise Unauthenticated(f"the issuer does not say your {claim}")
    if claim == "email" and claims.get("email_verified") is not True:
        raise Unauthenticated("the issuer has not verified your address")
    value = value.lower() if fold_case and value.isascii() else value
    if len(value) > CLAIM_LENGTH_MAX or not _CLAIM.fullmatch(value):
        raise Unauthenticated(
            f"your {claim} cannot be a name here: letters are small, and - . @ _ + stand between them"
        )
    name = f"{prefix}." + "".join(_WORDS.get(letter, letter) for letter in value)
    if len(name) > NAME_MAX or not is_subdomain(name):
        raise Unauthenticated(f"your {claim} cannot be a name here")
    return name


def group_names(claims: Mapping[str, Any], claim: str, *, prefix: str) -> tuple[str, ...]:
    """``PREFIX:group`` of each group, in order, none twice. Raises Unauthenticated for what is no list of words."""
    value = claims.get(claim, [])
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or len(listed) > GROUPS_MAX:
        raise Unauthenticated(f"the issuer's {claim} is no list of at most {GROUPS_MAX} groups")
    for one in listed:
        if not isinstance(one, str) or not 0 < len(one) <= GROUP_LENGTH_MAX or not one.isprintable():
            raise Unauthenticated(f"the issuer's {claim} holds what is no group's name")
    return tuple(f"{prefix}:{one}" for one in sorted(set(listed)))


def text(claims: Mapping[str, Any], claim: str, *, longest: int = 256) -> str:
    """A claim to show, or "" where it is nothing that can be shown."""
    value = claims.get(claim)
    return value if isinstance(value, str) and len(value) <= longest and value.isprintable() else ""


def address(claims: Mapping[str, Any]) -> str:
    """An e-mail address that a User can have, or ""."""
    found = text(claims, "email")
    local, _, domain = found.partition("@")
    return found if local and domain and not any(letter.isspace() for letter in found) else ""
