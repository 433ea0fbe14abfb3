"""Tokens per minute: never passed, by however many gateways; what is not used is the next one's; nobody else waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any

import openai
import orjson
import pytest

from bessemer.core.clock import FakeClock, SystemClock
from bessemer.core.errors import Unavailable
from bessemer.core.quota import Quota
from bessemer.gateway import Admission, Lending, request
from bessemer.gateway.errors import Refused
from bessemer.gateway.need import TEMPLATE_TOKENS, Need, most
from bessemer.gateway.request import Wanted
from bessemer.store import Store, open_store
from tests.gateway.bounded import FREE, Gateway, answers, minute
from tests.gateway.harness import PROJECT, rig
from tests.store.conftest import KEY, KINDS
from tests.store.test_bounds import furnish


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[Store]:
    opened = open_store(":memory:", clock=clock, kinds=KINDS, seal_key=KEY)
    await furnish(opened)
    yield opened
    opened.close()


def of(tokens: int) -> Need:
    return Need(tokens, tokens)


async def test_several_gateways_never_pass_the_minute_and_use_nearly_all_of_it(store: Store, clock: FakeClock) -> None:
    await store.capacity.set_quota("tenant/acme", Quota(tokens_per_minute=10_000))
    gateways = [Gateway(store, clock, f"g{n}").admission.lending for n in range(4)]
    dice, used = random.Random(3), 0

    async def one(lending: Lending) -> None:
        nonlocal used
        most = dice.randrange(50, 400)
        try:
            ticket = await lending.hold(FREE, of(most))
        except Refused:
            return
        await asyncio.sleep(0)
        spent = dice.randrange(0, most + 1)
        used += spent
        ticket.leave(spent)

    for round in range(3):
        used = 0
        for _ in range(40):
            await asyncio.gather(*(one(dice.choice(gateways)) for _ in range(8)))
        assert used <= 10_000, f"minute {round}"
        assert used > 8_000, "what is refused is little"
        (use,) = (use for use in await store.capacity.use("tenant/acme") if use.limit is not None)
        assert use.used <= 10_000
        await clock.advance(60)


async def test_a_refusal_says_whose_bound_and_until_when(store: Store, clock: FakeClock) -> None:
    await store.capacity.set_quota(f"project/{PROJECT}", Quota(tokens_per_minute=100))
    await store.capacity.set_quota("tenant/acme", Quota(tokens_per_minute=1000))
    lending = Gateway(store, clock, "g").admission.lending
    ticket = await lending.hold(FREE, of(80))
    assert b"x-ratelimit-limit-tokens: 100\r\nx-ratelimit-remaining-tokens: 20\r\n" in ticket.lines
    with pytest.raises(Refused) as caught:
        await lending.hold(FREE, of(30))
    assert (caught.value.status, caught.value.words.code) == (429, "rate_limit_exceeded")
    said = f"project {PROJECT}: 20 of 100 tokens per minute left (an administrator of the tenant may raise the quota)"
    assert said in caught.value.words.message
    assert 1 <= caught.value.retry_after_seconds <= 61
    assert b"x-ratelimit-limit-tokens: 100\r\nx-ratelimit-remaining-tokens: 20\r\n" in caught.value.lines
    ticket.leave(10)
    (await lending.hold(FREE, of(70))).leave(70)  # what was not used
    await clock.advance(60)
    old = await lending.hold(FREE, of(100))
    await clock.advance(60)
    old.leave(0)
    again = await lending.hold(FREE, of(100))
    with pytest.raises(Refused):
        await lending.hold(FREE, of(1))  # what was held in the minute before is not this one's
    again.leave(0)


async def test_the_tenants_is_named_where_less_of_it_is_left(store: Store, clock: FakeClock) -> None:
    await store.capacity.set_quota(f"project/{PROJECT}", Quota(tokens_per_minute=100))
    await store.capacity.set_quota("tenant/acme", Quota(tokens_per_minute=50))
    lending = Gateway(store, clock, "g").admission.lending
    with pytest.raises(Refused, match="tenant acme: 50 of 50 tokens per minute left"):
        await lending.hold(FREE, of(60))
    await lending.hold(FREE, of(50))


async def test_without_a_bound_the_api_is_asked_once_a_minute_and_nobody_waits(clock: FakeClock) -> None:
    calls, away = list[int](), False

    async def ask(_project: str, *, bounds: Mapping[str, Any]) -> dict[str, Any]:
        calls.append(len(bounds["wants"]))
        if away:
            raise Unavailable("the api is away")
        return answers()

    lending = Lending(ask, clock=clock)
    for _ in range(100):
        await lending.hold(FREE, of(5))
    assert calls == [1], "that nothing is held of money is said once"
    await clock.advance(61)
    away = True
    for _ in range(10):
        assert lending.at_once(FREE, of(5)) is not None
        await asyncio.sleep(0)
    assert calls == [1, 0], "beside the requests, which go on though the api is away"
    with pytest.raises(Refused) as caught:
        await Lending(ask, clock=clock).hold(FREE, of(5))
    assert caught.value.status == 503


async def test_who_had_no_bound_and_is_refused_hears_why_with_the_next_request(clock: FakeClock) -> None:
    full = False

    async def ask(_project: str, *, bounds: Mapping[str, Any]) -> dict[str, Any]:
        return answers({**minute(0), "hint": "ask somebody"}, words="nothing is left") if full else answers()

    lending = Lending(ask, clock=clock)
    await lending.hold(FREE, of(5))
    full = True
    await clock.advance(61)
    assert lending.at_once(FREE, of(5)) is not None
    await asyncio.sleep(0.01)
    with pytest.raises(Refused, match=r"0 of 1073741824 tokens per minute left .ask somebody."):
        await lending.hold(FREE, of(5))


async def test_a_bounded_project_is_served_from_its_share_while_the_api_is_away(clock: FakeClock) -> None:
    away = False

    async def ask(_project: str, *, bounds: Mapping[str, Any]) -> dict[str, Any]:
        if away:
            raise Unavailable("the api is away")
        return answers(minute(800))

    lending = Lending(ask, clock=clock)
    await lending.hold(FREE, of(10))  # and a part of what is left with it
    away = True
    await lending.hold(FREE, of(50))
    with pytest.raises(Refused) as caught:
        await lending.hold(FREE, of(100))
    assert (caught.value.status, caught.value.words.code) == (503, "limit_unknown")
    await clock.advance(60)
    with pytest.raises(Refused):
        await lending.hold(FREE, of(1))


async def test_what_is_left_of_a_minute_that_ends_while_one_asks_is_void(clock: FakeClock) -> None:
    """Else it would be used in the next, beside all that the next has."""
    asked: list[int] = []

    async def ask(_project: str, *, bounds: Mapping[str, Any]) -> dict[str, Any]:
        asked.extend(one["amount"] for one in bounds["wants"] if one["meter"] == "tokens_per_minute")
        seconds = 3.0 if len(asked) <= 1 else 60.0  # from the second on it is another minute's
        return answers(minute(0, seconds=seconds))

    lending = Lending(ask, clock=clock)
    (await lending.hold(FREE, of(50))).leave(20)
    await lending.hold(FREE, of(50))
    assert asked == [50, 20, 30], "20 were missing, and then the 30 as well that were of the minute before"


async def test_a_client_is_told_by_openais_words_and_what_it_used_is_counted() -> None:
    asked: list[int] = []

    async def ask(_project: str, *, bounds: Mapping[str, Any]) -> dict[str, Any]:
        wants = [one["amount"] for one in bounds["wants"] if one["amount"]]
        full = sum([*asked, *wants]) > 1000
        asked.extend(wants)
        bound = {**minute(0, seconds=30.0), "hint": "no tokens left"}
        return answers(bound, number=len(asked), words="no tokens left" if full else "")

    async with rig(admission=Admission(Lending(ask, clock=SystemClock()))) as to:
        await to.replica("r0", of="words")
        async with openai.AsyncOpenAI(base_url=to.url, api_key="bsk_good", max_retries=0) as ai:
            said = [{"role": "user", "content": "What is a converter?"}]
            for _ in range(3):
                await ai.chat.completions.create(model="words", messages=said, max_tokens=5)  # type: ignore[arg-type]
            assert asked[0] > 10 * max(asked[1:]), "what an answer leaves is the next one's"
            with pytest.raises(openai.RateLimitError) as refused:
                await ai.chat.completions.create(model="words", messages=said, n=8)  # type: ignore[call-overload]
        assert refused.value.code == "rate_limit_exceeded"
        assert "no tokens left" in str(refused.value)
        headers = refused.value.response.headers
        assert int(headers["retry-after"]) in (30, 31)
        assert headers["x-ratelimit-limit-tokens"] == str(1 << 30)


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
