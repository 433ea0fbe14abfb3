"""`FleetFeed`: placement's arrays, kept current from the changes of Host and Claim, and of Tenant for whose hosts are.

main starts one in each process with a controller, or an api for dry runs. Invariants: it reads everything once and then
only changes, unless history ran out; a change costs what its one host costs; a Claim's status is never parsed, for what
a Claim holds is fixed when it is taken. The arrays may lag behind the truth, and the transaction disposes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson
import structlog

from bessemer.core.beside import CompanionUse
from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Expired, Unavailable
from bessemer.core.ports import Objects, Scope
from bessemer.core.resource import Change
from bessemer.core.values import Allocation, Asker, Decision, Inventory, Refusal, Request
from bessemer.kinds.fleet.host import Host
from bessemer.kinds.tenancy.tenant import OwnHosts, own_hosts
from bessemer.placement import FleetArrays, Hold, HostFacts, Wall, decide, set_wall

ASSUMED_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_REFUSALS_MAX = 1_000
_KINDS = ("Tenant", "Host", "Claim")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Source:
    """A kind that is followed: what its objects are known by, what to do with a change, and with what a new list no
    longer has."""

    kind: str
    name: Callable[[Change], str]
    apply: Callable[[Change], None]
    remove: Callable[[str], None]


class _Walls:
    """Whose each host is, from what tenants have to themselves. ``known`` are the tenants that there are."""

    def __init__(self, arrays: FleetArrays, known: set[str]) -> None:
        self._arrays = arrays
        self._known = known
        self._places: dict[str, tuple[str, Mapping[str, str]]] = {}
        self._dedicated: dict[str, OwnHosts] = {}

    def changed(self, change: Change) -> None:
        """A tenant did."""
        name = change.key.name
        if change.type == "DELETED":
            self._known.discard(name)
            self.gone(name)
            return
        self._known.add(name)
        self._dedicate(name, own_hosts(orjson.loads(change.body)))

    def gone(self, tenant: str) -> None:
        """It has no hosts any more."""
        self._dedicate(tenant, OwnHosts())

    def stand(self, host: str, site: str, *, labels: Mapping[str, str]) -> Wall:
        """A host's wall, as the host is now."""
        self._places[host] = (site, labels)
        return self._wall(host)

    def leave(self, host: str) -> None:
        """The host is gone."""
        self._places.pop(host, None)

    def _dedicate(self, tenant: str, hosts: OwnHosts) -> None:
        """Few tenants have hosts of their own, and they change seldom: then every host is looked at."""
        before = self._dedicated.pop(tenant, OwnHosts())
        if hosts.names or hosts.match_labels:
            self._dedicated[tenant] = hosts
        if before != hosts:
            for host in self._places:
                set_wall(self._arrays, host, wall=self._wall(host))

    def _wall(self, host: str) -> Wall:
        site, labels = self._places[host]
        return Wall(site, frozenset(name for name, hosts in self._dedicated.items() if hosts.holds(host, labels)))


