"""An api over a file, gateways and engines, each a process that may be killed at any time; and what was billed in the
end, beside what clients saw and what the engines wrote down themselves.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bessemer.client import connect
from bessemer.core.clock import SystemClock
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.core.tokens import replica_secret, token_digest
from bessemer.core.values import Allocation, ClaimSpec, WorkloadRef
from bessemer.drivers.engine.doors import default_folder
from bessemer.kinds.workload import LABEL_KIND, LABEL_NAME
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings, save
from bessemer.main.storage import open_state
from bessemer.store import Store
from tests.ports import kept_ports
from tests.soak.rolling import TOLERATIONS, Rolling
from tests.store.make import ALICE, PROJECT, agent, body, inventory, read

ROOT = Path(__file__).parents[2]
CONTEXT = 512
PRICES = {"millionInputTokens": 1_000_000, "millionCachedInputTokens": 1_000_000, "millionOutputTokens": 3_000_000}
"""A token that is read costs one millionth, one that is written three."""
READY_SECONDS = 180.0
ENDED_SECONDS = 90.0
_BILLED = """SELECT api_key, SUM(requests), SUM(input_tokens), SUM(output_tokens) FROM ledger WHERE kind = 'tokens'
GROUP BY api_key"""
_BOUND = """SELECT bound, used, (SELECT coalesce(SUM(amount), 0) FROM levels
WHERE levels.scope = bounds.scope AND levels.meter = bounds.meter) FROM bounds WHERE meter LIKE 'micro/%'"""


@dataclass
class Part:
    """One process, begun by ``words``."""

    words: Sequence[str]
    log: Path
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *self.words),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def tell(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            await asyncio.wait_for(self.process.wait(), ENDED_SECONDS)
        self.process = None

    async def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        await self.end(number)
        await self.start()

    @property
    def rss(self) -> int:
        """Bytes of memory that it has."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as its client saw it: ``whole`` with what the answer said that it came to, or how far it came.
    ``request`` is what the gateway calls it, "" where its answer never began."""

    id: str
    key: str
    whole: bool
    read: int = 0
    wrote: int = 0
    status: int = 0
    request: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """One record as a gateway sent it to be settled; ``ended`` is "" for a whole answer."""

    request: str
    key: str
    ended: str
    read: int
    wrote: int


@dataclass
class Plant:
    """``gateways`` are at ``urls``; ``keys`` are tokens by name."""

    paths: Paths
    api: Part
    api_url: str
    gateways: Sequence[Part]
    urls: Sequence[str]
    engines: Sequence[Part]
    keys: dict[str, str]
    tls: ssl.SSLContext
    rolling: Rolling | None = None
    """Whose engines are not the plant's, but of replicas that come and go."""
    host: Part | None = None
    asked: list[Asked] = field(default_factory=list)
    befell: Counter[str] = field(default_factory=Counter)

    @property
    def parts(self) -> Iterable[Part]:
        return (*self.engines, *self.gateways, *filter(None, [self.host]), self.api)

    async def ready(self, url: str, session: aiohttp.ClientSession) -> None:
        """Return once the gateway has answered something, or says that nothing is left to spend."""
        key, token = next(iter(self.keys.items()))
        name = f"w{len(self.asked)}"
        body = {"model": "chat", "max_tokens": 1, "messages": [{"role": "user", "content": name}]}
        ends, said = time.monotonic() + READY_SECONDS, None
        while True:
            assert time.monotonic() < ends, said
            try:
                told = {"Authorization": f"Bearer {token}"}
                async with session.post(f"{url}/chat/completions", json=body, headers=told) as answer:
                    said = await answer.json()
                    if answer.status == 200:
                        used = said["usage"]
                        read, wrote = used["prompt_tokens"], used["completion_tokens"]
                        of = answer.headers["x-request-id"]
                        self.asked.append(Asked(name, key, whole=True, read=read, wrote=wrote, status=200, request=of))
                    if answer.status in (200, 429):
                        return
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(0.05)

    async def open(self, session: aiohttp.ClientSession) -> None:
        """Start the api, then what follows it; each gateway answers when this returns."""
        for part in (*self.engines, self.api):
            await part.start()
        await self.heard(session)
        if self.rolling is not None:
            await self.rolling.want(context=CONTEXT)
        for part in (*filter(None, [self.host]), *self.gateways):
            await part.start()
        for url in self.urls:
            await self.ready(url, session)

    async def heard(self, session: aiohttp.ClientSession) -> None:
        """Return once the api answers."""
        async with asyncio.timeout(READY_SECONDS):
            while not await _readable(session, self.api_url):
                await asyncio.sleep(0.05)

    def bound(self) -> tuple[int, int, int]:
        """The budget: its bound, what of it is used, and what gateways hold."""
        (row,) = self._read(_BOUND)
        return (int(row[0]), int(row[1]), int(row[2]))

    def billed(self) -> dict[str, tuple[int, int, int]]:
        """Requests, and tokens read and written, by key."""
        return {name: (int(many), int(read), int(wrote)) for name, many, read, wrote in self._read(_BILLED)}

    def _read(self, sql: str) -> list[Any]:
        connection = sqlite3.connect(f"file:{self.paths.store}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    async def settled(self) -> dict[str, tuple[int, int, int]]:
        """Nobody asks any more: what is billed once each whole answer is, and nothing new came for a while."""
        whole = Counter(one.key for one in self.asked if one.whole)
        before, since = {}, 0
        async with asyncio.timeout(READY_SECONDS):
            while True:
                billed = await asyncio.to_thread(self.billed)
                since = since + 1 if billed == before else 0
                if since >= 5 and all(billed.get(key, (0,))[0] >= many for key, many in whole.items()):
                    return billed
                before = billed
                await asyncio.sleep(0.4)

    def made(self) -> dict[str, list[tuple[int, int]]]:
        """By the engines' own logs: of each request the tokens read and written, by each that was asked for it."""
        found: dict[str, list[tuple[int, int]]] = {}
        for log in sorted(self.paths.state.parent.glob("*.tokens")):
            begun: dict[str, list[list[int]]] = {}
            for line in log.read_text().splitlines():
                verb, name, *numbers = line.split()
                if verb == "b":
                    begun.setdefault(name, []).append([int(numbers[0]), 0])
                else:
                    begun[name][-1][1] += 1
            for name, answers in begun.items():
                found.setdefault(name, []).extend((read, wrote) for read, wrote in answers)
        return found

    def sent(self) -> list[Settled]:
        """What gateways sent to be settled, each record once. A sequence of a spool never means two."""
        found: dict[tuple[str, str], Settled] = {}
        for file in sorted(self.paths.state.parent.glob("*.settled")):
            for line in file.read_text().splitlines():
                if not line.endswith(" ."):
                    continue  # it was killed as it wrote this: that was not sent
                spool, sequence, request, key, ended, read, wrote, _ = line.split()
                record = Settled(request.partition("/")[0], key, ended.strip("-"), int(read), int(wrote))
                known = found.setdefault((spool, sequence), record)
                assert known == record, ("a sequence means two records", known, record)
        return list(found.values())


@asynccontextmanager
async def plant(
    base: Path,
    *,
    gateways: int = 2,
    engines: int = 3,
    keys: int = 8,
    budget: int | None = None,
    rolls: bool = False,
) -> AsyncIterator[Plant]:
    """All of it, running. Where it ``rolls``, the engines are those of an endpoint's replicas as a controller wants
    them, on a fake host; else they are there, and nobody follows the endpoint."""
    async with AsyncExitStack() as stack:
        paths = Paths(base / "a")
        settings = stack.enter_context(
            kept_ports(Settings(api_port=0, portal_port=0, gateway_port=0, fake_hosts=int(rolls)))
        )
        identities.prepare(paths, settings)
        save(paths, settings)
        doors = default_folder(paths.fake) if rolls else base / "d"
        doors.mkdir(mode=0o700, exist_ok=True)
        stack.callback(shutil.rmtree, doors, ignore_errors=True)
        tokens = {f"k{number}": f"bsk_{number:064x}" for number in range(keys)}
        with closing(open_state(paths, settings, clock=SystemClock())) as store:
            await _furnish(store, tokens, budget=budget)
            claims = [] if rolls else await _stand(store, doors, engines=engines)
        words = ("tests.failover.replica", "api,controller" if rolls else "api", str(paths.state))
        url = identities.urls(settings)["api"]
        made = Plant(
            paths=paths,
            api=Part((*words, url), base / "api.log"),
            api_url=url,
            gateways=[],
            urls=[],
            engines=_engines(paths, doors, claims=claims),
            keys=tokens,
            tls=ssl.create_default_context(cafile=str(paths.ca_certificate)),
        )
        if rolls:
            made.host = Part(("tests.soak.hostd", str(paths.state), str(base)), base / "host.log")
            admin = connect(url, ca=paths.ca_certificate, cert=paths.certificate(identities.ADMIN))
            made.rolling = Rolling(admin, base, engines)
        states = _gateways(paths, settings, stack, count=gateways)
        made.gateways = [
            Part(("tests.soak.gatewayd", str(state.state), str(doors)), base / f"{state.state.name}.log")
            for state, _ in states
        ]
        made.urls = [identities.urls(own)["gateway"] for _, own in states]
        stack.push_async_callback(_end, made)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=made.tls)) as session:
            await made.open(session)
        yield made


