"""Whether a replica is fit to be asked: each check by its name, and a database that nobody loads by asking."""

from __future__ import annotations

import asyncio

import pytest

from bessemer.api import health
from bessemer.api.health import Database
from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import Unavailable
from tests.api.world import PATIENCE_SECONDS, World

VERBOSE = """\
[+]ping ok
[+]database ok
[+]tenants ok
[+]watches ok
[+]shutdown ok
readyz check passed
"""


async def test_it_is_ready_in_kubernetes_words(w: World) -> None:
    assert (await w.call("GET", "/readyz", peer=None)).body == b"ok"
    assert (await w.call("GET", "/readyz?verbose", peer=None)).body.decode() == VERBOSE
    assert (await w.call("GET", "/livez", peer=None)).body == b"ok"


async def test_a_replica_without_its_database_is_not_ready_and_lives(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone() -> None:
        raise Unavailable("the database does not answer", internal="password of nobody")

    monkeypatch.setattr(w.api.state.database, "_look", gone)
    reply = await w.call("GET", "/readyz", peer=None)
    assert (reply.code, reply.headers["retry-after"]) == (503, "1")
    assert b"[-]database failed: reason withheld\n[+]tenants ok" in reply.body
    assert b"password" not in reply.body
    assert (await w.call("GET", "/livez", peer=None)).code == 200


async def test_one_that_stops_says_so(w: World) -> None:
    w.api.close()
    reply = await w.call("GET", "/readyz", peer=None)
    assert reply.code == 503
    assert b"[-]shutdown failed" in reply.body


class Slow:
    """A database that answers when it is let."""

    def __init__(self) -> None:
        self.looks = 0
        self.go = asyncio.Event()

    async def look(self) -> None:
        self.looks += 1
        await self.go.wait()


async def test_many_that_ask_cost_one_look_a_second() -> None:
    clock, slow = FakeClock(), Slow()
    slow.go.set()
    database = Database(slow.look, clock)
    assert await asyncio.gather(*(database.answers() for _ in range(100))) == [True] * 100
    assert (await database.answers(), slow.looks) == (True, 1)
    await clock.advance(health.FRESH_SECONDS)
    assert (await database.answers(), slow.looks) == (True, 2)


async def test_a_look_that_hangs_is_a_no_and_no_second_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.01)
    clock, slow = FakeClock(), Slow()
    database = Database(slow.look, clock)
    assert not await database.answers()
    await clock.advance(60)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await asyncio.gather(*(database.answers() for _ in range(100))) == [False] * 100
    assert slow.looks == 1
    monkeypatch.setattr(health, "LOOK_SECONDS", PATIENCE_SECONDS)
    slow.go.set()
    await settle()
    assert await database.answers(), "it came back"
    database.close()
