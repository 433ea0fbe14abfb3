"""How long a request waits for an endpoint that sleeps, beside what its engine takes to start.

An installation of its own with the real llama.cpp and SmolLM2-135M: an endpoint that scales is left alone until it has
no replica, then asked, some times over. What is told apart: from the request to the engine's process, which is the
gateway's word, the controller, the claim and the agent; that process until its host has found it good, which is the
engine's own start; and from there to the answer.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import aiohttp

from _common import Figure, Options, figure, median, program
from _serving import Serving, Status, answering, began, found_good, serving

NAME = "smol"
SCALE = {"min": 0, "max": 1, "idleSeconds": 10}


@dataclass(frozen=True, slots=True)
class Wake:
    """Seconds: of the whole request, and of the three parts of it."""

    whole: float
    begun: float
    engine: float
    answered: float


async def measure(options: Options) -> list[Figure]:
    """Wake it some times."""
    async with serving() as here:
        await here.create(NAME, {"scale": SCALE})
        await here.until(NAME, lambda status: answering(status) and bool(status.get("scaling")))
        wakes = [await _wake(here) for _ in range(options.runs(5))]
    rest = median([wake.whole - wake.engine for wake in wakes])
    return [
        figure("request to a sleeping endpoint, until it is answered", median([w.whole for w in wakes]), "s"),
        figure("of that the engine's own start, until it is found good", median([w.engine for w in wakes]), "s"),
        figure("all else", rest, "s", at_most=0.5),
        figure("of all else until the engine's process is there", median([w.begun for w in wakes]), "s"),
        figure("of all else from there to the answer", median([w.answered for w in wakes]), "s"),
    ]


def _asleep(status: Status) -> bool:
    return not status.get("readyReplicas") and not status.get("replicas") and bool(status.get("scaling"))


async def _wake(here: Serving) -> Wake:
    await here.until(NAME, _asleep)
    await asyncio.sleep(1.0)
    trust = here.trust
    body = {"model": NAME, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {here.token}"}) as session:
        # A connection that stands already, as an application's does.
        async with session.get(f"{here.url}/models", ssl=trust) as models:
            await models.read()
        asked = time.time()
        async with session.post(f"{here.url}/chat/completions", json=body, ssl=trust) as answer:
            said = await answer.read()
            ended = time.time()
            if answer.status != 200 or "x-bessemer-waking" not in answer.headers:
                raise RuntimeError(f"{answer.status} {said[:500]!r}")
    status = await here.until(NAME, answering)
    claim = await here.claim(status["replicas"][0]["claim"])
    process, good = await asyncio.to_thread(began, claim["status"]["pid"]), found_good(claim)
    return Wake(ended - asked, process - asked, good - process, ended - good)


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])
