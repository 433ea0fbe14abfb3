"""Who waits or is refused costs the store nothing, and who asks is found out once the turn has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from structlog.testing import capture_logs

from bessemer.api import flow
from bessemer.api.askers import ASKERS_MAX, REMEMBERED_SECONDS, Askers
from bessemer.api.ca import Peer
from bessemer.api.context import Credentials, Identity
from bessemer.core.clock import FakeClock
from tests.api.world import BASE, PATIENCE_SECONDS, World, named

KEYS = f"{BASE}/namespaces/acme--lab/apikeys"
MIA, ROB = Identity("user", "mia"), Identity("user", "rob")


@pytest.fixture(autouse=True)
def seats_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever has one: by itself a slow request loses it."""
    monkeypatch.setattr(flow, "SEAT_SECONDS", 60.0)


class Counting:
    """An authenticator, and whom it was asked about."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.asked: list[str] = []

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        self.asked.append(credentials.authorization)
        found: Identity | None = await self._inner.authenticate(credentials)
        return found


async def storm(w: World, token: str, stack: AsyncExitStack, *, waiting: int) -> list[asyncio.Task[Any]]:
    """Requests of a tenant whose bodies never come: the seats that it has beside others, and some that wait."""
    never = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        await never.wait()
        yield b""

    tasks = [
        asyncio.ensure_future(w.call("POST", KEYS, body(), token=token)) for _ in range(flow.TENANTS.each + waiting)
    ]
    stack.callback(lambda: [task.cancel() for task in tasks])
    await until(w, seated=flow.TENANTS.each, waiting=waiting)
    return tasks


async def until(w: World, *, seated: int, waiting: int) -> None:
    lane = w.api.state.flows._people
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (len(lane._seats.held), lane.waiting) != (seated, waiting):
            await asyncio.sleep(0.01)


async def test_who_is_refused_for_their_number_is_not_looked_up_and_yet_named_in_the_log(w: World) -> None:
    mia = await w.login("mia")
    assert (await w.call("GET", KEYS, token=mia)).code == 200
    async with AsyncExitStack() as stack:
        await storm(w, mia, stack, waiting=flow.TENANTS.waiting)
        counting = w.api.state.authenticator = Counting(w.api.state.authenticator)
        with capture_logs() as logs:
            codes = [reply.code for reply in await asyncio.gather(*(w.call("GET", KEYS, token=mia) for _ in range(20)))]
        assert codes == [429] * 20
        assert counting.asked == []
        told = [line for line in logs if line["event"] == "request"]
        assert {(line["user"], line["taken_for"]) for line in told} == {("", "user:mia")}
        other = await w.login("eve")
        assert (await w.call("GET", f"{BASE}/namespaces/other--lab/apikeys", token=other)).code == 200


async def test_who_was_known_and_is_nobody_by_the_time_of_their_turn_gets_nothing(w: World) -> None:
    """A session that is ended while its request waits; from then on it is a stranger's."""
    mia, also = await w.login("mia"), await w.login("mia")
    for token in (mia, also):
        assert (await w.call("GET", KEYS, token=token)).code == 200
    async with AsyncExitStack() as stack:
        tasks = await storm(w, also, stack, waiting=0)
        late = asyncio.ensure_future(w.call("POST", KEYS, named("late"), token=mia))
        await until(w, seated=flow.TENANTS.each, waiting=1)
        session = mia.removeprefix("bss_").partition(".")[0]
        assert (await w.call("DELETE", f"{BASE}/sessions/{session}")).code == 200
        for task in tasks:
            task.cancel()
        assert (await late).code == 401
    assert w.api.state.askers.find(Credentials(None, f"Bearer {mia}")) is None
    assert (await w.call("GET", f"{KEYS}/late")).code == 404


def test_what_was_good_is_known_for_a_while_by_all_that_was_shown() -> None:
    clock = FakeClock()
    askers = Askers(clock)
    bearer, other = Credentials(None, "Bearer one"), Credentials(None, "Bearer two")
    host = Credentials(Peer("system:agent:a", (), "f"))
    askers.learn(bearer, MIA)
    askers.learn(host, Identity("agent", "a"))
    assert askers.find(bearer) == MIA
    assert askers.find(other) is None
    assert askers.find(Credentials(None, "Bearer one", "192.0.2.1")) is None, "a stolen one takes no turns of its owner"
    assert askers.find(Credentials()) is None
    assert askers.find(Credentials(Peer("system:agent:b", (), "f"))) is None
    assert askers.find(Credentials(host.peer, "Bearer one")) == MIA, "a bearer counts before a certificate"
    askers.learn(bearer, None)
    assert askers.find(bearer) is None
    assert askers.find(host) == Identity("agent", "a")


async def test_it_forgets_after_a_while_and_keeps_no_more_than_it_may() -> None:
    clock = FakeClock()
    askers = Askers(clock)
    for number in range(ASKERS_MAX + 1):
        askers.learn(Credentials(None, f"Bearer {number}"), ROB)
    assert askers.find(Credentials(None, "Bearer 0")) is None
    assert askers.find(Credentials(None, "Bearer 1")) == ROB
    await clock.advance(REMEMBERED_SECONDS)
    assert askers.find(Credentials(None, "Bearer 1")) is None
