"""Informers through compaction, slow readers, and servers and databases that end under them: two hundred of them for
minutes, and a few through one of each."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from bessemer.main import identities
from tests.soak.informer import Informer, Stretch, judged
from tests.soak.servers import Servers, servers

INFORMERS = 200
SECONDS = 150.0
KEPT = 1000
"""Revisions of history, so that it is compacted several times."""
SLEPT = KEPT * 5 // 2
"""Revisions through which some sleep: history is dropped once a minute only, so it may be longer than what is kept."""

NAMES = 300
WRITERS = 12
FEW, FEW_ASLEEP, FEW_WRITERS = 12, 4, 8
PATIENCE_SECONDS = 240.0


async def writes(session: aiohttp.ClientSession, made: Servers, acknowledged: dict[int, str], *, seed: int) -> None:
    """Create, change and delete at random until cancelled; note what was acknowledged, by its revision. An answer that
    is lost says nothing: what was written is told to all, or it is not."""
    dice = random.Random(seed)
    while True:
        url = dice.choice(made.urls)
        name = f"f{seed}-{dice.randrange(NAMES // WRITERS)}"
        body = orjson.dumps(
            {"metadata": {"name": name}, "spec": {"cpus": dice.randint(1, 9), "memory": "1Gi", "disk": "1Gi"}}
        )
        patch = orjson.dumps({"spec": {"cpus": dice.randint(1, 64)}})
        try:
            match dice.randrange(5):
                case 0 | 1:
                    asked = session.post(url, data=body, headers={"Content-Type": "application/json"})
                case 2 | 3:
                    merge = {"Content-Type": "application/merge-patch+json"}
                    asked = session.patch(f"{url}/{name}", data=patch, headers=merge)
                case _:
                    asked = session.delete(f"{url}/{name}")
            async with asked as answer:
                said = orjson.loads(await answer.read())
                assert answer.status < 500 or answer.status == 503, said
                if answer.status in (200, 201) and said["kind"] == "Flavor":
                    acknowledged[int(said["metadata"]["resourceVersion"])] = name
        except (aiohttp.ClientError, TimeoutError, OSError):
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.005)


async def disturb(made: Servers, informers: list[Informer]) -> None:
    """Until cancelled: stop or kill something, and let some informers sleep through more than history holds."""
    dice = random.Random(7)
    long: dict[int, int] = {}  # who sleeps through more than is kept → since which revision
    while True:
        now = max(made.log, default=0)
        for number in [n for n, since in long.items() if now - since > SLEPT]:
            informers[number].reading.set()
            del long[number]
        if not long:
            long = dict.fromkeys(dice.sample(range(INFORMERS), INFORMERS // 20), now)
        asleep = [*dice.sample(range(INFORMERS), INFORMERS // 10), *long]
        for number in asleep:
            informers[number].reading.clear()
        if dice.random() < 0.6:
            await made.befall(dice)
        await asyncio.sleep(dice.uniform(8, 14))
        for number in asleep:
            if number not in long:
                informers[number].reading.set()


@pytest.mark.long
@pytest.mark.parametrize("over", ["sqlite", "postgresql"])
async def test_none_misses_repeats_or_stalls(
    over: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Two hundred informers through compaction, sleep, killed servers and databases: none misses, repeats, stalls."""
    async with servers(tmp_path, over=over, kept=KEPT) as made, _soak(made, INFORMERS, writers=WRITERS) as soak:
        trouble = asyncio.ensure_future(disturb(made, soak.informers))
        soak.beside.append(trouble)
        ends = time.monotonic() + 3 * SECONDS
        await soak.run(SECONDS)
        while soak.lists <= INFORMERS and time.monotonic() < ends:
            await soak.run(SECONDS / 10)
        trouble.cancel()
        await asyncio.gather(trouble, return_exceptions=True)
        await soak.ended()
    assert soak.lists > INFORMERS, "none was overtaken by compaction"
    record_property("changes", len(made.log))
    record_property("events read", sum(len(s.seen) for i in soak.informers for s in i.stretches))
    record_property("lists after 410", soak.lists - INFORMERS)
    record_property("watches resumed", sum(informer.restarts for informer in soak.informers))
    for what, count in made.befell.items():
        record_property(what, count)


