"""What must hold of a cloud after every step, whatever happened: read from the store's file, and from the hosts.

Devices, capacity, quota counters and ledger are checked against the Claims by `tests.store.invariants`, which shares no
code with the store. What stands here is about time: quotas that are never passed, and objects that wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bessemer.agent.claims import DEADLINES
from bessemer.core.ports import Scope
from bessemer.core.values import UsageRecord
from bessemer.kinds import KINDS
from tests.kinds import rest
from tests.kinds.world import check_intervals
from tests.sim.cloud import TENANTS, Cloud
from tests.sim.control import LEASE_SECONDS
from tests.store import invariants

SLACK_SECONDS = 60.0
"""How late a Stuck may come: a look every half minute at the latest, and a turn."""


@dataclass(frozen=True)
class Waiter:
    """Who waits: ``where`` in words, ``spell`` what tells this waiting from another, ``limit`` in seconds."""

    uid: str
    where: str
    spell: str
    limit: float
    status: Mapping[str, Any]


class Invariants:
    """Holds one cloud to them. It remembers what it saw the last time."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._used: dict[tuple[str, str], int] = {}
        self._bounds: dict[tuple[str, str], int | None] = {}
        self._waiting: dict[str, tuple[str, float]] = {}
        # Of rivals nobody may speak until the lease of one that is held up has run out and another has asked for it.
        self._slack = SLACK_SECONDS + (LEASE_SECONDS * 4 / 3 if len(cloud.controllers) > 1 else 0.0)
        self.stuck = 0
        self.checks = 0

    def forget(self) -> None:
        """The control plane began anew: what it waits for it counts from now on."""
        self._waiting.clear()

    async def check(self) -> None:
        """Raise AssertionError where something does not hold."""
        self.checks += 1
        invariants.check(self._cloud.path)
        await self._quota()
        await self._deadlines()

    async def _quota(self) -> None:
        """Use grows within its bound alone; a bound that was lowered below it lets it only shrink."""
        for scope in [f"{kind}/{name}" for t in TENANTS for kind, name in (("tenant", t), ("project", f"{t}--lab"))]:
            for meter in await self._cloud.store.capacity.use(scope):
                key = (scope, meter.meter)
                before, bound = self._used.get(key, 0), self._bounds.get(key)
                limits = [limit for limit in (meter.limit, bound) if limit is not None]
                if len(limits) == 2 or (limits and key not in self._bounds):
                    assert meter.used <= max(*limits, before), f"{key}: {meter.used} of {meter.limit}, before {before}"
                self._used[key], self._bounds[key] = meter.used, meter.limit

    async def _deadlines(self) -> None:
        """Who waits in a phase for longer than its deadline says so."""
        now = self._cloud.clock.monotonic()
        waiting: dict[str, tuple[str, float]] = {}
        for waiter in await self._waiters():
            since = self._waiting.get(waiter.uid, ("", now))
            waiting[waiter.uid] = since = since if since[0] == waiter.spell else (waiter.spell, now)
            if now - since[1] > waiter.limit + self._slack:
                said = _condition(waiter.status, "Stuck")
                assert said.get("status") == "True", f"{waiter.where} and says nothing: {waiter.status}"
                assert said.get("reason")
                assert said.get("message")
                self.stuck += 1
        self._waiting = waiting

    async def _waiters(self) -> list[Waiter]:
        """Everybody of every kind who is not Ready and not at rest either; what has no deadline may not wait at all."""
        fences = {lease.name: lease.fence for lease in await self._cloud.store.leases.held("loop/")}
        found = []
        for kind in (kind for kind in KINDS if kind.reconcile is not None or kind.finalize is not None):
            for stored in (await self._cloud.store.objects.list(Scope(kind=kind.name))).items:
                status = orjson.loads(stored.body).get("status", {})
                phase = status.get("phase") or rest.first_phase(kind)
                where = f"{stored.key} waits in {phase}"
                if _condition(status, "Ready").get("status") == "True":
                    continue
                if phase not in kind.deadlines:
                    assert phase in rest.AT_REST, f"{where}, which has no deadline: {status}"
                    continue
                # Who takes over counts anew where the wall clock has jumped.
                spell = f"{phase} since {status.get('phaseSince')} under {fences.get(f'loop/{kind.name}')}"
                found.append(Waiter(stored.uid, where, spell, kind.deadlines[phase], status))
        return [*found, *await self._claims()]

    async def _claims(self) -> list[Waiter]:
        """The Claims whose host is heard. One that is away says nothing: whoever holds its Claims says so instead."""
        heard = {}
        for host in await self._cloud.bodies("Host"):
            reachable, name = _condition(host.get("status", {}), "Reachable"), host["metadata"]["name"]
            agent = self._cloud.machines[name].task
            if reachable.get("status") == "True" and agent is not None:
                heard[name] = f"heard since {reachable['lastTransitionTime']} of agent {id(agent)}"
        found = []
        for claim in await self._cloud.bodies("Claim"):
            meta, status, spec = claim["metadata"], claim.get("status", {}), claim["spec"]
            phase = status.get("phase") or "Pending"
            where = f"Claim {meta['namespace']}/{meta['name']} waits in {phase}"
            assert phase in DEADLINES or phase in rest.AT_REST, f"{where}, which has no deadline: {status}"
            if phase in DEADLINES and spec["host"] in heard and _condition(status, "Ready").get("status") != "True":
                spell = f"{phase} since {status.get('phaseSince')} {heard[spec['host']]}"
                found.append(Waiter(meta["uid"], where, spell, DEADLINES[phase], status))
        return found

    async def _as_said(self) -> None:
        """The rows by which the store disposes are what the objects say, whoever wrote them last."""
        cloud = self._cloud
        for found in await cloud.bodies("Tenant"):
            bounds = {
                use.meter: use.limit for use in await cloud.store.capacity.use(f"tenant/{found['metadata']['name']}")
            }
            quota = found["spec"]["quota"]
            said = {
                "milli_cores": quota["milliCores"],
                "memory_bytes": quota["memoryBytes"],
                "devices/*": quota["devices"]["*"],
            }
            assert {meter: bounds.get(meter) for meter in said} == said, found["metadata"]["name"]
        assert invariants.closed_hosts(cloud.path) == []

    async def nothing_left(self, metered: Sequence[UsageRecord]) -> None:
        """After everything was deleted: no claim, nothing held, nothing on any host, every interval closed once."""
        cloud = self._cloud
        left: dict[str, Any] = {kind: await cloud.bodies(kind) for kind in ("Instance", "Endpoint", "Claim")}
        assert not any(left.values()), left
        assert [use for use in await cloud.store.capacity.devices() if use.claim] == []
        for scope in self._used:
            left = {use.meter for use in await cloud.store.capacity.use(scope[0]) if use.used}
            assert left <= {"projects", "api_keys"}, "which stand"
        for machine in cloud.machines.values():
            assert await machine.residue() == [], machine.name
            assert list((cloud.directory / machine.name / "claims").glob("*")) == [], machine.name
        rows = list(await cloud.store.ledger.entries())
        check_intervals(rows, closed=True)
        settled = sum(row.output_tokens for row in rows if row.kind == "tokens")
        assert settled == sum(record.output_tokens for record in metered)
        assert await cloud.store.audit.verify() is None
        await self._as_said()
        hosts = {body["metadata"]["name"]: body["status"]["phase"] for body in await cloud.bodies("Host")}
        assert set(hosts.values()) == {"Ready"}, hosts


def _condition(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The condition of that type; empty where there is none."""
    return next((c for c in status.get("conditions", ()) if c["type"] == name), {})