class FleetFeed:
    """Implements ``kinds.context.Fleet``."""

    def __init__(self, objects: Objects, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock
        self._arrays = FleetArrays()
        self._assumed: deque[tuple[float, str]] = deque()
        self._known: dict[str, set[str]] = {kind: set() for kind in _KINDS}
        self._since: dict[str, int | None] = dict.fromkeys(_KINDS)
        self._unread = set(_KINDS)
        self._walls = _Walls(self._arrays, self._known["Tenant"])
        self._read = False
        self._refusals: dict[Request, Refusal] = {}
        self._refusals_version = -1

    async def run(self) -> None:
        """Follow the kinds, for ever."""
        sources = (
            _Source("Tenant", lambda change: change.key.name, self._walls.changed, self._walls.gone),
            _Source("Host", lambda change: change.key.name, self._host_changed, self._host_gone),
            _Source("Claim", lambda change: change.uid, self._claim_changed, self._claim_gone),
        )
        async with asyncio.TaskGroup() as group:
            for source in sources:
                group.create_task(self._follow(source))

    def ready(self) -> bool:
        """Whether each kind has been read once."""
        return self._read

    def decide(self, request: Request, asker: Asker | None = None) -> Decision | Refusal:
        """Where the request would go now. Raises Unavailable until the fleet has been read."""
        if not self.ready():
            raise Unavailable("The fleet is still being read.", retry_after_seconds=1)
        self._expire()
        # Many replicas ask the same, and a refusal is dear: it tries what would help.
        if self._refusals_version != self._arrays.version or len(self._refusals) > _REFUSALS_MAX:
            self._refusals.clear()
            self._refusals_version = self._arrays.version
        known = self._refusals.get(request)
        if known is not None:
            return known
        answer = decide(self._arrays, request)
        if isinstance(answer, Refusal):
            self._refusals[request] = answer
        return answer

    def assume(self, decision: Decision, claim_uid: str) -> None:
        """Count a decision until its Claim is seen, but for `ASSUMED_SECONDS` at most.

        ``claim_uid`` may also be ``WORKLOAD_UID/REPLICA``, to hold the place before the Claim is taken.
        """
        if claim_uid in self._known["Claim"]:
            return
        self._arrays.hold(claim_uid, Hold.of(decision))
        self._assumed.append((self._clock.monotonic() + ASSUMED_SECONDS, claim_uid))

    def forget(self, claim_uid: str) -> None:
        """Take an assumption back: the Claim was not taken."""
        if claim_uid not in self._known["Claim"]:
            self._arrays.drop(claim_uid)

    def _expire(self) -> None:
        now = self._clock.monotonic()
        while self._assumed and self._assumed[0][0] <= now:
            self.forget(self._assumed.popleft()[1])

    async def _follow(self, source: _Source) -> None:
        while True:
            try:
                await self._watch(source)
            except Expired:
                log.info("history ran out, reading the fleet anew", kind=source.kind)
                self._since[source.kind] = None
            except BessemerError as error:
                log.warning("watch interrupted", kind=source.kind, error=str(error), internal=error.internal)
            await self._clock.sleep(_RETRY_SECONDS)

    async def _watch(self, source: _Source) -> None:
        """One watch until it ends, and the revision kept from which the next goes on."""
        since = self._since[source.kind]
        listing = since is None
        listed: set[str] = set()
        async for item in self._objects.watch(Scope(kind=source.kind), since=since):
            if isinstance(item, Change):
                _take(source, item)
                if listing:
                    listed.add(source.name(item))
                    continue
            elif listing:
                listing = False
                self._listed(source, listed)
            self._since[source.kind] = item.revision

    def _listed(self, source: _Source, listed: set[str]) -> None:
        for gone in self._known[source.kind] - listed:
            source.remove(gone)
        self._known[source.kind] &= listed
        self._unread.discard(source.kind)
        if not self._unread:
            self._read = True

    def _host_changed(self, change: Change) -> None:
        name = change.key.name
        if change.type == "DELETED":
            self._known["Host"].discard(name)
            self._host_gone(name)
            return
        self._known["Host"].add(name)
        host = Host.load(change.body)
        facts = HostFacts(
            name=name,
            inventory=host.status.report or Inventory(),
            overcommit_milli=host.spec.overcommit_milli,
            taints=tuple(host.taint_keys),
            wall=self._walls.stand(name, host.spec.site, labels=host.metadata.labels),
            schedulable=host.open,
            reachable=host.reachable,
        )
        self._arrays.set_host(facts)

    def _host_gone(self, name: str) -> None:
        self._walls.leave(name)
        self._arrays.remove_host(name)

    def _claim_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            self._claim_gone(change.uid)
        elif change.uid not in self._known["Claim"]:
            self._known["Claim"].add(change.uid)
            spec = orjson.loads(change.body)["spec"]
            workload = spec["workload"]
            self._arrays.drop(f"{workload['uid']}/{workload.get('replica', 0)}")
            parts = tuple(Allocation.model_validate(part) for part in spec.get("allocations", ()))
            beside = tuple(CompanionUse.model_validate(use) for use in spec.get("companions", ()))
            hold = Hold(spec["host"], tuple(spec.get("devices", ())), parts, companions=beside)
            self._arrays.hold(change.uid, hold)

    def _claim_gone(self, uid: str) -> None:
        self._known["Claim"].discard(uid)
        self._arrays.drop(uid)


def _take(source: _Source, change: Change) -> None:
    """Take one change. What cannot be read or counted is left out by itself: one host that lies stops no other."""
    try:
        source.apply(change)
    except (ValueError, OverflowError) as error:
        name = change.key.name
        log.error("left out of placement", kind=source.kind, name=name, object_uid=change.uid, error=str(error)[:500])
        source.remove(source.name(change))
