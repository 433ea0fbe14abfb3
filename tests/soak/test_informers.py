"""Two hundred informers through compaction, slow readers, and servers that are stopped or killed under them."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import pytest

from bessemer.main import identities
from bessemer.main.parts import CONTROL, command
from bessemer.main.settings import Paths, Settings, save, with_ports
from tests.soak.informer import Informer, Stretch, judged

INFORMERS = 200
SECONDS = 150.0
KEPT = 1000
"""Revisions of history, so that it is compacted several times."""

NAMES = 300
WRITERS = 12
TYPES = ("ADDED", "MODIFIED", "DELETED")
"""As the store writes them."""

FLAVORS = "/apis/bessemer.dev/v1alpha1/flavors"

pytestmark = pytest.mark.long


@dataclass
class Server:
    """A control plane over SQLite, which can be ended in any way; ``log`` is what its changes were, read beside it."""

    paths: Paths
    settings: Settings
    process: subprocess.Popen[bytes] | None = None
    log: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return identities.urls(self.settings)["api"] + FLAVORS

    def start(self) -> None:
        asked = command(self.paths, CONTROL)
        asked.log_path.parent.mkdir(exist_ok=True)
        with asked.log_path.open("ab") as log:
            self.process = subprocess.Popen(asked.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def read(self) -> None:
        """Note the changes that its file holds now."""
        with sqlite3.connect(f"file:{self.paths.store}?mode=ro", uri=True) as file:
            last = max(self.log, default=0)
            asked = "SELECT revision, type, name FROM changes WHERE kind = 'Flavor' AND revision > ?"
            for revision, kind, name in file.execute(asked, [last]):
                self.log[revision] = (TYPES[kind], name)


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[Server]:
    paths = Paths(folder)
    ports = {"api_port": 0, "portal_port": 0, "gateway_port": 0}
    settings = with_ports(Settings.model_validate({**ports, "keep_revisions": KEPT}), find_free=True)
    identities.prepare(paths, settings)
    save(paths, settings)
    made = Server(paths, settings)
    made.start()
    try:
        yield made
    finally:
        made.end(signal.SIGKILL)


async def writes(session: aiohttp.ClientSession, url: str, acknowledged: dict[int, str], *, seed: int) -> None:
    """Create, change and delete at random until cancelled; note what was acknowledged, by its revision."""
    dice = random.Random(seed)
    while True:
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


async def disturb(made: Server, informers: list[Informer], counted: dict[str, int]) -> None:
    """Until cancelled: stop or kill the server, and let some informers sleep through more than history holds."""
    dice = random.Random(7)
    long: dict[int, int] = {}  # who sleeps through more than is kept → since which revision
    while True:
        now = max(made.log, default=0)
        for number in [n for n, since in long.items() if now - since > KEPT * 4 // 3]:
            informers[number].reading.set()
            del long[number]
        if not long:
            long = dict.fromkeys(dice.sample(range(INFORMERS), INFORMERS // 20), now)
        asleep = [*dice.sample(range(INFORMERS), INFORMERS // 10), *long]
        for number in asleep:
            informers[number].reading.clear()
        if dice.random() < 0.6:
            ended = dice.choice([signal.SIGKILL, signal.SIGTERM])
            await asyncio.to_thread(made.end, ended)
            made.start()
            counted[f"servers ended by {ended.name}"] = counted.get(f"servers ended by {ended.name}", 0) + 1
        await asyncio.sleep(dice.uniform(8, 14))
        for number in asleep:
            if number not in long:
                informers[number].reading.set()


async def follow(made: Server) -> None:
    """Read the log of changes before it is compacted."""
    while True:
        try:
            await asyncio.to_thread(made.read)
        except sqlite3.Error:  # the file is being opened, or closed, by its owner
            pass
        await asyncio.sleep(0.3)


async def test_none_misses_repeats_or_stalls(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Two hundred informers through compaction, sleep and killed servers: none misses, repeats, disorders or stalls."""
    counted: dict[str, int] = {}
    acknowledged: dict[int, str] = {}
    async with server(tmp_path) as made, AsyncExitStack() as stack:
        tls = ssl.create_default_context(cafile=str(made.paths.ca_certificate))
        tls.load_cert_chain(*map(str, made.paths.certificate(identities.ADMIN)))
        limitless = aiohttp.TCPConnector(limit=0, ssl=tls)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=limitless))
        await _first(session, made.url)
        informers = [Informer(session, made.url) for _ in range(INFORMERS)]
        tasks = [asyncio.ensure_future(informer.run()) for informer in informers]
        work = [asyncio.ensure_future(writes(session, made.url, acknowledged, seed=n)) for n in range(WRITERS)]
        reading = asyncio.ensure_future(follow(made))
        trouble = asyncio.ensure_future(disturb(made, informers, counted))
        try:
            await _while_all_run([*tasks, *work, reading, trouble], SECONDS)
            for task in (trouble, *work):
                task.cancel()
            await asyncio.gather(trouble, *work, return_exceptions=True)
            if made.process is None:
                made.start()
            for informer in informers:
                informer.reading.set()
            there, at = await _at_rest(made, session)
            await _reached(informers, at)
        finally:
            for task in (*tasks, *work, reading, trouble):
                task.cancel()
            await asyncio.gather(*tasks, *work, reading, trouble, return_exceptions=True)
    lost = [
        f"{revision} of {name} was acknowledged" for revision, name in acknowledged.items() if revision not in made.log
    ]
    assert not lost
    assert not judged(informers, made.log, there=there, at=at)
    lists = sum(informer.lists for informer in informers)
    assert lists > INFORMERS, "none was overtaken by compaction"
    record_property("changes", len(made.log))
    record_property("events read", sum(len(s.seen) for i in informers for s in i.stretches))
    record_property("lists after 410", lists - INFORMERS)
    record_property("watches resumed", sum(informer.restarts for informer in informers))
    for what, count in counted.items():
        record_property(what, count)


async def _while_all_run(tasks: list[asyncio.Future[None]], seconds: float) -> None:
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


async def _first(session: aiohttp.ClientSession, url: str) -> None:
    """Write once: a watch from revision 0 would begin with what there is, as Kubernetes has it."""
    until = time.monotonic() + 60
    while True:
        try:
            body = orjson.dumps({"metadata": {"name": "first"}, "spec": {"cpus": 1, "memory": "1Gi", "disk": "1Gi"}})
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
                answer.raise_for_status()
                return
        except (aiohttp.ClientError, OSError):
            assert time.monotonic() < until
            await asyncio.sleep(0.1)


async def _at_rest(made: Server, session: aiohttp.ClientSession) -> tuple[dict[str, int], int]:
    """What is there, and the last change, once a write that was on its way when its writer went has arrived."""
    while True:
        there = await _there(session, made.url)
        made.read()
        at = max(made.log)
        if there == await _there(session, made.url) and max(there.values()) <= at:
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
