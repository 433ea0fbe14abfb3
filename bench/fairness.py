"""One tenant's storm, and what its neighbours feel of it.

Two tenants share a control plane (TLS, RBAC and audit on, SQLite with synchronous=FULL). A member of one asks 40 times
a second: a get, then a create of an ApiKey. Meanwhile 64 connections of the other tenant create, read, list and delete
ApiKeys, each its next as soon as it is answered; then 600 do, most of which are refused and heed no Retry-After. Storm
and neighbour are processes of their own, the neighbour's of a higher priority and the storm's of a lower one than the
server's, so that nobody waits for whoever measures. Lag is how late the server's own timers ring. Beside the neighbour
a member of the storming tenant asks the same: that is what it would be like without turns.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
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
ALL_SERVED = 64
CONNECTIONS = (ALL_SERVED, 600)
PACE_SECONDS = 1 / 40
PASSWORD = "correct horse battery staple"
OTHERS_GOAL = 2.0
"""Times its quiet 99th percentile."""

Waits = Mapping[str, list[float]]
Lags = Mapping[float, float]
"""Bound in seconds → timers that kept it."""

Reach = tuple[int, Path]
"""The api's port, and the authority that it is known by."""


async def measure(options: Options) -> list[Figure]:
    """Quiet, then in each storm: the neighbour, and a member of the storming tenant."""
    seconds = 6 if options.quick else 30
    async with plane() as (running, _):
        calm, storming = [await _member(running, tenant) for tenant in (CALM, STORMING)]
        reach = (running.settings.api_port, running.paths.ca_certificate)
        context = get_context("spawn")
        with ProcessPoolExecutor(2, context) as pool, context.Manager() as shared:

            async def ask(tenant: str, token: str, stem: str) -> tuple[Waits, Lags]:
                before = await _lags(running)
                probe = pool.submit(_probe, reach, token, f"{tenant}--one", seconds=seconds, stem=stem)
                waits = await asyncio.wrap_future(probe)
                after = await _lags(running)
                return waits, {bound: after[bound] - before[bound] for bound in after}

            await ask(CALM, calm, "warm")
            quiet = await ask(CALM, calm, "quiet")
            figures = _quiet(*quiet)
            for connections in CONNECTIONS:
                stop = shared.Event()
                storm = pool.submit(_storm, reach, storming, stop, connections=connections)
                try:
                    await asyncio.sleep(2)
                    beside = await ask(CALM, calm, f"beside-{connections}")
                    within = (await ask(STORMING, storming, "within"))[0] if connections == ALL_SERVED else None
                finally:
                    stop.set()
                storms = f"a storm of {connections}"
                figures += _beside(quiet[0], beside[0], within=within, storms=storms)
                figures.append(figure(f"server's lag, beside {storms}, p99", _lag(beside[1]) * 1e3, "ms"))
                figures.append(figure(f"answers to {storms}", await asyncio.wrap_future(storm), "/s"))
    return figures


def _quiet(waits: Waits, lags: Lags) -> list[Figure]:
    found = [figure("server's lag, quiet, p99", _lag(lags) * 1e3, "ms")]
    for verb, seconds in waits.items():
        found.append(figure(f"{verb}, quiet, p50", median(seconds) * 1e3, "ms"))
        found.append(figure(f"{verb}, quiet, p99", percentile(seconds, 0.99) * 1e3, "ms"))
    return found


def _beside(quiet: Waits, neighbour: Waits, *, within: Waits | None, storms: str) -> list[Figure]:
    found = []
    for verb, seconds in neighbour.items():
        here, peer = percentile(seconds, 0.99), None
        if within is not None:
            peer = ("a member of the storming tenant", float(f"{percentile(within[verb], 0.99) * 1e3:.4g}"))
        ratio = here / percentile(quiet[verb], 0.99)
        found += [
            figure(f"{verb}, beside {storms}, p50", median(seconds) * 1e3, "ms"),
            figure(f"{verb}, beside {storms}, p99", here * 1e3, "ms", peer=peer),
            figure(f"{verb}, p99 beside {storms} against quiet", ratio, "×", at_most=OTHERS_GOAL),
        ]
    return found


async def _lags(running: Plane) -> Lags:
    """Of the server's own timers, as its metrics have it."""
    text = await running.client.transport.request(Ask(method="GET", path="/metrics"))
    found = re.findall(r'bessemer_api_loop_lag_seconds_bucket\{le="([^"]+)"\} ([0-9.]+)', text.decode())
    return {float(bound): float(count) for bound, count in found}


def _lag(lags: Lags) -> float:
    """The bound that 99 of 100 timers kept, in seconds."""
    return min(bound for bound, count in lags.items() if count >= 0.99 * lags[math.inf])


def _prefer(more: int) -> None:
    """This process goes before others, or after, as far as the system lets it."""
    with suppress(PermissionError):
        os.nice(more)


def _probe(reach: Reach, token: str, project: str, *, seconds: float, stem: str) -> Waits:
    """In a process of its own."""
    _prefer(-10 - os.nice(0))
    server = Server(port=reach[0], tls=client_tls(reach[1]))
    return asyncio.run(_asked(server, token, project=project, seconds=seconds, stem=stem))


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


def _storm(reach: Reach, token: str, stop: Event, *, connections: int) -> float:
    """In its own process: answers per second, good or refused, until it is told to stop."""
    _prefer(10 - os.nice(0))
    return asyncio.run(_storms(reach, token, stop, connections=connections))


async def _storms(reach: Reach, token: str, stop: Event, *, connections: int) -> float:
    server = Server(port=reach[0], tls=client_tls(reach[1]))
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
        for _ in range(connections):
            group.create_task(one())
        while not await asyncio.to_thread(stop.wait, 0.5):
            pass
        over.set()
    return answered / (time.perf_counter() - began)


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0])
