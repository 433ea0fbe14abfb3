"""Who belongs to which tenant, what a tenant may and pays by, and which projects there are: in memory, by two watches.

A write through this process waits until the directory has seen it (`reach`), so that whoever made a tenant may use it
at once; another replica's write arrives with its watch. It decides nothing: see `api.access`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import orjson
import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Expired, Unavailable
from bessemer.core.ports import Bookmark, Objects, Scope
from bessemer.core.resource import Change, tenant_of
from bessemer.kinds.tenancy.tenant import Allowed, allowed, bearable

log = structlog.get_logger(__name__)

KINDS = ("Tenant", "Project")
REACH_SECONDS_MAX = 2.0


@dataclass(frozen=True, slots=True)
class TenantTerms:
    """Of a tenant: roles by user, its price plan's name, the keys of the taints that its workloads may bear, its state,
    and of flavors, images and models (by the field of a workload's spec) those that it may use."""

    members: Mapping[str, str]
    plan: str
    bearable: frozenset[str]
    state: str = "Active"
    allowed: Mapping[str, Allowed] = field(default_factory=lambda: MappingProxyType({}))

    def why_not(self, tenant: str) -> str:
        """Why the people of the tenant, which has these terms, write nothing now; "" where they may."""
        if self.state == "Active":
            return ""
        suspended = "suspended: its people read, and write once an administrator of the platform resumes it"
        return f"tenant {tenant} is {suspended if self.state == 'Suspended' else 'closed'}"


NO_TERMS = TenantTerms(MappingProxyType({}), "", frozenset())


class Directory:
    """Run it with `run`; read it after `ready`."""

    def __init__(self, objects: Objects, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock
        self._tenants: dict[str, TenantTerms] = {}
        self._projects: dict[str, set[str]] = {}
        self._revisions = dict.fromkeys(KINDS, 0)
        self._moved = asyncio.Event()
        self._turn = asyncio.Event()
        self._full: set[str] = set()

    async def run(self) -> None:
        """Follow tenants and projects until cancelled."""
        await asyncio.gather(*(self._follow(kind) for kind in KINDS))

    async def ready(self) -> None:
        """Wait for the first whole view. Raises Unavailable where it does not come."""
        await self._until(lambda: len(self._full) == len(KINDS))

    async def reach(self, kind: str, revision: int) -> None:
        """Wait until a write of that kind and revision is seen, but not for ever."""
        if kind in self._revisions:
            await self._until(lambda: self._revisions[kind] >= revision)

    def tenants(self, user: str) -> Mapping[str, str]:
        """Tenant → role of everywhere that the user is a member."""
        return {name: self.role(user, name) for name, tenant in self._tenants.items() if user in tenant.members}

    def role(self, user: str, tenant: str) -> str:
        """The user's role in the tenant, or "". In one that is not active everybody reads, and no more."""
        terms = self.terms(tenant)
        role = terms.members.get(user, "")
        return role if terms.state == "Active" or not role else "reader"

    def terms(self, tenant: str) -> TenantTerms:
        """What a tenant pays by and may; of one that is not there, nothing."""
        return self._tenants.get(tenant, NO_TERMS)

    def projects(self, tenant: str) -> frozenset[str]:
        """The names of the tenant's projects."""
        return frozenset(self._projects.get(tenant, ()))

    def all_projects(self) -> list[str]:
        """Every project's name, in order."""
        return sorted(name for names in self._projects.values() for name in names)

    @property
    def turn(self) -> asyncio.Event:
        """Is set when the members or the plan of a tenant change next."""
        return self._turn

    async def _until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(REACH_SECONDS_MAX):
                while not holds():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError as error:
            raise Unavailable("the server has not read its tenants yet") from error

    async def _follow(self, kind: str) -> None:
        since: int | None = None
        while True:
            try:
                async for event in self._objects.watch(Scope(kind=kind), since=since):
                    since = event.revision
                    self._apply(kind, event)
            except Expired:
                since = None  # and a new list, which does not tell what was deleted meanwhile
                self._full.discard(kind)
                (self._tenants if kind == "Tenant" else self._projects).clear()
            except BessemerError as error:
                log.warning("directory watch failed", kind=kind, error=error.message, internal=error.internal)
                await self._clock.sleep(1.0)

    def _apply(self, kind: str, event: Change | Bookmark) -> None:
        if isinstance(event, Bookmark):
            self._full.add(kind)
        elif kind == "Tenant":
            self._tenant(event)
        else:
            self._project(event)
        if isinstance(event, Bookmark) or kind in self._full:
            self._revisions[kind] = max(self._revisions[kind], event.revision)
        self._moved.set()

    def _tenant(self, change: Change) -> None:
        name = change.key.name
        before = self._tenants.pop(name, None)
        if change.type != "DELETED":
            self._tenants[name] = _read(orjson.loads(change.body))
        if before != self._tenants.get(name):
            turn, self._turn = self._turn, asyncio.Event()
            turn.set()

    def _project(self, change: Change) -> None:
        names = self._projects.setdefault(tenant_of(change.key.name), set())
        if change.type == "DELETED":
            names.discard(change.key.name)
        else:
            names.add(change.key.name)


def _read(tenant: Mapping[str, Any]) -> TenantTerms:
    spec = tenant.get("spec", {})
    return TenantTerms(
        members={member["user"]: member.get("role", "member") for member in spec.get("members", ())},
        plan=spec.get("pricePlan", "standard"),
        bearable=bearable(tenant),
        state=spec.get("state", "Active"),
        allowed=allowed(tenant),
    )
