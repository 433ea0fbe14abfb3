"""From `apply` of an Endpoint, whose model is on the host already, to the first token that its client reads.

An installation of its own with the real llama.cpp and SmolLM2-135M. The endpoint is applied, asked again and again
until its first token is there, and deleted, some times over; once before, so that its model is in the host's cache. The
engine's own start is from its process to its door's first good answer, as this program sees it; all else is ours: the
claim, the agent, the walls around the engine, the completion by which its host finds it good, and until the gateway
knows of it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from _common import Figure, Options, figure, median, program
from _serving import Serving, answering, began, found_good, serving
from bessemer.drivers.engine.doors import SOCKET, default_folder

NAME = "smol"
ASKED_SECONDS, LOOKED_SECONDS = 0.02, 0.005
"""Between two requests that are refused, and between two looks at the engine's door."""
MOST_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds: of all, and of its parts in order."""

    whole: float
    begun: float
    engine: float
    good: float
    told: float


async def measure(options: Options) -> list[Figure]:
    """Apply it some times."""
    async with serving() as here:
        await here.create(NAME, {})
        await here.until(NAME, answering)
        await here.delete(NAME)
        starts = [await _start(here) for _ in range(3 if options.quick else 9)]
    return [
        figure("apply of an endpoint, until its first token", median([one.whole for one in starts]), "s"),
        figure("of that the engine's own start, until its door answers", median([one.engine for one in starts]), "s"),
        figure("all else", median([one.whole - one.engine for one in starts]), "s", at_most=1.5),
        figure("of all else until the engine's process is there", median([one.begun for one in starts]), "s"),
        figure("of all else until its host has found it good", median([one.good for one in starts]), "s"),
        figure("of all else from there to the first token", median([one.told for one in starts]), "s"),
    ]


async def _start(here: Serving) -> Start:
    # What the one before left behind is settled.
    await asyncio.sleep(1.0)
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {here.token}"}) as session:
        # A connection that stands already, as an application's does.
        async with session.get(f"{here.url}/models", ssl=here.trust) as models:
            await models.read()
        applied = time.time()
        async with asyncio.timeout(MOST_SECONDS), asyncio.TaskGroup() as group:
            door = group.create_task(_opened(default_folder(here.paths.agent)))
            group.create_task(here.create(NAME, {}))
            first = await _first_token(here, session)
    status = await here.until(NAME, answering)
    claim = await here.claim(status["replicas"][0]["claim"])
    process = await asyncio.to_thread(began, claim["status"]["pid"])
    opened, good = door.result(), found_good(claim)
    await here.delete(NAME)
    return Start(first - applied, process - applied, opened - process, good - opened, first - good)


async def _first_token(here: Serving, session: aiohttp.ClientSession) -> float:
    """When it came, in epoch seconds."""
    body = {"model": NAME, "max_tokens": 1, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    trust = here.trust
    while True:
        async with session.post(f"{here.url}/chat/completions", json=body, ssl=trust) as answer:
            if answer.status == 200:
                async for line in answer.content:
                    if line.startswith(b"data: {") and any(
                        (one.get("delta") or {}).get("content") for one in orjson.loads(line[6:])["choices"]
                    ):
                        return time.time()
                raise RuntimeError("a stream without a token")
            if answer.status not in (404, 503):
                raise RuntimeError(f"{answer.status} {(await answer.read())[:500]!r}")
        await asyncio.sleep(ASKED_SECONDS)


async def _opened(doors: Path) -> float:
    """When the one engine below the folder first said that it is well, in epoch seconds."""
    while True:
        for door in _sockets(doors):
            if await _well(door):
                return time.time()
        await asyncio.sleep(LOOKED_SECONDS)


def _sockets(doors: Path) -> list[Path]:
    return list(doors.glob(f"*/{SOCKET}"))


async def _well(door: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(str(door))
    except OSError:
        return False
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.transport.abort()


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])
