"""Clients of a plant: those that do their worst, and those that ask as people do and try again where they may."""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import orjson

from tests.soak.plant import CONTEXT, Asked, Plant

NUMBERS = itertools.count(1)
SECONDS = 120.0
"""Longer than a gateway waits for anybody: whoever waits for so long was forgotten."""

LATE = 408


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked; a client that ``leaves`` does so after so many chunks, 0 before the first."""

    body: dict[str, Any]
    leaves: int | None = None


async def ask(session: aiohttp.ClientSession, url: str, *, token: str, key: str, wish: Wish) -> Asked:
    """Ask once; what came of it. A status of 0 is a connection that broke, 408 an answer that never came."""
    name = f"q{next(NUMBERS)}"
    words = " ".join([name, *wish.body["messages"][0]["content"].split()])
    said = {**wish.body, "messages": [{"role": "user", "content": words}]}
    found = Asked(name, key, whole=False)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        async with asyncio.timeout(SECONDS if wish.leaves != 0 else 0.01):
            async with session.post(f"{url}/chat/completions", data=orjson.dumps(said), headers=headers) as answer:
                found = replace(found, status=answer.status, request=answer.headers.get("x-request-id", ""))
                if answer.status != 200:
                    await answer.read()
                elif said.get("stream"):
                    found = await _streamed(answer, found, leaves=wish.leaves)
                else:
                    usage = orjson.loads(await answer.read())["usage"]
                    found = replace(found, whole=True, read=usage["prompt_tokens"], wrote=usage["completion_tokens"])
    except TimeoutError:
        return found if wish.leaves == 0 else replace(found, status=LATE)
    except (aiohttp.ClientError, OSError):
        pass
    return found


async def _streamed(answer: aiohttp.ClientResponse, found: Asked, *, leaves: int | None) -> Asked:
    """As far as it comes; whole with its end."""
    seen, usage = 0, None
    try:
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                if line.startswith(b"data: [DONE]") and usage is not None:
                    return replace(found, whole=True, read=usage["prompt_tokens"], wrote=usage["completion_tokens"])
                continue
            event = orjson.loads(line.removeprefix(b"data: "))
            usage = event.get("usage") or usage
            seen += any(choice["delta"].get("content") for choice in event.get("choices", ()))
            if leaves is not None and seen >= leaves:
                answer.close()
                break
    except (aiohttp.ClientError, OSError):
        pass
    return replace(found, wrote=seen)


def worst(dice: random.Random) -> Wish:
    """Something that nobody would ask for who pays for it."""
    said: dict[str, Any] = {
        "model": "chat",
        "messages": [{"role": "user", "content": "steel " * dice.randrange(1, 40)}],
    }
    if (most := dice.choice([None, None, 1, 7, 60, CONTEXT, 1 << 30])) is not None:
        said["max_tokens"] = most
    if (choices := dice.choice([1, 1, 1, 2, 4])) > 1:
        said["n"] = choices
    if dice.random() < 0.7:
        said |= {"stream": True, "stream_options": {"include_usage": True}}
    return Wish(
        said, leaves=dice.choice([None, None, None, 0, 1, 20]) if "stream" in said else dice.choice([None, None, 0])
    )


def usual(dice: random.Random) -> Wish:
    """A short question."""
    said: dict[str, Any] = {
        "model": "chat",
        "messages": [{"role": "user", "content": "why is it blown " * dice.randrange(1, 4)}],
        "max_tokens": dice.randrange(2, 24),
    }
    if dice.random() < 0.7:
        said |= {"stream": True, "stream_options": {"include_usage": True}}
    return Wish(said, leaves=3 if "stream" in said and dice.random() < 0.05 else None)


async def bother(plant: Plant, session: aiohttp.ClientSession, *, seed: int, until: asyncio.Event) -> None:
    """Ask for the worst, without a pause, until it is over; whatever is answered."""
    dice = random.Random(seed)
    names = sorted(plant.keys)
    while not until.is_set():
        key = names[seed % len(names)]
        asked = await ask(session, dice.choice(plant.urls), token=plant.keys[key], key=key, wish=worst(dice))
        plant.asked.append(asked)
        if asked.status != 200:
            await asyncio.sleep(dice.uniform(0.01, 0.1))


async def converse(
    plant: Plant, session: aiohttp.ClientSession, *, seed: int, until: asyncio.Event, pause: float
) -> None:
    """Ask as people do, one after the other; a connection that breaks, and what says that it may be tried again, is."""
    dice, names = random.Random(seed), sorted(plant.keys)
    key = names[seed % len(names)]
    while not until.is_set():
        wish, tries = usual(dice), 0
        while True:
            asked = await ask(session, dice.choice(plant.urls), token=plant.keys[key], key=key, wish=wish)
            plant.asked.append(asked)
            tries += 1
            if asked.status in (200, *FAILED) or until.is_set():
                break
            assert tries < TRIES, ("it was tried in vain", asked)
            await asyncio.sleep(dice.uniform(0.2, 0.6))
        with suppress(TimeoutError):
            await asyncio.wait_for(until.wait(), dice.uniform(0.2, 1.8) * pause)


TRIES = 60
FAILED = (400, 401, 403, 404, LATE, 429, 500, 502, 504)
"""None of these may come of anything that befell: where nothing was sent, somebody else is asked."""
