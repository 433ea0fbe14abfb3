"""Which providers vouch for people now: in memory, by one watch, with the keys of their issuers.

Of two providers with one issuer or one prefix the older counts. A provider whose intent stayed is the same object as
before, so that what was verified by it can be told by identity; with another intent it is another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from pydantic import ValidationError

from bessemer.api.following import Following
from bessemer.api.oidcpeople import People, whole
from bessemer.core.clock import Clock
from bessemer.core.errors import Unauthenticated
from bessemer.core.ports import Bookmark, Objects
from bessemer.core.resource import Change
from bessemer.drivers.oidc.keyring import READ_SECONDS, Keyring, Known
from bessemer.drivers.oidc.protocol import Issuers
from bessemer.drivers.oidc.verify import Rules
from bessemer.kinds.tenancy.identityprovider import IdentityProvider, OidcSpec, directory_issuer, older_first, reach_of

log = structlog.get_logger(__name__)


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


class Providers:
    """Run it with `run`. ``people`` are the Users, by a watch beside its own."""

    def __init__(self, objects: Objects, clock: Clock, *, issuers: Issuers, following: Following) -> None:
        self._following = following
        self._clock = clock
        self._issuers = issuers
        self._bodies: dict[str, IdentityProvider] = {}
        self._by_name: dict[str, Provider] = {}
        self._by_issuer: dict[str, Provider] = {}
        self._directories: dict[str, IdentityProvider] = {}
        self._full = asyncio.Event()
        self.people = People(objects)

    async def run(self) -> None:
        """Follow until cancelled, and read issuers again that were read long ago."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow("IdentityProvider"))
            group.create_task(self._follow("User"))
            group.create_task(self._refresh())

    async def all(self) -> Sequence[Provider]:
        """Those by which people can sign in now, by name."""
        await whole(self._full)
        return [self._by_name[name] for name in sorted(self._by_name)]

    async def named(self, name: str) -> Provider:
        """Raises Unauthenticated where it vouches for nobody (any more)."""
        await whole(self._full)
        found = self._by_name.get(name)
        if found is None:
            raise Unauthenticated("there is no such way to sign in")
        return found

    async def of_issuer(self, issuer: str) -> Provider:
        """Raises Unauthenticated for one that nobody named here."""
        await whole(self._full)
        found = self._by_issuer.get(issuer)
        if found is None:
            raise Unauthenticated("the token is of no issuer that is known here")
        return found

    async def vouch_for(self, issuer: str) -> bool:
        """Whether one does for that issuer's people."""
        await self._full.wait()
        return issuer in self._by_issuer or any(
            directory_issuer(body.uid) == issuer for body in self._directories.values()
        )

    async def directories(self) -> Mapping[str, IdentityProvider]:
        """The directories by which people can sign in now, by the prefix of their names."""
        await self._full.wait()
        return {body.prefix: body for body in self._directories.values()}

    async def uid_of(self, name: str) -> str:
        """The uid of a provider that vouches for people now, in whatever way; "" of one that does not."""
        await self._full.wait()
        if name in self._directories:
            return self._directories[name].uid
        return self._by_name[name].body.uid if name in self._by_name else ""

    def holds(self, provider: Provider) -> bool:
        """Whether it vouches for people yet, by the same intent."""
        return self._by_name.get(provider.name) is provider

    async def _refresh(self) -> None:
        while True:
            await self._clock.sleep(READ_SECONDS / 4)
            for provider in list(self._by_name.values()):
                await provider.keyring.refresh()

    async def _follow(self, kind: str) -> None:
        async def begin() -> None:
            self._forget(kind)

        await self._following.follow(kind, hear=partial(self._hear, kind), begin=begin)

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
            body = _read(event) if event.type != "DELETED" else None
            if body is not None:
                self._bodies[event.key.name] = body
            self._settle()

    def _settle(self) -> None:
        """Which providers count; one whose intent stayed is the same as before, with its keys and tokens."""
        before, self._by_name, self._by_issuer, self._directories = self._by_name, {}, {}, {}
        for body in older_first(self._bodies.values()):
            spec = body.spec.oidc
            if body.spec.disabled or body.deleting:
                continue
            if body.spec.ldap is not None:
                self._directories[body.metadata.name] = body
            if spec is None:
                continue
            was = before.get(body.metadata.name)
            same = was is not None and (was.body.uid, was.body.spec) == (body.uid, body.spec)
            made = was if was is not None and same else self._provider(body, spec, was=was)
            self._by_name[made.name] = self._by_issuer[spec.issuer] = made

    def _provider(self, body: IdentityProvider, spec: OidcSpec, *, was: Provider | None) -> Provider:
        reach = reach_of(spec)
        kept = was is not None and was.body.uid == body.uid and was.keyring.reach == reach
        return Provider(body, spec, was.keyring if was and kept else Keyring(self._issuers, reach, clock=self._clock))


def _read(change: Change) -> IdentityProvider | None:
    """None for one that another release wrote, and this one cannot read: it vouches for nobody here."""
    try:
        return IdentityProvider.load(change.body)
    except ValidationError:
        log.warning("a provider cannot be read: it vouches for nobody", name=change.key.name)
        return None
