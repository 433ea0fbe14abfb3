"""Work that goes on through every fault, and the ledger of what was acknowledged of it.

Instances are asked for and given up through each replica, and followed through each; an Endpoint is asked through the
gateway. In the end the database's own log of changes is held against what writers were answered and what watchers saw,
and its ledger against what the gateway answered.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson
import psycopg

from bessemer.client import Client, an_object
from bessemer.core.errors import BessemerError, Expired
from bessemer.core.ports import Scope
from bessemer.core.resource import Change, Key
from bessemer.kinds.fleet.host import FAKE_TAINT
from tests.failover.cluster import HOSTS, Cluster, Replica
from tests.failover.gateway import PROJECT
from tests.store import invariants

TOLERATIONS: Sequence[Mapping[str, str]] = ({"key": FAKE_TAINT},)
PAUSE_SECONDS = 0.25
WAITING_MAX = 16
"""Instances that do not run yet: no more are asked for meanwhile, lest a busy machine do nothing but work off those."""
HELD_MAX = 150
"""Instances that a writer keeps: three of them leave room on the hosts, however long it takes."""

TROUBLE = (BessemerError, OSError)

Log = list[tuple[int, int, str, str]]
"""Of Instances: revision, type, name and uid."""


def instance(name: str) -> dict[str, Any]:
    spec = {"flavor": "small", "image": "micro", "tolerations": TOLERATIONS}
    return an_object(Key("Instance", PROJECT, name), spec)


async def furnish(client: Client) -> None:
    """What instances want, and hosts that are Ready."""
    quota = {"milliCores": 1_200_000, "memoryBytes": 6 << 40, "instances": 4000, "endpoints": 1}
    for kind, name, spec in (
        ("Tenant", "acme", {"quota": quota, "tolerations": TOLERATIONS}),
        ("Project", PROJECT, {}),
        ("Flavor", "small", {"cores": 1, "memory": "256Mi", "disk": "1Gi"}),
        ("Image", "micro", {}),
    ):
        await client.create(an_object(Key(kind, "", name), spec))
    until = time.monotonic() + 180
    while sum(is_ready(orjson.loads(host.body)) for host in (await client.list(Scope(kind="Host"))).items) < HOSTS:
        assert time.monotonic() < until, "no host is Ready"
        await asyncio.sleep(0.1)


async def furnish_all(cluster: Cluster) -> None:
    """That, and an Endpoint which the gateway serves."""
    client = cluster.replicas[0].client
    await furnish(client)
    await cluster.gateway.furnish(client, tolerations=TOLERATIONS)


def is_ready(body: dict[str, Any]) -> bool:
    conditions = body.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _workload(claim: str) -> Sequence[str]:
    """Of a Claim ``instance-NAME-0``, the Instance's name."""
    return [claim.removeprefix("instance-").removesuffix("-0")]


