"""What an api that hangs costs, who leaves while it is asked, whose answers are lost, and who is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.quota import Quota
from bessemer.gateway.errors import Refused
from bessemer.gateway.lasting import FORGET_SECONDS, Lasting
from bessemer.store import Store
from tests.gateway.bounded import Gateway, key, wanted
from tests.gateway.harness import PROJECT
from tests.store import test_money as kept
from tests.store.test_bounds import KEY, furnish, standing


async def test_behind_an_api_that_hangs_each_waits_for_itself(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bessemer.gateway.admission.ASK_SECONDS", 0.05)
    await furnish(store, key={"limits": {"requestsPerMinute": 1000}})
    one = Gateway(store, clock, "g")
    one.answers.clear()
    async with asyncio.timeout(5):
        told = await asyncio.gather(*(one.enter(key(), wanted()) for _ in range(200)), return_exceptions=True)
    assert {getattr(said, "words", said).code for said in told} == {"limit_unknown"}
    one.answers.set()
    await one.serve(key(), wanted(max_tokens=5))


async def test_what_was_given_is_the_next_ones_where_who_asked_has_left(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"limits": {"requestsPerMinute": 1}})
    await store.capacity.set_quota(f"project/{PROJECT}", Quota(tokens_per_minute=2048))
    one = Gateway(store, clock, "g")
    for _ in range(2):  # of which bounds there are, of those
        one.answers.clear()
        asks = asyncio.ensure_future(one.enter(key(), wanted(max_tokens=5)))
        await asyncio.sleep(0.05)
        assert not asks.done()
        asks.cancel()
        await asyncio.gather(asks, return_exceptions=True)
        one.answers.set()
        await asyncio.sleep(0.05)
    assert len(one.asked) == 2
    await one.serve(key(), wanted(max_tokens=5), read=1, written=1)
    with pytest.raises(Refused) as refused:
        await one.enter(key(), wanted(max_tokens=5))
    assert refused.value.words.code == "rate_limit_exceeded"


async def test_a_call_that_was_left_is_waited_for_and_its_error_is_nobodys() -> None:
    calls, go, order = Lasting(), asyncio.Event(), []

    async def call(name: str) -> str:
        order.append(f"{name} begins")
        await go.wait()
        order.append(f"{name} ends")
        if name == "left":
            raise ValueError(name)
        return name

    left = asyncio.ensure_future(calls.make(lambda: call("left")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left.cancel()
    after = asyncio.ensure_future(calls.make(lambda: call("next")))
    await asyncio.sleep(0.01)
    assert order == ["left begins"]
    go.set()
    assert await after == "next"
    assert order == ["left begins", "left ends", "next begins", "next ends"]


async def test_money_whose_answer_is_lost_is_given_back(store: Store, clock: FakeClock) -> None:
    await kept.furnish(store, bound=1 << 40)
    one = Gateway(store, clock, "g")
    await one.serve(key(), wanted(max_tokens=5))
    await one.settle()
    await one.admission.say(last=True)
    held = (await kept.money(store)).held
    one.lost = True
    with pytest.raises(Refused):
        await one.enter(key(), wanted(max_tokens=5))
    assert (await kept.money(store)).held > held, "it stands"
    one.lost = False
    for _ in range(2):
        await one.admission.say()
    assert (await kept.money(store)).held == held


async def test_who_asks_no_more_is_forgotten(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 100_000}})
    one = Gateway(store, clock, "g")
    await one.serve(key(), wanted(max_tokens=5), read=10, written=2)
    await one.settle()
    lending = one.admission.lending
    for _ in range(3):
        await one.admission.say()
    assert lending._known
    await clock.advance(FORGET_SECONDS + 120.0)
    under_way = await one.enter(key(), wanted(max_tokens=5))
    await one.admission.say()
    assert len(lending._accounts) == 1, "it asks yet"
    one.end(key(), under_way, answered=False)
    await clock.advance(FORGET_SECONDS + 120.0)
    for _ in range(2):
        await one.admission.say()
    assert (lending._accounts, lending._known) == ({}, {})
    assert (await standing(store))[KEY, "tokens/total"].held == 0
    await one.serve(key(), wanted(max_tokens=5), read=10, written=2)
    await one.settle()
    await one.admission.say(last=True)
    bound = (await standing(store))[KEY, "tokens/total"]
    assert (bound.used, bound.held) == (24, 0)
