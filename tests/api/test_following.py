"""How old what the api keeps may be: who fell behind is told, and decides nothing for anybody who shows a bearer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from bessemer.api.following import AGAIN_SECONDS, STALE_SECONDS, Following
from bessemer.api.state import UNTOLD_SECONDS_MAX
from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import Expired, Unavailable
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Change, Key
from tests.api.world import ADMIN, BASE, PASSWORD, World, named, world


class Told:
    """A store whose watch tells what it is told to."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[Change | Bookmark | Exception] = asyncio.Queue()
        self.since: list[int | None] = []
        self.lagged: Callable[[], None] | None = None

    async def watch(
        self,
        scope: Scope,
        *,
        since: int | None = None,
        level: bool = False,
        lagged: Callable[[], None] | None = None,
    ) -> AsyncIterator[Change | Bookmark]:
        self.since.append(since)
        self.lagged = lagged
        assert level
        while True:
            said = await self.said.get()
            if isinstance(said, Exception):
                raise said
            yield said


async def nothing() -> None:
    return None


async def test_who_has_not_heard_all_is_behind_from_then_on() -> None:
    clock, store, heard = FakeClock(), Told(), list[Change | Bookmark]()
    following = Following(store, clock)  # type: ignore[arg-type]
    running = asyncio.ensure_future(following.follow("Role", hear=heard.append, begin=nothing))
    await settle()
    await clock.advance(1000.0)
    assert following.seconds == 0.0, "nothing was told yet, so nothing is old"
    store.said.put_nowait(Change(6, "ADDED", Key("Role", "", "r"), "u", "", b"{}"))
    store.said.put_nowait(Bookmark(7))
    await settle()
    await clock.advance(1000.0)
    assert (following.seconds, following.current) == (0.0, True)
    store.said.put_nowait(Unavailable("the store is away"))
    await settle()
    await clock.advance(STALE_SECONDS)
    assert following.current
    store.said.put_nowait(Unavailable("and again"))
    await settle()
    await clock.advance(1.0)
    with pytest.raises(Unavailable) as raised:
        following.require()
    assert raised.value.retry_after_seconds == AGAIN_SECONDS
    store.said.put_nowait(Change(8, "MODIFIED", Key("Role", "", "r"), "u", "", b"{}"))
    await settle()
    assert not following.current, "there may be more"
    store.said.put_nowait(Bookmark(8))
    await settle()
    following.require()
    store.said.put_nowait(Expired("history is gone"))
    await settle()
    assert store.since == [None, 7, 7, None]
    assert [event.revision for event in heard] == [6, 7, 8, 8]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_who_reads_up_what_it_missed_is_behind_until_it_has() -> None:
    clock, store = FakeClock(), Told()
    following = Following(store, clock)  # type: ignore[arg-type]
    running = asyncio.ensure_future(following.follow("Role", hear=lambda event: None, begin=nothing))
    store.said.put_nowait(Bookmark(7))
    await settle()
    assert store.lagged is not None
    for _ in range(2):  # the second is no later beginning
        store.lagged()
        await clock.advance(STALE_SECONDS / 2)
    assert following.current
    store.said.put_nowait(Change(8, "MODIFIED", Key("Role", "", "r"), "u", "", b"{}"))
    await settle()
    await clock.advance(1.0)
    assert (following.seconds, following.current) == (STALE_SECONDS + 1.0, False)
    store.said.put_nowait(Bookmark(9))
    await settle()
    assert (following.seconds, following.current) == (0.0, True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_who_is_behind_decides_nothing_by_what_it_keeps(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token, agent = await w.login("ann"), await w.host("h1")
    unheard = STALE_SECONDS
    monkeypatch.setattr(w.api.state.following, "_unheard", lambda: unheard)
    assert (await w.call("GET", "/whoami", token=token)).code == 200
    unheard += 0.1
    for path in ("/whoami", f"{BASE}/tenants/acme", f"{BASE}/namespaces/acme--lab/instances?watch=1"):
        reply = await w.call("GET", path, token=token)
        assert (reply.code, reply.headers["retry-after"]) == (503, str(AGAIN_SECONDS))
    for body in ({"user": "ann", "password": PASSWORD}, {"link": "bss_x.y"}):
        assert (await w.call("POST", "/login", body, peer=None)).code == 503
    said = {"code": "c", "verifier": "v", "nonce": "n"}
    assert (await w.call("POST", "/login/providers/corp", said, peer=None)).code == 503
    ready = await w.call("GET", "/readyz", peer=None)
    assert (ready.code, b"[-]watches failed: reason withheld" in ready.body) == (503, True)
    # A certificate's rights are not among what is kept: the administrator's, and a host's, which is read each time.
    assert (await w.call("POST", f"{BASE}/users", named("late"), peer=ADMIN)).code == 201
    assert (await w.call("GET", f"{BASE}/hosts/h1", peer=agent)).code == 200
    unheard = 0.0
    assert (await w.call("GET", "/whoami", token=token)).code == 200


async def test_what_is_open_ends_where_the_api_is_behind_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, unheard = FakeClock(), 0.0
    async with world(clock) as w:
        token = await w.login("ann")
        monkeypatch.setattr(w.api.state.following, "_unheard", lambda: unheard)
        async with w.watch(f"{BASE}/namespaces/acme--lab/instances?watch=1", token=token) as events:
            await settle()
            unheard = STALE_SECONDS + 1
            await clock.advance(w.api.state.context.limits.bookmark_seconds)
            assert events.lines.empty(), "it is asked about again, and the answer is awaited for a while"
            await clock.advance(UNTOLD_SECONDS_MAX + 1)
            last = await events.next()
            assert (last["type"], last["object"]["code"]) == ("ERROR", 503)
            assert await events.next() is None