@dataclass
class Work:
    """``acknowledged``: revision → (uid, name) of each write that was answered; ``seen``: by replica, the revisions of
    Instances in the order in which its watch told them."""

    cluster: Cluster
    began: int
    """The revision at which it did."""
    acknowledged: dict[int, tuple[str, str]] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    wanted: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    """By what the watches told last."""
    seen: dict[str, list[int]] = field(default_factory=dict)
    ended: bool = False

    async def write(self, replica: Replica) -> None:
        """Ask for one after the other, and give up every third, or each where there are many."""
        number, mine = 0, list[str]()
        while not self.ended:
            number += 1
            name = f"{replica.name}-{number}"
            if await self.asks_for(replica.client, name):
                mine.append(name)
            if mine and (number % 3 == 0 or len(mine) > HELD_MAX):
                await self._delete(replica.client, mine.pop(random.randrange(len(mine))))
            await asyncio.sleep(PAUSE_SECONDS)
            while len(self.wanted - self.running) > WAITING_MAX and not self.ended:
                await asyncio.sleep(PAUSE_SECONDS)

    async def asks_for(self, client: Client, name: str) -> bool:
        """Ask for an Instance; whether that was acknowledged."""
        try:
            async with asyncio.timeout(15):
                made = await client.create(instance(name))
        except (*TROUBLE, TimeoutError):
            self.unsure.add(name)
            return False
        self.acknowledged[made.revision] = (made.uid, name)
        self.wanted.add(name)
        return True

    async def _delete(self, client: Client, name: str) -> None:
        self.wanted.discard(name)
        try:
            async with asyncio.timeout(15):
                marked = await client.delete(Key("Instance", PROJECT, name))
        except (*TROUBLE, TimeoutError):
            self.unsure.add(name)
            return
        self.acknowledged[marked.revision] = (marked.uid, name)
        self.gone.add(name)

    async def follow(self, replica: Replica) -> None:
        """Watch through one replica; what is broken off is resumed where it ended."""
        seen = self.seen.setdefault(replica.name, [])
        while not self.ended:
            try:
                since = seen[-1] if seen else self.began
                async for event in replica.client.watch(Scope(kind="Instance", namespace=PROJECT), since=since):
                    if isinstance(event, Change):
                        seen.append(event.revision)
                        self._hear(event)
            except Expired:
                raise
            except TROUBLE:
                await asyncio.sleep(0.1)

    def _hear(self, event: Change) -> None:
        runs = orjson.loads(event.body).get("status", {}).get("phase") == "Running"
        if runs and event.type != "DELETED":
            self.running.add(event.key.name)
        else:
            self.running.discard(event.key.name)

    async def runs_again(self, name: str) -> None:
        """Return once something that is asked for from now on runs, whoever is asked of those that the balancer takes
        for well."""
        until, body = time.monotonic() + 90, dict[str, Any]()
        while True:
            for replica in self.cluster.healthy():
                try:
                    async with asyncio.timeout(2):
                        if name not in self.wanted and not await self.asks_for(replica.client, name):
                            name = f"{name}x"
                            continue
                        body = orjson.loads((await replica.client.get(Key("Instance", PROJECT, name))).body)
                    if body.get("status", {}).get("phase") == "Running":
                        return
                except (*TROUBLE, TimeoutError, KeyError):
                    continue
            assert time.monotonic() < until, f"{name} does not run: {body.get('status')}"
            await asyncio.sleep(0.05)

    async def settled(self) -> None:
        """Nobody asks for more: wait until all that is wanted runs, and what was given up is gone."""
        client, until = self.cluster.replicas[0].client, time.monotonic() + 120
        while True:
            try:
                items = (await client.list(Scope(kind="Instance", namespace=PROJECT))).items
            except TROUBLE:  # it was the last to be ended, and comes again
                assert time.monotonic() < until, "the first replica does not answer"
                await asyncio.sleep(0.5)
                continue
            phases = {item.key.name: orjson.loads(item.body).get("status", {}).get("phase") for item in items}
            lost = self.wanted - phases.keys()
            assert not lost, f"acknowledged, and not there: {lost}"
            waiting = {name: phase for name, phase in phases.items() if phase != "Running"}
            if not waiting and not self.gone & phases.keys():
                return
            assert time.monotonic() < until, self._why(waiting.keys() | self.gone & phases.keys())
            await asyncio.sleep(0.1)

    def _why(self, names: Set[str]) -> str:
        """What the database knows of Instances that do not come to their ends."""
        found = [f"{name}: " for name in sorted(names)]
        with psycopg.connect(self.cluster.database) as connection:
            asked = (
                "SELECT kind, name, revision, body FROM objects WHERE kind IN ('Instance', 'Claim') ORDER BY revision"
            )
            for kind, name, revision, body in connection.execute(asked):
                if any(one in (name, *_workload(name)) for one in names):
                    found.append(f"{kind} {name} at {revision}: {orjson.loads(body).get('status')}")
        return "\n".join(found)

    async def watched(self) -> Log:
        """Wait until every watch has told the last change; the log of changes up to that."""
        until, log = time.monotonic() + 60, self._log()
        last = log[-1][0]
        while any(not seen or seen[-1] < last for seen in self.seen.values()):
            assert time.monotonic() < until, {name: seen[-3:] for name, seen in self.seen.items()}
            await asyncio.sleep(0.05)
        return log

    def check(self, log: Log) -> None:
        """Nothing that was acknowledged is lost, nothing is doubled, nothing was told twice, late or never. What
        changes after the end of the log is on its way to the watches still."""
        by_revision = {revision: (uid, name) for revision, _, name, uid in log}
        lost = {key: value for key, value in self.acknowledged.items() if by_revision.get(key) != value}
        assert not lost, f"acknowledged, and not in the log of changes: {lost}"
        for name, seen in self.seen.items():
            missed = {revision for revision in by_revision if revision > self.began} - set(seen)
            early = [later for sooner, later in pairwise(seen) if later <= sooner]
            assert not missed, f"the watch through {name} never told of them"
            assert not early, f"the watch through {name} told of them late, or twice"
        made = Counter(name for _, kind, name, _ in log if kind == 0)
        assert set(made.values()) == {1}, "an Instance was made twice"
        with psycopg.connect(self.cluster.database) as connection:
            claims = connection.execute(
                "SELECT name, count(*) FROM changes WHERE kind = 'Claim' AND type = 0 GROUP BY 1"
            )
            doubled = {name: count for name, count in claims if count != 1}
            assert not doubled, "an Instance had two Claims"
            opened = connection.execute(
                "SELECT claim_uid, count(*) FROM ledger WHERE kind = 'open' GROUP BY 1"
            ).fetchall()
            assert {count for _, count in opened} == {1}, "an interval was opened twice"
            assert len(opened) >= len(self.wanted)
        invariants.check(self.cluster.database)

    def _log(self) -> Log:
        asked = "SELECT revision, type, name, uid FROM changes WHERE kind = 'Instance' ORDER BY revision"
        with psycopg.connect(self.cluster.database) as connection:
            return [(int(r), int(t), str(n), str(u)) for r, t, n, u in connection.execute(asked)]


@asynccontextmanager
async def working(cluster: Cluster) -> AsyncIterator[Work]:
    """Work through every replica, and through the gateway, while the block lasts; then all is checked."""
    work = Work(cluster, (await cluster.replicas[0].client.list(Scope(kind="Instance"))).revision)
    writers = [asyncio.create_task(work.write(replica)) for replica in cluster.replicas]
    followers = [asyncio.create_task(work.follow(replica)) for replica in cluster.replicas]
    try:
        async with cluster.gateway.asked():
            yield work
        work.ended = True
        await asyncio.gather(*writers)
        await cluster.gateway.settled()
        await work.settled()
        work.check(await work.watched())
        await cluster.gateway.settled(seconds=0)
    finally:
        work.ended = True
        for task in (*writers, *followers):
            task.cancel()
        await asyncio.gather(*writers, *followers, return_exceptions=True)
