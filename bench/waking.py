"""How long a request waits for an endpoint that sleeps, beside what its engine takes to start.

An installation of its own with the real llama.cpp and SmolLM2-135M: an endpoint that scales is left alone until it has
no replica, then asked, some times over. What is told apart: from the request to the engine's process, which is the
gateway's word, the controller, the claim and the agent; that process until its host has found it good, which is the
engine's own start; and from there to the answer.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from _common import Figure, Options, figure, median, program, scratch, start, stop
from bessemer.client import Client, an_object, from_kubeconfig
from bessemer.core.clock import epoch
from bessemer.core.errors import BessemerError
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.main.settings import Paths
from startup import _up_words

PROJECT = "bench--waking"
ENDPOINT = Key("Endpoint", PROJECT, "smol")
READY_SECONDS = 240.0
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
    async with scratch() as folder:
        log = folder / "up.log"
        process = start(_up_words(folder / "state", 0), log=log)
        try:
            url = await asyncio.to_thread(_url, process, log)
            paths = Paths(folder / "state")
            client = from_kubeconfig(paths.kubeconfig)
            try:
                token = await _furnished(client)
                wakes = [await _wake(client, paths, url=url, token=token) for _ in range(options.runs(3))]
            finally:
                await _cleared(client)
                await client.close()
        finally:
            stop(process)
    rest = median([wake.whole - wake.engine for wake in wakes])
    return [
        figure("request to a sleeping endpoint, until it is answered", median([w.whole for w in wakes]), "s"),
        figure("of that the engine's own start, until it is found good", median([w.engine for w in wakes]), "s"),
        figure("all else", rest, "s", at_most=0.5),
        figure("of all else until the engine's process is there", median([w.begun for w in wakes]), "s"),
        figure("of all else from there to the answer", median([w.answered for w in wakes]), "s"),
    ]


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the gateway listens, once it does."""
    deadline = time.monotonic() + 60
    while "OpenAI API" not in (said := log.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(said)
        time.sleep(0.05)
    return next(line.split()[-1] for line in said.splitlines() if "OpenAI API" in line)


async def _furnished(client: Client) -> str:
    """The endpoint, once it has answered, and a key."""
    await client.create(an_object(Key("Tenant", "", "bench"), {}))
    await client.create(an_object(Key("Project", "", PROJECT), {}))
    spec = {"model": "smollm2-135m", "flavor": "serve-small", "scale": SCALE}
    await client.create(an_object(ENDPOINT, spec))
    await client.create(an_object(Key("ApiKey", PROJECT, "app"), {}))
    await _until(client, replicas=1)
    return await client.account.key_token(PROJECT, "app")


async def _until(client: Client, *, replicas: int) -> dict[str, Any]:
    """Wait until so many answer, and no claim is left where that is none."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            found: dict[str, Any] = orjson.loads((await client.get(ENDPOINT)).body)
        except (BessemerError, OSError):
            await asyncio.sleep(0.2)
            continue
        status = found.get("status", {})
        there = len(status.get("replicas", ()))
        if status.get("readyReplicas") == replicas and there == replicas and status.get("scaling"):
            return found
        await asyncio.sleep(0.2)
    raise TimeoutError(f"the endpoint has not {replicas} replicas after {READY_SECONDS:g} s")


async def _cleared(client: Client) -> None:
    """An engine outlives what started it: it goes with its endpoint."""
    await client.delete(ENDPOINT)
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if not (await client.list(Scope(kind="Claim", namespace=PROJECT))).items:
            return
        await asyncio.sleep(0.2)


async def _wake(client: Client, paths: Paths, *, url: str, token: str) -> Wake:
    await _until(client, replicas=0)
    await asyncio.sleep(1.0)
    trust = ssl.create_default_context(cafile=str(paths.ca_certificate))
    body = {"model": "smol", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"}) as session:
        # A connection that stands already, as an application's does.
        async with session.get(f"{url}/models", ssl=trust) as models:
            await models.read()
        asked = time.time()
        async with session.post(f"{url}/chat/completions", json=body, ssl=trust) as answer:
            said = await answer.read()
            ended = time.time()
            if answer.status != 200 or "x-bessemer-waking" not in answer.headers:
                raise RuntimeError(f"{answer.status} {said[:500]!r}")
    found = await _until(client, replicas=1)
    claim = orjson.loads((await client.get(Key("Claim", PROJECT, found["status"]["replicas"][0]["claim"]))).body)
    began = await asyncio.to_thread(_began, claim["status"]["pid"])
    good = next(epoch(one["at"]) for one in reversed(claim["status"]["history"]) if one["phase"] == "Running")
    return Wake(ended - asked, began - asked, good - began, ended - good)


def _began(pid: int) -> float:
    """When a process began, to the kernel's tick: the time of boot that others are told is of a whole second."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])
