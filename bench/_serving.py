"""An installation as a person has it (``bessemer up``), with the real llama.cpp and SmolLM2-135M: what `waking`,
`throughput` and `firsttoken` measure.

Its parts are processes of their own. An engine outlives what started it, so endpoints are deleted before it ends.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from _common import scratch, start, stop
from bessemer.client import Client, an_object, from_kubeconfig
from bessemer.core.clock import epoch
from bessemer.core.errors import BessemerError
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.drivers.process.real import HostProcesses
from bessemer.main.settings import Paths
from startup import _up_words

PROJECT, MODEL, FLAVOR = "bench--serving", "smollm2-135m", "serve-small"
READY_SECONDS = 240.0

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Serving:
    """``url`` is the gateway's, ``token`` a key of the project, whose requests and spending are bounded."""

    client: Client
    paths: Paths
    url: str
    token: str

    @property
    def trust(self) -> ssl.SSLContext:
        """TLS as a client of the gateway has it."""
        return ssl.create_default_context(cafile=str(self.paths.ca_certificate))

    async def create(self, name: str, spec: Mapping[str, Any]) -> None:
        """An endpoint of the small model."""
        said = {"model": MODEL, "flavor": FLAVOR, **spec}
        await self.client.create(an_object(endpoint(name), said))

    async def until(self, name: str, good: Callable[[Status], bool]) -> Status:
        """The status of an endpoint, once it is ``good``. Raises TimeoutError."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                status = orjson.loads((await self.client.get(endpoint(name))).body).get("status", {})
            except (BessemerError, OSError):
                status = {}
            if status and good(status):
                return dict(status)
            await asyncio.sleep(0.2)
        raise TimeoutError(f"the endpoint is not as it should be after {READY_SECONDS:g} s")

    async def claim(self, name: str) -> Status:
        """A claim, whole."""
        return dict(orjson.loads((await self.client.get(Key("Claim", PROJECT, name))).body))

    async def delete(self, name: str) -> None:
        """Delete an endpoint, and wait until its engines are gone."""
        await self.client.delete(endpoint(name))
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if not (await self.client.list(Scope(kind="Claim", namespace=PROJECT))).items:
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"its engines are there after {READY_SECONDS:g} s")


def endpoint(name: str) -> Key:
    return Key("Endpoint", PROJECT, name)


def answering(status: Status) -> bool:
    """Whether a replica answers, and no other is there."""
    return status.get("readyReplicas") == 1 and len(status.get("replicas", ())) == 1


def found_good(claim: Status) -> float:
    """When its host last found an engine good, in epoch seconds."""
    return next(epoch(one["at"]) for one in reversed(claim["status"]["history"]) if one["phase"] == "Running")


def began(pid: int) -> float:
    """When a process began, to the kernel's tick: the time of boot that others are told is of a whole second."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def serving() -> AsyncIterator[Serving]:
    """It, with a project and a key; without an endpoint."""
    async with scratch() as folder:
        log = folder / "up.log"
        process = start(_up_words(folder / "state", 0), log=log)
        try:
            url = await asyncio.to_thread(_url, process, log)
            paths = Paths(folder / "state")
            client = from_kubeconfig(paths.kubeconfig)
            try:
                yield Serving(client, paths, url, await _key(client))
            finally:
                # Where the control plane was ended before us, nobody is left to ask.
                with suppress(BessemerError, OSError):
                    await _cleared(client)
                await client.close()
        finally:
            stop(process)
            engines = HostProcesses(Paths(folder / "state").agent / "processes")
            for one in await engines.running():
                await engines.remove(one.uid)


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the gateway listens, once it does."""
    deadline = time.monotonic() + 60
    while "OpenAI API" not in (said := log.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(said)
        time.sleep(0.05)
    return next(line.split()[-1] for line in said.splitlines() if "OpenAI API" in line)


async def _key(client: Client) -> str:
    """A key with limits and a budget, both far away: what they cost is in the figures."""
    await client.create(an_object(Key("Tenant", "", "bench"), {}))
    await client.create(an_object(Key("Project", "", PROJECT), {}))
    limits = {"requestsPerMinute": 1 << 40, "tokensPerDay": 1 << 40, "concurrent": 1 << 20}
    spec = {"limits": limits, "budget": {"period": "Month", "micro": 1 << 40}}
    await client.create(an_object(Key("ApiKey", PROJECT, "app"), spec))
    return await client.account.key_token(PROJECT, "app")


async def _cleared(client: Client) -> None:
    deadline = time.monotonic() + READY_SECONDS
    for one in (await client.list(Scope(kind="Endpoint", namespace=PROJECT))).items:
        await client.delete(endpoint(one.key.name))
    while time.monotonic() < deadline:
        if not (await client.list(Scope(kind="Claim", namespace=PROJECT))).items:
            return
        await asyncio.sleep(0.1)
