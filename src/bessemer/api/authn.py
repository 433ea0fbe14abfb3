"""Who asks: client certificates of the local authority, bearer sessions, passwords behind them, programs' credentials,
and outside issuers.

A certificate is worth what its name is worth now: an agent's counts only while its Host exists, is not revoked and has
joined with that very key. A session counts until it ends, is deleted, or the very User that it is of is disabled or
gone. A wrong user and a wrong password are one answer, in the same time. Bearers of the gateway's keys (``bsk_``) are
worth nothing here.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from bessemer.api.ca import Peer
from bessemer.api.context import MASTERS, Credentials, Identity
from bessemer.api.credentials import PREFIX, ApplicationCredentials
from bessemer.api.names import is_subdomain
from bessemer.api.oidc import Federation
from bessemer.api.oidcpeople import Vouched
from bessemer.api.signin import BREAK_GLASS, OwnDoor
from bessemer.core.clock import Clock, epoch, rfc3339
from bessemer.core.errors import Conflict, NotFound, Unauthenticated
from bessemer.core.ports import Objects, Scope, Sealed, Writer
from bessemer.core.resource import API_VERSION, Key, OwnerReference
from bessemer.core.tokens import PASSWORD_LENGTH_MAX, judged_password, token_digest
from bessemer.kinds.tenancy.session import session_labels, vouched_labels

AGENT_PREFIX = "system:agent:"
SESSION_PREFIX = "bss_"
OURS = "bs"
"""What every token of ours begins with, and no signed one: their first letter stands for a brace."""
PASSWORD = "password"
NOBODY = "nobody"
"""No object's uid."""

SYSTEM = Writer("system", "api")


