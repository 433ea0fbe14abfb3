"""Providers that vouch for people: which there are, whose bearers count, and for whom.

Two watches keep providers and Users in memory; a token is verified once and remembered by its digest until it ends. So
a request with a bearer that was seen before asks neither the store nor an issuer, and what was withdrawn since (the
provider, a key, the person) is looked at each time. Of two providers with one issuer or one prefix the older counts.
It speaks no HTTP: see `api.oidcdoor`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from bessemer.api.context import Identity
from bessemer.api.oidcpeople import People, Person, Vouched, address, group_names, person_name, text
from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, DriverError, Expired, Unauthenticated
from bessemer.core.ports import Bookmark, Objects, Scope
from bessemer.core.resource import Change
from bessemer.drivers.oidc import verify
from bessemer.drivers.oidc.keyring import READ_SECONDS, Keyring, Known
from bessemer.drivers.oidc.protocol import Issuers
from bessemer.drivers.oidc.verify import Read, Rules, TokenRefused
from bessemer.kinds.tenancy.identityprovider import IdentityProvider, OidcSpec, older_first, reach_of

log = structlog.get_logger(__name__)

MASTERS = "system:masters"
VERIFIED_MAX = 10_000
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """An IdentityProvider that vouches for people by OpenID, of one generation."""

    body: IdentityProvider
    spec: OidcSpec
    keyring: Keyring

    @property
    def name(self) -> str:
        return self.body.metadata.name

    def rules(self, known: Known) -> Rules:
        """What its tokens must be."""
        ours = (self.spec.client_id, self.spec.cli_client_id)
        return Rules(
            issuer=self.spec.issuer,
            algorithms=known.metadata.algorithms,
            audiences=frozenset(one for one in ours if one),
            access=frozenset(self.spec.audiences),
        )


@dataclass(frozen=True, slots=True)
class _Verified:
    provider: Provider
    epoch: int
    who: Vouched


class Federation:
    """Run it with `run`. ``people`` are the Users."""

    def __init__(self, objects: Objects, clock: Clock, issuers: Issuers) -> None:
        self._objects = objects
        self._clock = clock
        self._issuers = issuers
        self._bodies: dict[str, IdentityProvider] = {}
        self._providers: dict[str, Provider] = {}
        self._by_issuer: dict[str, Provider] = {}
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._full = asyncio.Event()
        self.people = People(objects)

    async def run(self) -> None:
        """Follow until cancelled, and read issuers again that were read long ago."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow("IdentityProvider"))
            group.create_task(self._follow("User"))
            group.create_task(self._refresh())

    async def offered(self) -> Sequence[Provider]:
        """The providers by which people can sign in now, by name."""
        await self._full.wait()
        return [self._providers[name] for name in sorted(self._providers)]

    async def provider(self, name: str) -> Provider:
        """Raises Unauthenticated where it vouches for nobody (any more)."""
        await self._full.wait()
        found = self._providers.get(name)
        if found is None:
            raise Unauthenticated("there is no such way to sign in")
        return found

    async def bearer(self, token: str) -> Identity:
        """Who shows a token of a known issuer. Raises Unauthenticated."""
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        found = self._verified.get(digest)
        if found is None or not self._holds(found):
            self._verified.pop(digest, None)
            found = await self._judged(token)
            self._verified[digest] = found
            while len(self._verified) > VERIFIED_MAX:
                self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(digest)
        person = await self.people.admitted(found.who, create=found.provider.spec.create_users)
        if found.who.made <= person.left:
            raise Unauthenticated("you have signed out: sign in again")
        return self.identity(found.who.name, person, groups=found.who.groups, provider=found.provider.name)

    def identity(
        self, name: str, person: Person, *, groups: tuple[str, ...], provider: str, session: str = ""
    ) -> Identity:
        """How somebody stands here whom a provider vouches for."""
        given = (MASTERS, *groups) if person.admin else groups
        return Identity("user", name, person.admin, given, session, provider)

    async def vouches(self, session: Mapping[str, Any]) -> tuple[str, ...]:
        """The groups of a Session (its spec) that a provider vouched for. Raises Unauthenticated where that does not
        any more."""
        await self._full.wait()
        provider = self._providers.get(session.get("provider", ""))
        if provider is None or provider.body.uid != session.get("providerUid"):
            raise Unauthenticated("the session has ended: sign in again")
        return tuple(session.get("groups", ()))

    async def stands(self, issuer: str) -> bool:
        """Whether somebody vouches for that issuer's people now."""
        await self._full.wait()
        return issuer in self._by_issuer

    async def claims(self, provider: Provider, token: str, *, leaving: bool = False) -> Mapping[str, Any]:
        """What a token of this provider says, with ``leaving`` a logout token. Raises Unauthenticated."""
        try:
            return (await self._read(provider, verify.read(token), leaving=leaving))[1]
        except TokenRefused as error:
            raise Unauthenticated(f"the token is refused: {error}") from error

    def vouched(self, provider: Provider, claims: Mapping[str, Any]) -> Vouched:
        """Who verified claims speak of. Raises Unauthenticated."""
        spec, prefix = provider.spec, provider.body.prefix
        for wanted in spec.required_claims:
            value = claims.get(wanted.claim)
            if wanted.value not in (value if isinstance(value, list) else [value]):
                raise Unauthenticated(f"the issuer does not say what is asked of {wanted.claim}")
        return Vouched(
            provider=provider.name,
            provider_uid=provider.body.uid,
            issuer=spec.issuer,
            subject=claims["sub"],
            name=person_name(claims, spec.username_claim, prefix=prefix, fold_case=spec.fold_case),
            groups=group_names(claims, spec.groups_claim, prefix=prefix),
            made=float(claims["iat"]),
            expires=float(claims["exp"]),
            display=text(claims, "name"),
            email=address(claims),
            sid=text(claims, "sid"),
        )

    # --- tokens ---

    def _holds(self, found: _Verified) -> bool:
        provider = found.provider
        return (
            self._providers.get(provider.name) is provider
            and provider.keyring.epoch == found.epoch
            and found.who.expires + verify.SKEW_SECONDS > self._clock.now()
            and found.who.made + verify.AGE_SECONDS_MAX + verify.SKEW_SECONDS > self._clock.now()
        )

    async def _judged(self, token: str) -> _Verified:
        await self._full.wait()
        try:
            read = verify.read(token)
            provider = self._by_issuer.get(read.issuer)
            if provider is None:
                raise Unauthenticated("the token is of no issuer that is known here")
            epoch, claims = await self._read(provider, read)
        except TokenRefused as error:
            raise Unauthenticated(f"the token is refused: {error}") from error
        return _Verified(provider, epoch, self.vouched(provider, claims))

    async def _read(self, provider: Provider, token: Read, *, leaving: bool = False) -> tuple[int, Mapping[str, Any]]:
        """The epoch of the keys and the claims. Raises TokenRefused, Unauthenticated."""
        judge = verify.logout if leaving else verify.verified
        try:
            known = await provider.keyring.known()
            now = self._clock.now()
            try:
                return known.epoch, judge(token, known.keys, rules=provider.rules(known), now=now)
            except TokenRefused as error:
                if not error.unknown_key:
                    raise
                newer = await provider.keyring.newer(known)
                if newer is known:
                    raise
                return newer.epoch, judge(token, newer.keys, rules=provider.rules(newer), now=now)
        except DriverError as error:
            raise Unauthenticated(f"the issuer cannot be asked: {error.message}", internal=error.internal) from error

    # --- what there is ---

    async def _refresh(self) -> None:
        while True:
            await self._clock.sleep(READ_SECONDS / 4)
            for provider in list(self._providers.values()):
                await provider.keyring.refresh()

    async def _follow(self, kind: str) -> None:
        since: int | None = None
        while True:
            try:
                async for event in self._objects.watch(Scope(kind=kind), since=since):
                    since = event.revision
                    self._hear(kind, event)
            except Expired:
                since = None  # and a new list, which does not tell what was deleted meanwhile
                self._forget(kind)
            except BessemerError as error:
                log.warning("watch of people failed", kind=kind, error=error.message, internal=error.internal)
                await self._clock.sleep(RETRY_SECONDS)

    def _forget(self, kind: str) -> None:
        if kind == "User":
            self.people.clear()
        else:
            self._full.clear()
            self._bodies.clear()
            self._settle()

    def _hear(self, kind: str, event: Change | Bookmark) -> None:
        if isinstance(event, Bookmark):
            (self.people.full if kind == "User" else self._full).set()
        elif kind == "User":
            self.people.apply(event)
        else:
            self._bodies.pop(event.key.name, None)
            if event.type != "DELETED":
                self._bodies[event.key.name] = IdentityProvider.load(event.body)
            self._settle()

    def _settle(self) -> None:
        """Which providers count; one whose intent stayed is the same as before, with its keys and tokens."""
        before, self._providers, self._by_issuer = self._providers, {}, {}
        for body in older_first(self._bodies.values()):
            spec = body.spec.oidc
            if spec is None or body.spec.disabled or body.deleting:
                continue
            was = before.get(body.metadata.name)
            same = was is not None and (was.body.uid, was.body.spec) == (body.uid, body.spec)
            made = was if was is not None and same else self._provider(body, spec, was)
            self._providers[made.name] = self._by_issuer[spec.issuer] = made

    def _provider(self, body: IdentityProvider, spec: OidcSpec, was: Provider | None) -> Provider:
        reach = reach_of(spec)
        kept = was is not None and was.body.uid == body.uid and was.keyring.reach == reach
        return Provider(body, spec, was.keyring if was and kept else Keyring(self._issuers, reach, self._clock))
