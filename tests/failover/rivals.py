"""Many who ask over HTTPS for the last of something, and what must be so once all were answered.

Each has a connection of its own to one of the servers, and asks the next one where it is told nothing. Some hang up
amid their request and never ask again, others hang up and ask again: what became of that is not known until it is
looked up. Whoever was answered holds exactly what they were told.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import orjson

from bessemer.client import Ask, Client, an_object, connect
from bessemer.core.errors import AlreadyExists, NotFound, QuotaExceeded, TooMany, Unavailable
from bessemer.core.ports import Scope, Stored
from bessemer.core.resource import Key
from bessemer.main.keeping import checked
from tests.failover.cluster import Cluster, Replica
from tests.failover.work import TOLERATIONS
from tests.store import invariants

CLIENTS = 64
PERSON, PASSWORD = "grace", "correct horse battery"
STRIKES_AFTER = CLIENTS // 8
"""Answers, of which the first may be the one who wins: then there is trouble."""

ANSWERED_SECONDS = 180.0
Make = Callable[[int], Mapping[str, Any]]
Trouble = Callable[[], Awaitable[None]]


@dataclass
class Rival:
    """One who asks. ``clients`` has one to each server, the one that is asked first at the head."""

    name: str
    clients: Sequence[Client]
    patience: float = 30.0
    """Seconds until it hangs up, the first time."""
    again: bool = True
    word: str = ""
    """What the last answer said: "made", or what refused it. "" while there is none."""
    lost: int = 0
    """Requests of which it does not know what became."""

    async def ask(self, body: Mapping[str, Any], answered: Callable[[], None]) -> None:
        until, turn = time.monotonic() + ANSWERED_SECONDS, 0
        while not self.word:
            client, turn = self.clients[turn % len(self.clients)], turn + 1
            try:
                await self._once(client, body, patience=self.patience if turn == 1 else 30.0)
            except (Unavailable, TooMany, OSError, TimeoutError) as error:
                self.lost += not isinstance(error, TooMany)
                if not self.again:
                    return
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)
        answered()

    async def _once(self, client: Client, body: Mapping[str, Any], *, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await client.create(body)
            self.word = "made"
        except AlreadyExists:
            assert self.lost, "it was asked for by nobody else"
            self.word = "made"
        except QuotaExceeded as error:
            self.word = error.message


@dataclass
class Arena:
    """The servers of one store, and the connections of all rivals. ``place`` is the store's; ``doors`` are the ports
    that rivals come by, one of each server."""

    replicas: Sequence[Replica]
    place: str | Path
    doors: Sequence[int]
    cluster: Cluster | None = None
    crowd: list[list[Client]] = field(default_factory=list)

    @property
    def admin(self) -> Client:
        return self.replicas[0].client

    async def leader(self) -> Replica:
        """The one whose controllers place instances."""
        return await self.cluster.some_leader() if self.cluster is not None else self.replicas[0]

    async def tenant(self, name: str, *, projects: int, quota: Mapping[str, Any], each: Mapping[str, Any]) -> list[str]:
        """A tenant whose administrator everybody here is, and its projects, with the bound of ``each``."""
        members = [{"user": PERSON, "role": "tenant-admin"}]
        spec = {"quota": quota, "members": members, "tolerations": TOLERATIONS}
        await self.admin.create(an_object(Key("Tenant", "", name), spec))
        names = [f"{name}--p{number}" for number in range(projects)]
        for project in names:
            await self.admin.create(an_object(Key("Project", "", project), {"quota": each}))
            await self._known(project)
        return names

    async def _known(self, project: str) -> None:
        """Every server has heard that it is there, and whose."""
        async with asyncio.timeout(ANSWERED_SECONDS):
            for client in self.crowd[0]:
                while True:
                    with suppress(NotFound):
                        await client.list(Scope(kind="ApiKey", namespace=project))
                        break
                    await asyncio.sleep(0.02)

    async def fight(self, make: Make, trouble: Trouble | None = None) -> list[Rival]:
        """Everybody asks at once for what ``make`` says of their number; amid it there may be trouble. A quarter hangs
        up, and half of those do not come again."""
        bodies = [make(number) for number in range(CLIENTS)]
        rivals = [Rival(body["metadata"]["name"], clients) for body, clients in zip(bodies, self.crowd, strict=True)]
        for number, rival in enumerate(rivals[::4]):
            rival.patience, rival.again = random.uniform(0.001, 0.05), number % 2 == 0
        struck, answers = asyncio.Event(), list[None]()

        def answered() -> None:
            answers.append(None)
            if len(answers) == STRIKES_AFTER:
                struck.set()

        async def strike() -> None:
            if trouble is not None:
                await struck.wait()
                await trouble()

        asked = [rival.ask(body, answered) for rival, body in zip(rivals, bodies, strict=True)]
        random.shuffle(asked)
        await asyncio.gather(strike(), *asked)
        return rivals

    async def standing(self, kind: str, projects: Sequence[str], *, by: int = 0) -> list[Stored]:
        """What stands there, as one of the servers says."""
        lists = [self.replicas[by].client.list(Scope(kind=kind, namespace=project)) for project in projects]
        return [item for page in await asyncio.gather(*lists) for item in page.items]

    async def names(self, kind: str, projects: Sequence[str]) -> set[str]:
        """Of what stands there, which every server says alike."""
        told = [await self.standing(kind, projects, by=by) for by in range(len(self.replicas))]
        names = [{item.key.name for item in items} for items in told]
        assert all(one == names[0] for one in names)
        return names[0]

    async def stir(self, items: Sequence[Stored], *, label: str) -> None:
        """All of them are looked at anew, at once."""
        change = {"metadata": {"labels": {"turn": label}}}
        asked = zip(items, cycle(clients[0] for clients in self.crowd))
        await asyncio.gather(*(client.patch(item.key, change) for item, client in asked))

    async def clear(self, items: Sequence[Stored]) -> None:
        """Give them up, and wait until they are gone."""
        await asyncio.gather(*(self.admin.delete(item.key) for item in items))
        async with asyncio.timeout(ANSWERED_SECONDS):
            uids, places = {item.uid for item in items}, {(item.key.kind, item.key.namespace) for item in items}
            while uids & {one.uid for kind, project in places for one in await self.standing(kind, [project])}:
                await asyncio.sleep(0.05)

    async def same_use(self, tenant: str, meter: str, expected: tuple[int, int | None]) -> None:
        """Every server says that so much is used, of what bound."""
        for replica in self.replicas:
            path = replica.client.paths.of(Key("Tenant", "", tenant), "use")
            uses = orjson.loads(await replica.client.transport.request(Ask(method="GET", path=path)))["meters"]
            told = {use["meter"]: (use["used"], use["limit"]) for use in uses}
            assert told.get(meter, (0, None)) == expected, (replica.name, meter)

    async def placed(self, projects: Sequence[str], *, waits: str) -> Stored:
        """The one Instance that runs, once all others say that they wait, and what for."""
        until = time.monotonic() + ANSWERED_SECONDS
        while True:
            items = await self.standing("Instance", projects)
            said = {item: orjson.loads(item.body).get("status", {}) for item in items}
            running = [item for item, status in said.items() if status.get("phase") == "Running"]
            if len(running) == 1 and all(s.get("message") == waits for i, s in said.items() if i is not running[0]):
                return running[0]
            words = Counter((status.get("phase"), status.get("message")) for status in said.values())
            assert time.monotonic() < until, words
            await asyncio.sleep(0.1)

    def most(self, kind: str, tenant: str) -> int:
        """How many of them ever stood at once, by the log of changes."""
        connection = invariants.connect(self.place)
        try:
            rows = connection.execute(
                "SELECT type, name FROM changes "
                f"WHERE kind = '{kind}' AND namespace LIKE '{tenant}--%' AND type IN (0, 2) ORDER BY revision"
            ).fetchall()
        finally:
            connection.close()
        made = Counter(name for type_, name in rows if type_ == 0)
        assert set(made.values()) <= {1}, "one of them was made twice"
        now = most = 0
        for type_, _ in rows:
            now += 1 if type_ == 0 else -1
            most = max(most, now)
        return most

    async def agree(self) -> None:
        """Counters, objects and ledger: by `store check`, and by a reading that shares nothing with it."""
        await asyncio.to_thread(self._agree)

    def _agree(self) -> None:
        address = self.place if isinstance(self.place, str) else None
        tallies = asyncio.run(checked(self.replicas[0].paths, store=address))
        assert tallies
        assert not [(tally.check, *tally.wrong) for tally in tallies if not tally.ok]
        invariants.check(self.place)


def told_the_truth(rivals: Sequence[Rival], standing: set[str], *, refusal: str) -> None:
    """Whoever was told that it is made has it; whoever was refused has nothing, and was told why."""
    assert {rival.word for rival in rivals} <= {"", "made", refusal}
    for rival in rivals:
        if rival.word == "made":
            assert rival.name in standing, f"{rival.name} was granted, and lost"
        elif rival.word and not rival.lost:
            assert rival.name not in standing, f"{rival.name} was refused, and stands"
    assert standing <= {rival.name for rival in rivals}
    assert all(rival.word for rival in rivals if rival.again), "everybody who waited was answered"


@asynccontextmanager
async def arena(of: Cluster | Replica) -> AsyncIterator[Arena]:
    """Of the replicas of one database, or of one server over its file. Somebody signs in once, and every rival has
    connections of their own, which stand before anybody asks."""
    if isinstance(of, Cluster):
        found = Arena(of.replicas, of.database, [one.settings.api_port for one in of.replicas], of)
    else:
        found = Arena([of], of.paths.store, [of.wire.port])
    with suppress(AlreadyExists):
        await found.admin.create(an_object(Key("User", "", PERSON), {}))
    await found.admin.account.set_password(PERSON, PASSWORD)
    token, ca = (await found.admin.account.login(PERSON, PASSWORD)).token, found.replicas[0].paths.ca_certificate
    try:
        for number in range(CLIENTS):
            turns = [found.doors[(number + turn) % len(found.doors)] for turn in range(len(found.doors))]
            found.crowd.append([connect(f"https://127.0.0.1:{door}", ca=ca, token=token) for door in turns])
        await asyncio.gather(*(clients[0].account.whoami() for clients in found.crowd))
        yield found
    finally:
        await asyncio.gather(*(client.close() for clients in found.crowd for client in clients))


# --- what they fight for --------------------------------------------------------------------------------------------


async def for_instances(found: Arena, tenant: str, *, rounds: int = 1, trouble: Trouble | None = None) -> int:
    """The last of three, from two projects at once; in each round anew, since what was given up is given back."""
    bound = 3
    projects = await found.tenant(tenant, projects=2, quota={"instances": bound}, each={})
    refusal = f"tenant {tenant}: 1 instances asked, 0 of 3 left; an administrator of the platform may raise the quota"
    for turn in range(rounds):
        make = functools.partial(_instance, projects, f"{tenant}-{turn}", "small")
        await _granted(found, await found.fight(make, trouble), kind="Instance", projects=projects, refusal=refusal)
        await found.same_use(tenant, "instances", (bound, bound))
        await found.agree()
        await found.clear(await found.standing("Instance", projects))
        await found.same_use(tenant, "instances", (0, bound))
        await found.same_use(tenant, "claims", (0, None))
    await found.agree()
    return found.most("Instance", tenant)


async def for_keys(found: Arena, tenant: str, *, rounds: int = 1, trouble: Trouble | None = None) -> int:
    """The last unit of a count that a project bounds: one."""
    (project,) = await found.tenant(tenant, projects=1, quota={}, each={"apiKeys": 1})
    refusal = f"project {project}: 1 API keys asked, 0 of 1 left; an administrator of the tenant may raise the quota"
    for turn in range(rounds):

        def make(number: int, turn: int = turn) -> Mapping[str, Any]:
            return an_object(Key("ApiKey", project, f"k{turn}-{number}"), {})

        await _granted(found, await found.fight(make, trouble), kind="ApiKey", projects=[project], refusal=refusal)
        await found.same_use(tenant, "api_keys", (1, None))
        await found.agree()
        await found.clear(await found.standing("ApiKey", [project]))
    await found.agree()
    return found.most("ApiKey", tenant)


async def for_a_device(found: Arena, tenant: str, *, rounds: int = 1, trouble: Trouble | None = None) -> int:
    """All may ask for an instance, and one device is theirs: one runs, the others wait and say what for. Whoever comes
    once that one is gone gets it."""
    projects = await found.tenant(tenant, projects=2, quota={"devices": {"*": 1}}, each={})
    with suppress(AlreadyExists):
        flavor = {"cores": 1, "memory": "256Mi", "devices": {"count": 1}}
        await found.admin.create(an_object(Key("Flavor", "", "one-gpu"), flavor))
    refusal = f"tenant {tenant}: 1 devices asked, 0 of 1 left; an administrator of the platform may raise the quota"
    rivals = await found.fight(functools.partial(_instance, projects, tenant, "one-gpu"), trouble)
    assert {rival.word for rival in rivals} <= {"", "made"}
    for turn in range(rounds):
        winner = await found.placed(projects, waits=refusal)
        await found.same_use(tenant, "devices/*", (1, 1))
        await found.agree()
        if turn + 1 < rounds:
            await found.clear([winner])
            await found.stir(await found.standing("Instance", projects), label=str(turn))
    await found.clear(await found.standing("Instance", projects))
    await found.same_use(tenant, "devices/*", (0, 1))
    await found.agree()
    return found.most("Claim", tenant)


async def _granted(found: Arena, rivals: Sequence[Rival], *, kind: str, projects: Sequence[str], refusal: str) -> None:
    told_the_truth(rivals, await found.names(kind, projects), refusal=refusal)
    assert any(rival.word == refusal for rival in rivals)


def _instance(projects: Sequence[str], stem: str, flavor: str, number: int) -> Mapping[str, Any]:
    key = Key("Instance", projects[number % len(projects)], f"{stem}-{number}")
    return an_object(key, {"flavor": flavor, "image": "micro", "tolerations": TOLERATIONS})


FIGHTS: Mapping[str, Callable[..., Awaitable[int]]] = {
    "instances": for_instances,
    "keys": for_keys,
    "device": for_a_device,
}
"""Each answers how many stood at once at most, by the log of changes."""

LIMITS: Mapping[str, int] = {"instances": 3, "keys": 1, "device": 1}
"""How many may, in each."""
