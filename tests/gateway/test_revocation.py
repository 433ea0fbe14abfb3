"""A revoked key is worth nothing at every gateway that watches; one that is cut off goes on for a stated time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from bessemer.core.clock import FakeClock, SystemClock
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.gateway import CutOff, Follower, Tables
from bessemer.store import Store, open_store
from tests.gateway.harness import PROJECT, rig
from tests.store.conftest import KEY, KINDS
from tests.store.make import ALICE, body, read

TOKEN = "bsk_revoked"


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    kinds = {**KINDS, "Endpoint": KINDS["Thing"]}
    opened = open_store(":memory:", clock=SystemClock(), kinds=kinds, seal_key=KEY)
    await opened.objects.create(body("Tenant", "acme", namespace=""), ALICE)
    await opened.objects.create(body("Project", PROJECT, namespace=""), ALICE)
    yield opened
    opened.close()


async def made(store: Store) -> None:
    """A key with a token."""
    found = read(await store.objects.create(body("ApiKey", "k", namespace=PROJECT), ALICE))
    found["status"] = {"digest": hashlib.sha256(TOKEN.encode()).hexdigest()}
    await store.objects.replace(found, CONTROLLER, part="status")


async def until(tables: list[Tables], known: bool) -> None:
    """Every gateway knows the key, or none does."""
    async with asyncio.timeout(30):
        while any((one.find_key(TOKEN) is not None) != known for one in tables):
            await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["deleted", "disabled", "another token"])
async def test_each_gateway_that_watches_hears_of_it_without_asking(store: Store, how: str) -> None:
    """By the change itself: no gateway's clock moves, so that none asked again, or waited for a round of anything."""
    clocks, gateways = [FakeClock() for _ in range(3)], [Tables() for _ in range(3)]
    await made(store)
    running = [
        asyncio.create_task(Follower(store.objects, tables, clock=clock).run())
        for tables, clock in zip(gateways, clocks, strict=True)
    ]
    try:
        await until(gateways, True)
        key = Key("ApiKey", PROJECT, "k")
        if how == "deleted":
            await store.objects.delete(key, ALICE)
        else:
            found = read(await store.objects.get(key))
            part = "main" if how == "disabled" else "status"
            found |= {"spec": {"disabled": True}} if how == "disabled" else {"status": {"digest": "0" * 64}}
            await store.objects.replace(found, CONTROLLER, part=part)  # type: ignore[arg-type]
        await until(gateways, False)
        assert [clock.monotonic() for clock in clocks] == [FakeClock().monotonic()] * 3
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_one_that_hears_nothing_of_keys_takes_none_after_a_stated_time() -> None:
    silent = 3600.0
    async with rig(cut_off=CutOff(lambda: silent, 3600.0)) as to, aiohttp.ClientSession() as session:
        bearer = {"authorization": "Bearer bsk_good"}
        async with session.get(f"{to.url}/models", headers=bearer) as answer:
            assert answer.status == 200
        silent = 3601.0
        async with session.get(f"{to.url}/models", headers=bearer) as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["code"] == "cut_off"
            assert answer.headers["retry-after"] == "5"
        told = {family.name: family for family in to.gateway._metrics.collect()}
        assert told["bessemer_gateway_silent_seconds"].samples[0].value == 3601.0


async def test_what_is_heard_is_every_word_of_keys_also_that_there_is_none(store: Store) -> None:
    clock = FakeClock()
    follower = Follower(store.objects, Tables(), clock=clock)
    await clock.advance(100)
    assert follower.silent() == 100
    task = asyncio.create_task(follower.run())
    async with asyncio.timeout(30):
        await follower.ready.wait()
    assert follower.silent() == 0
    await clock.advance(7)
    assert follower.silent() == 7
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