class LocalAuthenticator:
    """Implements `context.Authenticator` with what the store holds."""

    def __init__(self, objects: Objects, clock: Clock, *, federation: Federation, door: OwnDoor) -> None:
        self._objects = objects
        self._clock = clock
        self._federation = federation
        self._door = door
        # Host → revision and the key's fingerprint then ("" where revoked): an agent asks all day, and its Host's body
        # lists every device.
        self._agents: dict[str, tuple[int, str]] = {}
        self.programs = ApplicationCredentials(objects, clock, owner=self.owner)

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """A bearer counts before a certificate. Raises Unauthenticated for one that is worth nothing."""
        if credentials.authorization:
            scheme, _, token = credentials.authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthenticated("only bearer tokens are accepted")
            token = token.strip()
            if token.startswith(PREFIX):
                return await self.programs.identity(token, credentials.source)
            return await self._bearer(token)
        return await self._certificate(credentials.peer) if credentials.peer else None

    async def session(self, token: str) -> dict[str, Any]:
        """The Session (as JSON) that a ``bss_`` token is good for, of any purpose. Raises Unauthenticated."""
        name, _, secret = token.removeprefix(SESSION_PREFIX).partition(".")
        if not token.startswith(SESSION_PREFIX) or not is_subdomain(name):
            raise Unauthenticated("the token is not one of ours")
        body = await self._read(Key("Session", "", name))
        spec = body["spec"] if body else {"digest": "", "expiresAt": rfc3339(0)}
        good = hmac.compare_digest(token_digest(secret), spec["digest"])
        if body is None or not good or epoch(spec["expiresAt"]) <= self._clock.now():
            raise Unauthenticated("the session has ended: sign in again")
        return body

    async def user(self, name: str) -> dict[str, Any]:
        """The User (as JSON) who may sign in. Raises Unauthenticated for one who is gone or disabled."""
        body = await self._read(Key("User", "", name)) if is_subdomain(name) else None
        if body is None or body["spec"].get("disabled") or "deletionTimestamp" in body["metadata"]:
            raise Unauthenticated("the user may not sign in")
        return body

    async def holder(self, session: Mapping[str, Any]) -> dict[str, Any]:
        """The User (as JSON) that a Session is of. Raises Unauthenticated where that is gone, disabled, or another."""
        body = await self.user(session["spec"]["user"])
        if body["metadata"]["uid"] != session["spec"].get("userUid"):
            raise Unauthenticated("the session has ended: sign in again")
        return body

    async def owner(self, name: str) -> dict[str, Any]:
        """The User (as JSON) for whom a program may act: one who has a way in. Raises Unauthenticated."""
        body = await self.user(name)
        identity = body["spec"].get("identity")
        if not (await self._federation.stands(identity["issuer"]) if identity else await self._door.opens()):
            raise Unauthenticated("nobody vouches for the user any more")
        return body

    async def _bearer(self, token: str) -> Identity:
        if token.count(".") == 2 and not token.startswith(OURS):
            return await self._federation.bearer(token)
        session = await self.session(token)
        if session["spec"]["purpose"] not in ("portal", "cli"):
            raise Unauthenticated("a sign-in link is exchanged at /login")
        user = await self.holder(session)
        admin = bool(user["spec"].get("admin"))
        groups: tuple[str, ...] = (MASTERS,) if admin else ()
        provider = session["spec"].get("provider", "")
        if provider:
            groups += await self._federation.vouches(session["spec"])
        elif require_local(user) and not await self._door.opens():
            raise Unauthenticated("local users are switched off: sign in by your provider")
        return Identity("user", user["metadata"]["name"], admin, groups, session["metadata"]["name"], provider)

    async def _certificate(self, peer: Peer) -> Identity:
        if MASTERS in peer.groups:
            last = "" if await self._door.opens() else BREAK_GLASS
            return Identity("user", peer.name, True, peer.groups, credential=last)
        if peer.name == "system:gateway":
            return Identity("gateway", "gateway", groups=peer.groups)
        if peer.name == "system:portal":
            return Identity("portal", "portal", groups=peer.groups)
        if peer.name.startswith(AGENT_PREFIX):
            return await self._agent(peer, peer.name.removeprefix(AGENT_PREFIX))
        raise Unauthenticated("the certificate names nobody known here")

    async def _agent(self, peer: Peer, host: str) -> Identity:
        registered = await self._registered(host) if is_subdomain(host) else ""
        if not registered or not hmac.compare_digest(registered, peer.fingerprint):
            raise Unauthenticated("the agent's certificate is not that of a joined host")
        return Identity("agent", host, groups=peer.groups)

    async def _registered(self, host: str) -> str:
        """The fingerprint of the key with which the host has joined, or "" where it has not, or may not any more."""
        try:
            stored = await self._objects.get(Key("Host", "", host))
        except NotFound:
            self._agents.pop(host, None)
            return ""
        known = self._agents.get(host)
        if known is None or known[0] != stored.revision:
            body = orjson.loads(stored.body)
            revoked = body["spec"].get("revoked")
            fingerprint = "" if revoked else body.get("status", {}).get("keyFingerprint", "")
            known = self._agents[host] = (stored.revision, fingerprint)
        return known[1]

    async def _read(self, key: Key) -> dict[str, Any] | None:
        try:
            body: dict[str, Any] = orjson.loads((await self._objects.get(key)).body)
        except NotFound:
            return None
        return body


def require_local(user: dict[str, Any]) -> dict[str, Any]:
    """The User (as JSON), where what is ours may let them in. Raises Unauthenticated for one whom a provider vouches
    for: a password, a link or a session of ours would outlive it."""
    if user["spec"].get("identity"):
        raise Unauthenticated("the user comes by a provider: sign in by that")
    return user


