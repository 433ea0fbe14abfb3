"""Tokens per minute: never passed, by however many gateways; what is not used is the next one's; nobody else waits."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import openai
import orjson
import pytest

from bessemer.core.clock import FakeClock, SystemClock
from bessemer.core.errors import QuotaExceeded, Unavailable
from bessemer.core.money import Wish
from bessemer.core.quota import Quota
from bessemer.gateway import Admission, Given, Shares, request
from bessemer.gateway.errors import Refused
from bessemer.gateway.purse import Need
from bessemer.gateway.request import Wanted
from bessemer.gateway.shares import TEMPLATE_TOKENS, Ask, most
from bessemer.store import Store
from tests.gateway.harness import PROJECT, rig

METER = "tokens_per_minute"


def of(tokens: int) -> Need:
    return Need(tokens, tokens)


def asks(store: Store, clock: FakeClock) -> Ask:
    """What the api does with a gateway's call."""

    async def ask(project: str, tokens: int, *, money: Wish) -> Given:
        now = clock.now()
        try:
            given = await store.capacity.hold(project, meter=METER, amount=tokens)
        except QuotaExceeded as error:
            return Given(0, 60 - now % 60, 0, error.message)
        return Given(given.amount, given.until - now, given.left)

    return ask


async def test_several_gateways_never_pass_the_minute_and_use_nearly_all_of_it(store: Store, clock: FakeClock) -> None:
    await store.capacity.set_quota("tenant/acme", Quota(tokens_per_minute=10_000))
    gateways = [Shares(asks(store, clock), clock=clock) for _ in range(4)]
    dice, used = random.Random(3), 0

    async def one(shares: Shares) -> None:
        nonlocal used
        most = dice.randrange(50, 400)
        try:
            held = await shares.hold(PROJECT, of(most))
        except Refused:
            return
        await asyncio.sleep(0)
        spent = dice.randrange(0, most + 1)
        used += spent
        shares.settle(held, spent)

    for minute in range(3):
        used = 0
        for _ in range(40):
            await asyncio.gather(*(one(dice.choice(gateways)) for _ in range(8)))
        assert used <= 10_000, f"minute {minute}"
        assert used > 8_000, "what is refused is little"
        (use,) = await store.capacity.use("tenant/acme")
        assert use.used <= 10_000
        await clock.advance(60)


async def test_a_refusal_says_whose_bound_and_until_when(store: Store, clock: FakeClock) -> None:
    await store.capacity.set_quota(f"project/{PROJECT}", Quota(tokens_per_minute=100))
    shares = Shares(asks(store, clock), clock=clock)
    held = await shares.hold(PROJECT, of(80))
    with pytest.raises(Refused) as caught:
        await shares.hold(PROJECT, of(30))
    assert (caught.value.status, caught.value.words.code) == (429, "rate_limit_exceeded")
    assert f"project {PROJECT}: 30 tokens per minute asked, 20 of 100 left" in caught.value.words.message
    assert 1 <= caught.value.retry_after_seconds <= 61
    shares.settle(held, 10)
    assert (await shares.hold(PROJECT, of(70))).amount == 70, "what was not used"
    await clock.advance(60)
    old = await shares.hold(PROJECT, of(100))
    await clock.advance(60)
    shares.settle(old, 0)
    again = await shares.hold(PROJECT, of(100))
    with pytest.raises(Refused):
        await shares.hold(PROJECT, of(1))  # what was held in the minute before is not this one's
    shares.settle(again, 0)


async def test_without_a_bound_the_api_is_asked_once_a_minute_and_nobody_waits(clock: FakeClock) -> None:
    calls: list[int] = []
    away = False

    async def ask(_project: str, tokens: int, *, money: Wish) -> Given:
        calls.append(tokens)
        if away:
            raise Unavailable("the api is away")
        return Given(tokens, 60.0, None)

    shares = Shares(ask, clock=clock)
    for _ in range(100):
        await shares.hold(PROJECT, of(5))
    assert calls == [5]
    await clock.advance(61)
    away = True
    for _ in range(10):
        await shares.hold(PROJECT, of(5))
        await asyncio.sleep(0)
    assert calls == [5, 0], "beside the requests, which go on though the api is away"
    with pytest.raises(Refused) as caught:
        await shares.hold("acme--new", of(5))
    assert caught.value.status == 503


async def test_who_had_no_bound_and_is_refused_hears_why_with_the_next_request(clock: FakeClock) -> None:
    full = False

    async def ask(_project: str, tokens: int, *, money: Wish) -> Given:
        return Given(0, 60.0, 0, "nothing is left") if full else Given(tokens, 60.0, None)

    shares = Shares(ask, clock=clock)
    await shares.hold(PROJECT, of(5))
    full = True
    await clock.advance(61)
    await shares.hold(PROJECT, of(5))
    await asyncio.sleep(0.01)
    with pytest.raises(Refused, match="nothing is left"):
        await shares.hold(PROJECT, of(5))


