"""Whose bearers count: tokens of issuers that a provider names, and who shows them.

A token is verified once and remembered by its digest until it ends. So a request with a bearer seen before asks
neither the store nor an issuer, and what was withdrawn since (the provider, a key, the person) is looked at each time.
It speaks no HTTP: see `api.oidcdoor`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bessemer.api.context import Identity
from bessemer.api.following import Following
from bessemer.api.oidcpeople import People, Person, Vouched, address, group_names, person_name, text
from bessemer.api.oidcproviders import Provider, Providers
from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError, Unauthenticated
from bessemer.core.ports import Objects
from bessemer.drivers.oidc import verify
from bessemer.drivers.oidc.protocol import Issuers
from bessemer.drivers.oidc.verify import Read, TokenRefused

MASTERS = "system:masters"
VERIFIED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class _Verified:
    provider: Provider
    epoch: int
    who: Vouched


class Federation:
    """Run it with `run`."""

    def __init__(self, objects: Objects, clock: Clock, *, issuers: Issuers, following: Following) -> None:
        self._clock = clock
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self.providers = Providers(objects, clock, issuers=issuers, following=following)

    @property
    def people(self) -> People:
        return self.providers.people

    async def run(self) -> None:
        """Follow providers and Users until cancelled."""
        await self.providers.run()

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
        if not self._holds(found):
            raise Unauthenticated("what vouches for you has changed: ask again")  # while this was looked at
        return self.identity(found.who.name, person, groups=found.who.groups, provider=found.provider.name)

    def identity(self, name: str, person: Person, *, groups: tuple[str, ...], provider: str) -> Identity:
        """How somebody stands here whom a provider vouches for."""
        given = (MASTERS, *groups) if person.admin else groups
        return Identity("user", name, person.admin, given, provider=provider)

    async def vouches(self, session: Mapping[str, Any]) -> tuple[str, ...]:
        """The groups of a Session (its spec) that a provider vouched for. Raises Unauthenticated where that does not
        any more."""
        uid = await self.providers.uid_of(session["provider"])
        if not uid or uid != session.get("providerUid"):
            raise Unauthenticated("the session has ended: sign in again")
        return tuple(session.get("groups", ()))

    async def stands(self, issuer: str) -> bool:
        """Whether somebody vouches for that issuer's people now."""
        return await self.providers.vouch_for(issuer)

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
            self.providers.holds(provider)
            and provider.keyring.epoch == found.epoch
            and found.who.expires + verify.SKEW_SECONDS > self._clock.now()
            and found.who.made + verify.AGE_SECONDS_MAX + verify.SKEW_SECONDS > self._clock.now()
        )

    async def _judged(self, token: str) -> _Verified:
        try:
            read = verify.read(token)
            provider = await self.providers.of_issuer(read.issuer)
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