def _engines(paths: Paths, doors: Path, *, claims: Sequence[str]) -> Sequence[Part]:
    """Of claims by their uids."""
    secret, base = identities.key_of(paths, identities.GATEWAY_KEY), paths.state.parent
    return [
        Part(
            (
                "tests.soak.engined",
                str(doors / f"e{n}"),
                f"{base}/e{n}.log.tokens",
                replica_secret(secret, uid),
                str(CONTEXT),
            ),
            base / f"e{n}.log",
        )
        for n, uid in enumerate(claims)
    ]


def _gateways(
    paths: Paths, settings: Settings, stack: AsyncExitStack, *, count: int
) -> Sequence[tuple[Paths, Settings]]:
    """A state directory of each, with what it needs of the api's."""
    states = []
    for number in range(count):
        own = stack.enter_context(kept_ports(settings.model_copy(update={"gateway_port": 0})))
        own = own.model_copy(update={"api_port": settings.api_port})
        state = Paths(paths.state.parent / f"g{number}")
        for folder in ("ca", "keys", "certs"):
            shutil.copytree(paths.state / folder, state.state / folder)
        save(state, own)
        states.append((state, own))
    return states


async def _readable(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError):
        return False


async def _end(made: Plant) -> None:
    await asyncio.gather(*(part.end() for part in made.parts))
    if made.rolling is not None:
        await made.rolling.close()


