"""One tenant's storm, and what its neighbours feel of it.

Two tenants share a control plane (TLS, RBAC and audit on, SQLite with synchronous=FULL). A member of one asks 40 times
a second: a get, then a create of an ApiKey. Meanwhile 64 connections of the other tenant, in a process of their own,
create, read, list and delete ApiKeys, each its next as soon as it is answered. Each wait is that of an answer, with the
machine's two cores shared by the server, the storm and whoever measures. Beside the neighbour, in the same storm, a
member of the storming tenant asks the same: that is what it would be like without turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from threading import Event
from typing import Any

import orjson

from _common import Figure, Options, Plane, figure, median, percentile, plane, program
from _wire import Server, Wire, client_tls, request
from bessemer.client import Ask

OURS = "/apis/bessemer.dev/v1alpha1"
STORMING, CALM = "storming", "calm"
CONNECTIONS = 64
PACE_SECONDS = 1 / 40
PASSWORD = "correct horse battery staple"
OTHERS_GOAL = 2.0
"""Times its quiet 99th percentile."""

Waits = Mapping[str, list[float]]


async def measure(options: Options) -> list[Figure]:
    """Quiet, then in the storm: the neighbour, and a member of the storming tenant."""
    seconds = 6 if options.quick else 30
    async with plane() as (running, _):
        calm, storming = [await _member(running, tenant) for tenant in (CALM, STORMING)]
        ca, port = running.paths.ca_certificate, running.settings.api_port
        server = Server(port=port, tls=client_tls(ca))
        await _asked(server, calm, project=f"{CALM}--one", seconds=2, stem="warm")
        quiet = await _asked(server, calm, project=f"{CALM}--one", seconds=seconds, stem="quiet")
        context = get_context("spawn")
        with ProcessPoolExecutor(1, context) as pool, context.Manager() as shared:
            stop = shared.Event()
            storm = asyncio.get_running_loop().run_in_executor(pool, _storm, port, ca, storming, stop)
            try:
                await asyncio.sleep(2)
                neighbour = await _asked(server, calm, project=f"{CALM}--one", seconds=seconds, stem="beside")
                within = await _asked(server, storming, project=f"{STORMING}--one", seconds=seconds, stem="within")
            finally:
                stop.set()
            rate = await storm
    return [*_figures(quiet, neighbour, within=within), figure("answers to the storm", rate, "/s")]


def _figures(quiet: Waits, neighbour: Waits, *, within: Waits) -> list[Figure]:
    found = []
    for verb in ("get", "create"):
        calm = percentile(quiet[verb], 0.99)
        here, there = percentile(neighbour[verb], 0.99), percentile(within[verb], 0.99)
        peer = "a member of the storming tenant"
        found += [
            figure(f"{verb}, quiet, p50", median(quiet[verb]) * 1e3, "ms"),
            figure(f"{verb}, quiet, p99", calm * 1e3, "ms"),
            figure(f"{verb}, beside the storm, p50", median(neighbour[verb]) * 1e3, "ms"),
            figure(f"{verb}, beside the storm, p99", here * 1e3, "ms", peer=(peer, float(f"{there * 1e3:.4g}"))),
            figure(f"{verb}, p99 beside the storm against quiet", here / calm, "×", at_most=OTHERS_GOAL),
        ]
    return found


async def _member(running: Plane, tenant: str) -> str:
    """A tenant with a project, and the bearer of its only member."""

    async def post(path: str, body: Any) -> Any:
        asked = Ask(method="POST", path=path, body=orjson.dumps(body))
        return orjson.loads(await running.client.transport.request(asked) or b"null")

    members = [{"user": tenant, "role": "member"}]
    await post(f"{OURS}/users", {"metadata": {"name": tenant}, "spec": {}})
    await post(f"{OURS}/tenants", {"metadata": {"name": tenant}, "spec": {"members": members}})
    await post(f"{OURS}/projects", {"metadata": {"name": f"{tenant}--one"}, "spec": {}})
    await post(f"{OURS}/users/{tenant}/password", {"password": PASSWORD})
    return str((await post("/login", {"user": tenant, "password": PASSWORD}))["token"])


async def _asked(server: Server, token: str, *, project: str, seconds: float, stem: str) -> Waits:
    """Verb → seconds until each answer, at a steady pace."""
    keys = f"{OURS}/namespaces/{project}/apikeys"
    wire = await Wire.open(server)
    waits: dict[str, list[float]] = {"get": [], "create": []}
    begun = time.perf_counter()
    for n in range(int(seconds / PACE_SECONDS)):
        await asyncio.sleep(max(0.0, begun + n * PACE_SECONDS - time.perf_counter()))
        verb = "create" if n % 2 == 0 else "get"
        name = f"{stem}-{n // 2}"
        asked = _create(keys, name, token=token) if verb == "create" else _bare("GET", f"{keys}/{name}", token=token)
        began = time.perf_counter()
        status, body = await wire.ask(asked)
        waits[verb].append(time.perf_counter() - began)
        if status not in (200, 201):
            raise RuntimeError(f"{verb}: {status} {body[:300].decode(errors='replace')}")
    wire.close()
    return waits


def _bare(method: str, path: str, *, token: str) -> bytes:
    return request(method, path, headers=f"Authorization: Bearer {token}\r\n")


def _create(keys: str, name: str, *, token: str) -> bytes:
    body = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": name}, "spec": {}}
    return request("POST", keys, orjson.dumps(body), headers=f"Authorization: Bearer {token}\r\n")


def _storm(port: int, ca: Path, token: str, stop: Event) -> float:
    """In its own process: answers per second, good or refused, until it is told to stop."""
    return asyncio.run(_storms(port, ca, token, stop))


async def _storms(port: int, ca: Path, token: str, stop: Event) -> float:
    server = Server(port=port, tls=client_tls(ca))
    keys = f"{OURS}/namespaces/{STORMING}--one/apikeys"
    names, answered, over = count(), 0, asyncio.Event()

    async def one() -> None:
        nonlocal answered
        wire = await Wire.open(server)
        while not over.is_set():
            name = f"storm-{next(names)}"
            asked = [_create(keys, name, token=token), *[_bare("GET", f"{keys}/{name}", token=token)] * 2]
            asked += [_bare("GET", f"{keys}?limit=50", token=token), _bare("DELETE", f"{keys}/{name}", token=token)]
            for each in asked:
                await wire.ask(each)
                answered += 1
        wire.close()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(one())
        while not await asyncio.to_thread(stop.wait, 0.5):
            pass
        over.set()
    return answered / (time.perf_counter() - began)


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])
