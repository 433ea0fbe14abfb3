"""The gateway beside the replicas, which is asked without end, and the count of what it answered.

It is the real one with its spool, and dials the engine of a fake host. What it answered is held against the ledger:
each answer is billed once, whatever became of the way to the api meanwhile.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import orjson
import psycopg

from bessemer.client import Client, an_object
from bessemer.core.resource import Key
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings
from tests.failover.proxy import Proxy
from tests.kinds.world import MODEL_SHA

PROJECT = "acme--lab"
ENDPOINT = "chat"
READY_SECONDS = 180.0
ANSWER_SECONDS = 20.0
PAUSE_SECONDS = 0.1
_BILLED = """
SELECT coalesce(sum(requests), 0), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0)
FROM ledger WHERE kind = 'tokens'
"""


@dataclass
class Gateway:
    """Its process is the cluster's; ``wire`` is its way to the api."""

    paths: Paths
    settings: Settings
    wire: Proxy
    database: str
    token: str = ""
    """A key's, which is there from the start."""
    answered: Counter[str] = field(default_factory=Counter)
    """Requests, and tokens read and written, as the answers had them."""

    async def furnish(self, client: Client, *, tolerations: object) -> None:
        """An Endpoint that answers, and a key to it."""
        wheel = {"package": "m", "version": "1.0", "member": "m/m.gguf"}
        asked = {"model": "smol", "flavor": "serve", "tolerations": tolerations}
        for key, spec in (
            (Key("Flavor", "", "serve"), {"cores": 1, "memory": "1Gi"}),
            (Key("Model", "", "smol"), {"source": {"wheel": wheel}, "sha256": MODEL_SHA}),
            (Key("Endpoint", PROJECT, ENDPOINT), asked),
        ):
            await client.create(an_object(key, spec))
        self.token = await self.new_key(client, "first")
        async with self._session() as session:
            await self._served(session, self.token)

    async def new_key(self, client: Client, name: str) -> str:
        """Another key's token, of which the gateway learns by its watch alone."""
        await client.create(an_object(Key("ApiKey", PROJECT, name), {}))
        return await client.account.key_token(PROJECT, name)

    async def serves(self, token: str, *, seconds: float = READY_SECONDS) -> None:
        """Return once it answers who has this key."""
        async with self._session() as session:
            await self._served(session, token, seconds=seconds)

    async def refuses(self, token: str) -> bool:
        """Whether it knows nothing of this key."""
        async with self._session() as session:
            return await self._ask(session, token) == 401

    def billed(self) -> tuple[int, int, int]:
        """Requests, and tokens read and written, of all rows of the ledger."""
        with psycopg.connect(self.database) as connection:
            row = connection.execute(_BILLED).fetchone()
        assert row is not None
        return (int(row[0]), int(row[1]), int(row[2]))

    @property
    def owed(self) -> tuple[int, int, int]:
        """What is to be billed by the answers that were given."""
        return (self.answered["requests"], self.answered["read"], self.answered["written"])

    async def settled(self, *, seconds: float = READY_SECONDS) -> None:
        """Nobody asks any more: return once all that was answered is billed, and nothing twice."""
        until = time.monotonic() + seconds
        while (billed := await asyncio.to_thread(self.billed)) != self.owed:
            twice = any(more > due for more, due in zip(billed, self.owed, strict=True))
            assert not twice, f"{billed} are billed, and {self.owed} were answered"
            assert time.monotonic() < until, f"of {self.owed} that were answered {billed} are billed"
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        """Ask one after the other while the block lasts, if there is what to ask for; whatever is cut, each is
        answered."""
        if not self.token:
            yield
            return
        ended = asyncio.Event()

        async def ask() -> None:
            async with self._session() as session:
                while not ended.is_set():
                    assert await self._ask(session, self.token) == 200
                    await asyncio.sleep(PAUSE_SECONDS)

        asking = asyncio.create_task(ask())
        try:
            yield
        finally:
            ended.set()
            await asking

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        tls = ssl.create_default_context(cafile=str(self.paths.ca_certificate))
        bound = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        connector = aiohttp.TCPConnector(ssl=tls)
        url = identities.urls(self.settings)["gateway"].removesuffix("v1")
        async with aiohttp.ClientSession(url, connector=connector, timeout=bound) as session:
            yield session

    async def _ask(self, session: aiohttp.ClientSession, token: str) -> int:
        """The status of one answer, which is counted if it is a good one."""
        told = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        body = orjson.dumps({"model": ENDPOINT, "messages": [{"role": "user", "content": "What is a furnace?"}]})
        async with session.post("v1/chat/completions", data=body, headers=told) as answer:
            said = orjson.loads(await answer.read())
            if answer.status == 200:
                usage = said["usage"]
                self.answered.update(requests=1, read=usage["prompt_tokens"], written=usage["completion_tokens"])
            return answer.status

    async def _served(self, session: aiohttp.ClientSession, token: str, *, seconds: float = READY_SECONDS) -> None:
        until, last = time.monotonic() + seconds, ""
        while True:
            try:
                if (status := await self._ask(session, token)) == 200:
                    return
                last = f"status {status}"
            except (aiohttp.ClientConnectionError, OSError) as error:
                last = str(error)
            assert time.monotonic() < until, f"it is not served: {last}"
            await asyncio.sleep(0.05)
