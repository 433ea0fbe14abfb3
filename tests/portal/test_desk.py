"""A desk's bounds and its ends: what a session may hold, who closes it, and what becomes of what dies underneath."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
import pytest
import structlog
from playwright.async_api import expect

from bessemer.client import Me
from bessemer.core.clock import FakeClock
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Change, Key
from bessemer.portal import app, desk
from bessemer.portal.desk import IDLE_SECONDS_MAX, STREAMS_MAX, TABS_MAX, Desk, Desks
from bessemer.portal.facts import FlavorFact
from bessemer.portal.live import Page, Tab
from bessemer.portal.playground import Keyring
from bessemer.portal.stream import EventStream, Stream
from bessemer.portal.visit import COOKIE
from tests.portal.test_guard import caller
from tests.portal.town import Town


@dataclass
class Account:
    """Says who we are; ``held`` makes it wait."""

    held: asyncio.Event | None = None

    async def whoami(self) -> Me:
        if self.held is not None:
            await self.held.wait()
        return Me("ada", False, {}, ())


@dataclass
class Api:
    """A client of an api that has one flavor. ``watched`` is what its watch does before it goes on for ever."""

    account: Account = field(default_factory=Account)
    closed: int = 0
    watched: Callable[[], Awaitable[None]] | None = None
    watches: int = 0

    async def close(self) -> None:
        self.closed += 1

    async def watch(self, scope: Scope) -> AsyncGenerator[Change | Bookmark, None]:
        self.watches += 1
        body = orjson.dumps({"kind": scope.kind, "metadata": {"name": f"f{self.watches}"}})
        yield Change(1, "ADDED", Key(scope.kind, "", f"f{self.watches}"), "u", "", body)
        yield Bookmark(1)
        if self.watched is not None:
            await self.watched()
        await asyncio.Event().wait()


def made(api: Api | None = None, clock: FakeClock | None = None) -> Desk:
    clock = clock or FakeClock()
    return Desk(api or Api(), clock=clock, keys=Keyring(clock))  # type: ignore[arg-type]


def tab() -> Tab:
    return Tab(lambda: Page("t", "T", {}), {})


def stream(of: Desk, *tabs: Tab) -> Stream:
    return Stream(of, [(one, 0) for one in tabs], draw=lambda part: "")


async def told(events: Any, what: str) -> bytes:
    """The next event that says so."""
    async with asyncio.timeout(30):
        async for event in events:
            if what.encode() in event:
                return bytes(event)
    raise AssertionError(f"it ended without {what}")


# --- bounds -----------------------------------------------------------------------------------------------------


async def test_a_session_has_so_many_streams_and_no_more() -> None:
    here = made()
    running = [stream(here).events() for _ in range(STREAMS_MAX)]
    for events in running:
        await anext(events)
    assert [event async for event in stream(here).events()] == []
    await running[0].aclose()  # type: ignore[attr-defined]
    assert here.streams == STREAMS_MAX - 1
    assert await anext(stream(here).events())


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_too_many_is_refused_in_words(t: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bessemer.portal.looks.STREAMS_MAX", 0)
    async with caller(t, "ada") as ada:
        answer = await ada.get("/live?tab=x:0", Accept="text/event-stream")
        assert answer.status == 429
        assert "close a window" in answer.text


async def test_a_session_keeps_so_many_tabs_and_says_which_it_lets_go() -> None:
    here = made()
    tabs = [tab() for _ in range(TABS_MAX)]
    for one in tabs:
        here.keep(one)
    events = stream(here, *tabs).events()
    await anext(events)
    assert all(one.owner is not None for one in tabs)
    here.keep(tab())
    assert len(here.tabs) == TABS_MAX
    assert tabs[0].token not in here.tabs
    assert orjson.loads((await told(events, "full")).removeprefix(b"data: ")) == {"t": tabs[0].token, "x": "full"}
    here.keep(tab())
    assert tabs[1].token in here.tabs, "one that nobody follows goes first"


@pytest.mark.real
@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_that_is_let_go_says_why(
    t: Town, visitor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "TABS_MAX", 2)
    async with visitor("ada") as member:
        (shown,) = [one for one in await member.context.cookies() if one["name"] == COOKIE]
        here = await t.portal.state.site.desks.of(shown["value"])
        pages, tokens = [], set()
        for _ in range(3):
            pages.append(await member.open("/overview"))
            tokens.add(await pages[-1].evaluate("document.body.dataset.tab"))
            await expect(pages[-1].locator("#age")).to_contain_text("Live")
            async with asyncio.timeout(30):
                # Of those that nobody follows yet one would be let go without a word.
                while not all(one.owner for token, one in here.tabs.items() if token in tokens):
                    await asyncio.sleep(0.02)
        await expect(pages[0].locator("#age")).to_have_text("No longer live: too many pages are open")
        await expect(pages[2].locator("#age")).to_contain_text("Live,")


async def test_a_browser_that_goes_before_its_stream_begins_leaves_nothing_behind() -> None:
    here = made()
    response = EventStream(stream(here, tab()).events())

    async def gone(_message: Any) -> None:
        raise OSError("the browser is gone")

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(OSError, match="gone"):
        await response({"type": "http"}, receive, gone)
    assert not here._bells
    assert here.streams == 0


# --- ends -------------------------------------------------------------------------------------------------------


async def test_a_desk_that_goes_while_another_is_closed_does_not_stop_the_sweeper() -> None:
    clock = FakeClock()
    desks = Desks(lambda bearer: Api(), partial(Keyring, clock), clock)  # type: ignore[arg-type, return-value]
    first, second = await desks.of("a"), await desks.of("b")
    close = first.close

    async def close_both() -> None:
        await close()
        desks._by_digest.pop(desk._digest("b"))

    first.close = close_both  # type: ignore[method-assign]
    await clock.advance(IDLE_SECONDS_MAX + 1)
    await desks.sweep()
    assert (first.ended, second.ended) == (True, True)
    assert not desks._by_digest


async def test_a_desk_that_came_in_the_place_of_one_that_is_swept_stays() -> None:
    clock = FakeClock()
    desks = Desks(lambda bearer: Api(), partial(Keyring, clock), clock)  # type: ignore[arg-type, return-value]
    first, old = await desks.of("a"), await desks.of("b")
    close = first.close

    async def close_and_reopen() -> None:
        await close()
        await old.close()
        assert await desks.of("b") is not old

    first.close = close_and_reopen  # type: ignore[method-assign]
    await clock.advance(IDLE_SECONDS_MAX + 1)
    await desks.sweep()
    assert (await desks.of("b")).ended is False
    assert len(desks._by_digest) == 1
    await desks.close()


async def test_what_ends_the_sweeper_is_logged() -> None:
    async def fails() -> None:
        raise KeyError("x")

    with structlog.testing.capture_logs() as logs:
        sweeper = asyncio.create_task(fails())
        sweeper.add_done_callback(app._swept)
        await asyncio.wait([sweeper])
        await asyncio.sleep(0)
    assert [log["log_level"] for log in logs] == ["error"]
    assert isinstance(logs[0]["exc_info"], KeyError)


async def test_first_requests_side_by_side_share_a_desk_and_leak_no_client() -> None:
    clock, held, apis = FakeClock(), asyncio.Event(), []

    def opened(bearer: str) -> Any:
        apis.append(Api(Account(held)))
        return apis[-1]

    desks = Desks(opened, partial(Keyring, clock), clock)
    asked = [asyncio.create_task(desks.of("a")) for _ in range(3)]
    await asyncio.sleep(0)
    held.set()
    found = await asyncio.gather(*asked)
    assert found[0] is found[1] is found[2]
    assert sorted(api.closed for api in apis) == [0, 1, 1]
    await desks.close()
    assert [api.closed for api in apis] == [1, 1, 1]


async def test_a_desk_that_ended_is_never_handed_out_again() -> None:
    clock, held = FakeClock(), asyncio.Event()
    desks = Desks(lambda bearer: Api(Account(held)), partial(Keyring, clock), clock)  # type: ignore[arg-type, return-value]
    held.set()
    first = await desks.of("a")
    await first.close()
    held.clear()
    asked = asyncio.create_task(desks.of("a"))
    await asyncio.sleep(0)
    held.set()
    assert await asked is not first
    await desks.close()


async def test_a_mirror_that_dies_is_logged_and_begins_anew() -> None:
    clock, dies = FakeClock(), asyncio.Event()

    async def watched() -> None:
        await dies.wait()
        dies.clear()
        raise ValueError("a body that nobody foresaw")

    api = Api(watched=watched)
    here = made(api, clock)
    await here.see(FlavorFact)
    with structlog.testing.capture_logs() as logs:
        dies.set()
        await clock.advance(0)
        assert [fact.name for fact in here.all(FlavorFact)] == ["f1"], "what was known stays"
        await clock.advance(10)
    assert [(log["log_level"], log["kind"]) for log in logs] == [("error", "Flavor")]
    assert [fact.name for fact in here.all(FlavorFact)] == ["f2"]
    await here.close()
    assert api.closed == 1