async def _furnish(store: Store, tokens: dict[str, str], *, budget: int | None) -> None:
    """A tenant, a project with a budget, and keys."""
    objects = store.objects
    await objects.create(body("PricePlan", "standard", spec={"currency": "EUR", "rates": PRICES}, namespace=""), ALICE)
    await objects.create(body("Tenant", "acme", spec={"tolerations": TOLERATIONS}, namespace=""), ALICE)
    bounded = {"budget": {"period": "Total", "micro": budget}} if budget is not None else {}
    await objects.create(body("Project", PROJECT, spec=bounded, namespace=""), ALICE)
    for name, token in tokens.items():
        made = await objects.create(body("ApiKey", name, spec={}), ALICE)
        document = body("ApiKey", name, spec={}, uid=made.uid)
        await objects.replace({**document, "status": {"digest": token_digest(token)}}, CONTROLLER, part="status")


async def _stand(store: Store, doors: Path, *, engines: int) -> list[str]:
    """An Endpoint with replicas; the uids of their claims."""
    objects = store.objects
    spec = {"model": "smol", "flavor": "serve", "slots": 16, "contextTokens": CONTEXT}
    endpoint = await objects.create(body("Endpoint", "chat", spec=spec), ALICE)
    await store.capacity.declare("h1", inventory())
    claims, labels = [], {LABEL_KIND: "Endpoint", LABEL_NAME: "chat"}
    for number in range(engines):
        of = ClaimSpec(
            host="h1",
            tenant="acme",
            workload=WorkloadRef(kind="Endpoint", name="chat", uid=endpoint.uid, replica=number),
            allocations=[Allocation(numa_node=0, milli_cores=100, memory_bytes=1 << 20)],
        )
        key = Key("Claim", PROJECT, f"endpoint-chat-{number}")
        (taken,) = await store.capacity.take([(key, of, {"labels": labels})], CONTROLLER)
        status = {"phase": "Running", "address": f"unix:{doors / f'e{number}'}"}
        said = read(taken) | {"status": status}
        await objects.replace(said, agent("h1"), part="status")
        claims.append(taken.uid)
    return claims