class Passwords:
    """argon2id hashes in the sealed table; at most two are computed at a time, off the loop."""

    def __init__(self, sealed: Sealed) -> None:
        self._sealed = sealed
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._busy = asyncio.Semaphore(2)
        self._nobody: bytes | None = None

    async def hashed(self, password: str) -> bytes:
        """What is to be kept of a password. Raises Invalid for one that is too short or too long."""
        judged_password(password)
        return await self._hash(password)

    async def put(self, uid: str, hashed: bytes) -> None:
        """Keep an object's password, as `hashed` gives it."""
        await self._sealed.put(uid, PASSWORD, hashed)

    async def good(self, uid: str, password: str) -> bytes | None:
        """What is kept of the object's password, if this is it; ``uid`` "" is nobody, and takes as long."""
        kept = await self._sealed.get(uid or NOBODY, PASSWORD)
        if self._nobody is None:
            self._nobody = await self._hash(secrets.token_hex(16))
        hashed = kept or self._nobody
        async with self._busy:
            good = await asyncio.to_thread(self._verify, hashed, password[: PASSWORD_LENGTH_MAX + 1])
        return kept if good else None

    async def stands(self, uid: str, kept: bytes) -> bool:
        """Whether the object's password is the one yet of which ``kept`` was."""
        return await self._sealed.get(uid, PASSWORD) == kept

    async def _hash(self, password: str) -> bytes:
        async with self._busy:
            return (await asyncio.to_thread(self._hasher.hash, password)).encode()

    def _verify(self, hashed: bytes, password: str) -> bool:
        try:
            return self._hasher.verify(hashed.decode(), password)
        except (VerificationError, InvalidHashError):
            return False


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session's bearer, shown once, and when it ends (RFC 3339)."""

    name: str
    token: str
    user: str
    expires_at: str
    uid: str = ""


class Sessions:
    """Makes and ends Sessions."""

    def __init__(self, objects: Objects, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock

    async def make(
        self,
        user: Key,
        uid: str,
        *,
        purpose: str,
        seconds: float,
        writer: Writer = SYSTEM,
        vouched: Vouched | None = None,
    ) -> NewSession:
        """For that very User, with whom it goes; ``purpose`` is portal, cli or link; ``vouched`` is what a provider
        said of them. Raises Conflict where they are gone."""
        secret = secrets.token_urlsafe(32)
        name = secrets.token_hex(8)
        expires = rfc3339(self._clock.now() + seconds)
        body = {
            "apiVersion": API_VERSION,
            "kind": "Session",
            "metadata": {
                "name": name,
                "labels": {**session_labels(user.name), **_labels(vouched)},
                "ownerReferences": [OwnerReference(kind=user.kind, name=user.name, uid=uid).dump()],
            },
            "spec": {
                "user": user.name,
                "userUid": uid,
                "purpose": purpose,
                "digest": token_digest(secret),
                "expiresAt": expires,
                **_said_of(vouched),
            },
        }
        stored = await self._objects.create(body, writer)
        return NewSession(name, f"{SESSION_PREFIX}{name}.{secret}", user.name, expires, stored.uid)

    async def end(self, name: str, uid: str = "", *, writer: Writer = SYSTEM) -> bool:
        """Whether it was there: of two who end one session, one is told so."""
        try:
            await self._objects.delete(Key("Session", "", name), writer, uid=uid)
        except (NotFound, Conflict):
            return False
        return True

    async def end_others(self, user: str, *, keep: str, writer: Writer) -> None:
        """End where the user is signed in, but for the session ``keep``; links stay."""
        page = await self._objects.list(Scope(kind="Session", labels=session_labels(user)))
        for stored in page.items:
            if stored.key.name != keep and orjson.loads(stored.body)["spec"]["purpose"] != "link":
                await self.end(stored.key.name, stored.uid, writer=writer)


def _labels(vouched: Vouched | None) -> Mapping[str, str]:
    return vouched_labels(vouched.provider, vouched.provider_uid, sid=vouched.sid) if vouched else {}


def _said_of(vouched: Vouched | None) -> Mapping[str, Any]:
    if vouched is None:
        return {}
    return {"provider": vouched.provider, "providerUid": vouched.provider_uid, "groups": list(vouched.groups)}
