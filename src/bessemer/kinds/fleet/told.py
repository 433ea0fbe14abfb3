"""`Told`: what changes of Tenants, Hosts and Claims tell the arrays of placement.

A change costs what its one host costs; a Claim's status is never parsed, for what a Claim holds is fixed when it is
taken, but for when it ends. Each is harmless when told again.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from bessemer.core.hosts import Inventory
from bessemer.core.resource import Change
from bessemer.kinds.fleet.demand import Demand
from bessemer.kinds.fleet.holds import hold_of, taken_of
from bessemer.kinds.fleet.host import Host
from bessemer.kinds.fleet.tenure import leaves
from bessemer.kinds.tenancy.tenant import OwnHosts, own_hosts
from bessemer.placement import FleetArrays, HostFacts, Wall, set_wall
from bessemer.placement.fleet import rename, set_open


class Told:
    """``known`` are the names of what there is by kind, of Claims the uids; ``heard`` is the revision of each host that
    was told last. What is told before ``followed`` was there before anybody looked."""

    def __init__(self, arrays: FleetArrays, demand: Demand) -> None:
        self.arrays = arrays
        self.known: Mapping[str, set[str]] = {kind: set() for kind in ("Tenant", "Host", "Claim", "Consolidation")}
        self.heard: dict[str, int] = {}
        self.followed = False
        self.walls = _Walls(arrays, self.known["Tenant"])
        self._demand = demand
        self._open: dict[str, bool] = {}
        self._shut: frozenset[str] = frozenset()
        self._ending: set[str] = set()

    def host_changed(self, change: Change) -> None:
        """Raises ValueError where no sense can be made of it."""
        name = change.key.name
        if change.type == "DELETED":
            self.known["Host"].discard(name)
            self.host_gone(name)
            return
        self.known["Host"].add(name)
        self.heard[name] = change.revision
        self.arrays.set_host(self.facts(change.body))
        self._demand.hosts_changed()

    def facts(self, body: bytes) -> HostFacts:
        """What a Host's body says, behind its wall of this moment. Raises ValueError likewise."""
        host = Host.load(body)
        name = host.metadata.name
        self._open[name] = host.open
        return HostFacts(
            name=name,
            inventory=host.status.report or Inventory(),
            overcommit_milli=host.spec.overcommit_milli,
            taints=tuple(host.taint_keys),
            wall=self.walls.stand(name, host.spec.site, labels=host.metadata.labels),
            schedulable=host.open and name not in self._shut,
            reachable=host.reachable,
        )

    def host_gone(self, name: str) -> None:
        """The host is no more; what it held may still come to an end."""
        self.heard.pop(name, None)
        self._open.pop(name, None)
        self.walls.leave(name)
        self.arrays.remove_host(name)
        self._demand.hosts_changed()

    def shut(self, hosts: frozenset[str]) -> None:
        """Nothing new lands on these for now, whatever they say themselves; all others are as they say."""
        for name in self._shut ^ hosts:
            set_open(self.arrays, name, schedulable=self._open.get(name, False) and name not in hosts)
        self._shut = hosts

    def claim_changed(self, change: Change) -> None:
        """A Claim takes the place of what was assumed for its replica. Raises ValueError likewise."""
        if change.type == "DELETED":
            self.claim_gone(change.uid)
            return
        # What was told to end, and need not, is read once more.
        ends = leaves(change.body)
        again = ends or change.uid in self._ending
        (self._ending.add if ends else self._ending.discard)(change.uid)
        if change.uid not in self.known["Claim"]:
            self.known["Claim"].add(change.uid)
            replica, hold = taken_of(change)
            rename(self.arrays, replica, uid=change.uid, hold=hold)
            self._demand.began(hold, before=not self.followed)
        elif again:
            self.arrays.hold(change.uid, hold_of(change))

    def claim_gone(self, uid: str) -> None:
        """What it held is free."""
        counted = uid in self.known["Claim"]
        self.known["Claim"].discard(uid)
        self._ending.discard(uid)
        hold = self.arrays.drop(uid)
        if hold is not None and counted:
            self._demand.ended(hold)


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