@pytest.mark.real
async def test_a_few_through_one_of_each(tmp_path: Path) -> None:
    """A killed server, and a compaction through which some sleep: none misses, repeats, stalls."""
    async with servers(tmp_path, over="sqlite", kept=KEPT) as made, _soak(made, FEW, writers=FEW_WRITERS) as soak:
        asleep = soak.informers[:FEW_ASLEEP]
        for informer in asleep:
            informer.reading.clear()
        await soak.until(lambda: all(informer.lists for informer in asleep) and len(made.log) > KEPT + KEPT // 10)
        await asyncio.to_thread(made.replicas[0].restart, signal.SIGKILL)
        await soak.until(lambda: made.floor > max(informer.stretches[0].until for informer in asleep))
        for informer in asleep:
            informer.reading.set()
        await soak.until(lambda: all(informer.lists > 1 for informer in asleep))
        await soak.ended()
    assert all(informer.restarts for informer in soak.informers[FEW_ASLEEP:]), "nobody lost the server"


@dataclass
class _Soak:
    """Informers at work, those who write, and what goes on ``beside`` them."""

    made: Servers
    session: aiohttp.ClientSession
    informers: list[Informer]
    work: list[asyncio.Future[Any]]
    beside: list[asyncio.Future[Any]]
    acknowledged: dict[int, str]

    @property
    def lists(self) -> int:
        return sum(informer.lists for informer in self.informers)

    async def run(self, seconds: float) -> None:
        """Let it go on for so long; what one of them raises is raised."""
        done, _ = await asyncio.wait([*self.work, *self.beside], timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def until(self, ready: Callable[[], bool]) -> None:
        """Let it go on until this is so."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while True:
            with suppress(sqlite3.Error):  # its file is being opened or closed
                if ready():
                    return
            assert time.monotonic() < ends
            await self.run(0.1)

    async def ended(self) -> None:
        """Nobody writes any more: judge what each was told."""
        for task in self.work:
            task.cancel()
        await asyncio.gather(*self.work, return_exceptions=True)
        for informer in self.informers:
            informer.reading.set()
        there, at = await _at_rest(self.made, self.session)
        await _reached(self.informers, at)
        log = self.made.log
        lost = [
            f"{revision} of {name} was acknowledged"
            for revision, name in self.acknowledged.items()
            if revision not in log
        ]
        assert not lost
        assert not judged(self.informers, log, there=there, at=at)


@asynccontextmanager
async def _soak(made: Servers, count: int, *, writers: int) -> AsyncIterator[_Soak]:
    """So many informers and writers, at work for as long as the block lasts."""
    paths = made.replicas[0].paths
    tls = ssl.create_default_context(cafile=str(paths.ca_certificate))
    tls.load_cert_chain(*map(str, paths.certificate(identities.ADMIN)))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=tls)) as session:
        for url in made.urls:
            await _first(session, url)
        acknowledged: dict[int, str] = {}
        informers = [Informer(session, made.urls, number) for number in range(count)]
        work = [asyncio.ensure_future(writes(session, made, acknowledged, seed=n)) for n in range(writers)]
        beside = [asyncio.ensure_future(each) for each in (made.follow(), made.supervise())]
        beside += [asyncio.ensure_future(informer.run()) for informer in informers]
        soak = _Soak(made, session, informers, work, beside, acknowledged)
        try:
            yield soak
        finally:
            for task in (*soak.work, *soak.beside):
                task.cancel()
            await asyncio.gather(*soak.work, *soak.beside, return_exceptions=True)


async def _first(session: aiohttp.ClientSession, url: str) -> None:
    """Write once: a watch from revision 0 would begin with what there is, as Kubernetes has it."""
    until = time.monotonic() + 60
    while True:
        try:
            body = orjson.dumps({"metadata": {"name": "first"}, "spec": {"cpus": 1, "memory": "1Gi", "disk": "1Gi"}})
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
                if answer.status != 409:  # it was written through another replica
                    answer.raise_for_status()
                return
        except (aiohttp.ClientError, OSError):
            assert time.monotonic() < until
            await asyncio.sleep(0.1)


async def _at_rest(made: Servers, session: aiohttp.ClientSession) -> tuple[dict[str, int], int]:
    """What is there, and the last change, once a write that was on its way when its writer went has arrived."""
    while True:
        there = await _there(session, made.urls[0])
        made.read()
        at = max(made.log)
        if there == await _there(session, made.urls[-1]) and max(there.values()) <= at:
            await asyncio.sleep(0.5)
            made.read()
            if max(made.log) == at:
                return there, at


async def _there(session: aiohttp.ClientSession, url: str) -> dict[str, int]:
    """What is there at last: name → revision."""
    until = time.monotonic() + 30
    while True:
        try:
            async with session.get(url) as answer:
                answer.raise_for_status()
                body = orjson.loads(await answer.read())
                return {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in body["items"]}
        except (aiohttp.ClientError, OSError):
            assert time.monotonic() < until
            await asyncio.sleep(0.2)


async def _reached(informers: list[Informer], at: int) -> None:
    """Wait until all have seen that change, for as long as is decent."""
    until = time.monotonic() + 60
    while any(not i.stretches or i.stretches[-1].until < at for i in informers) and time.monotonic() < until:
        await asyncio.sleep(0.2)


def test_the_judge_sees_what_is_wrong() -> None:
    """What is missed, told twice, out of order, or told as something else, is a fault."""
    log = {2: ("ADDED", "a"), 3: ("MODIFIED", "a"), 5: ("DELETED", "a")}
    good = [(2, "ADDED", "a"), (3, "MODIFIED", "a"), (5, "DELETED", "a")]
    assert not Stretch(1, {}, good, 5).faults(log)
    for bad in (
        good[:1] + good[2:],
        good[:2] + good[1:],
        [good[1], good[0], good[2]],
        [(2, "DELETED", "a"), *good[1:]],
    ):
        assert Stretch(1, {}, bad, 5).faults(log)
    assert not Stretch(1, {}, good[:2], 4).faults(log), "what comes later is not missed yet"