async def test_a_bounded_project_is_served_from_its_share_while_the_api_is_away(clock: FakeClock) -> None:
    away = False

    async def ask(_project: str, tokens: int, *, money: Wish) -> Given:
        if away:
            raise Unavailable("the api is away")
        return Given(tokens, 60.0, 800)

    shares = Shares(ask, clock=clock)
    await shares.hold(PROJECT, of(10))
    await shares.hold(PROJECT, of(10))  # and a part of what is left with it
    away = True
    await shares.hold(PROJECT, of(50))
    with pytest.raises(Refused) as caught:
        await shares.hold(PROJECT, of(100))
    assert (caught.value.status, caught.value.words.code) == (503, "limit_unknown")


async def test_what_is_left_of_a_minute_that_ends_while_one_asks_is_void(clock: FakeClock) -> None:
    """Else it would be used in the next, beside all that the next has."""
    asked: list[int] = []

    async def ask(_project: str, tokens: int, *, money: Wish) -> Given:
        asked.append(tokens)
        seconds = 3.0 if len(asked) == 1 else 60.0  # from the second on it is another minute's
        return Given(tokens, seconds, 0)

    shares = Shares(ask, clock=clock)
    shares.settle(await shares.hold(PROJECT, of(50)), 20)
    await shares.hold(PROJECT, of(50))
    assert asked == [50, 20, 30], "20 were missing, and then the 30 as well that were of the minute before"


async def test_a_client_is_told_by_openais_words_and_what_it_used_is_counted() -> None:
    asked: list[int] = []

    async def ask(_project: str, tokens: int, *, money: Wish) -> Given:
        asked.append(tokens)
        amount = tokens if sum(asked) <= 1000 else 0
        return Given(amount, 30.0, 0, "" if amount else "project acme--lab: no tokens left")

    async with rig(admission=Admission(Shares(ask, clock=SystemClock()))) as to:
        await to.replica("r0", of="words")
        async with openai.AsyncOpenAI(base_url=to.url, api_key="bsk_good", max_retries=0) as ai:
            said = [{"role": "user", "content": "What is a converter?"}]
            for _ in range(3):
                await ai.chat.completions.create(model="words", messages=said, max_tokens=5)  # type: ignore[arg-type]
            assert asked[0] > 10 * max(asked[1:]), "what an answer leaves is the next one's"
            with pytest.raises(openai.RateLimitError) as refused:
                await ai.chat.completions.create(model="words", messages=said)  # type: ignore[arg-type]
        assert refused.value.code == "rate_limit_exceeded"
        assert "project acme--lab: no tokens left" in str(refused.value)
        assert int(refused.value.response.headers["retry-after"]) == 31


COMPLETIONS, EMBEDDINGS = request.ROUTES["/v1/completions"], request.ROUTES["/v1/embeddings"]


def wanted(streams: bool = True, **body: object) -> Wanted:
    return request.read(orjson.dumps({"model": "m", **body}), COMPLETIONS if streams else EMBEDDINGS)


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (wanted(messages=[]), 2048),
        (wanted(messages=[], max_tokens=-1), 2048),
        (wanted(messages=[], max_tokens=True), 2048),
        (wanted(messages=[], max_tokens=8, n=3), 3 * (len(wanted(messages=[], max_tokens=8, n=3).body) + 8 + 256)),
        (wanted(messages=[], n=3.0), 3 * 2048),
        (wanted(messages=[], n=1024), 1024 * 2048),
        (wanted(prompt=["a", "b"]), 4096),
        (wanted(prompt=[1, 2, 3]), 2048),
        (wanted(messages=[], max_tokens=1, max_completion_tokens=9999), 2048),
        (wanted(streams=False, input=["a"] * 2), 2 * (len(wanted(input=["a"] * 2).body) + 256)),
        (wanted(prompt=["a"], input=["b"] * 9), 9 * 2048),
    ],
)
def test_the_most_that_a_request_may_amount_to(said: Wanted, tokens: int) -> None:
    assert TEMPLATE_TOKENS == 256
    need = most(said, 2048)
    assert need.tokens == tokens
    assert 0 <= need.writes <= tokens, "a part of them"


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"n": 600_000_000_000}, "n"),
        ({"n": 2**64 - 1}, "n"),
        ({"n": 1025}, "n"),
        ({"n_cmpl": 1025}, "n"),
        ({"best_of": 1024.5}, "n"),
        ({"prompt": ["a"] * 32, "n": 33}, "n"),
        ({"prompt": ["a"] * 1025}, "prompt"),
        ({"n": "5"}, "n"),
        ({"best_of": "5"}, "best_of"),
        ({"streams": False, "prompt": ["a"], "input": ["a"] * 2049}, "input"),
        ({"streams": False, "input": ["a"] * 2049}, "input"),
    ],
)
def test_more_answers_than_anybody_may_ask_for_are_refused(said: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as caught:
        wanted(**said)
    with pytest.raises(Refused):
        request.read(b'{"model": "m", "n": %d}' % (1 << 64), COMPLETIONS)
    assert (caught.value.status, caught.value.words.type) == (400, "invalid_request_error")
    assert caught.value.words.param == param
