"""Limits and budgets at the gateways: exact within one and over several, in all scopes; given back; said to clients."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import replace

import openai
import orjson
import pytest

from bessemer.core.clock import FakeClock, SystemClock
from bessemer.core.money import HOLD_SECONDS
from bessemer.gateway import Admission, Lending
from bessemer.gateway.admission import MAX_TOKENS
from bessemer.gateway.errors import Refused
from bessemer.gateway.request import ROUTES, shortened
from bessemer.gateway.tables import Tables
from bessemer.gateway.tickets import Ticket
from bessemer.store import Store
from tests.gateway.bounded import ENDPOINT, FREE, Gateway, key, wanted
from tests.gateway.harness import PROJECT, api_key, rig
from tests.store.test_bounds import KEY, MEMBER, OWN, TENANT, furnish, restate, standing


async def test_where_nothing_is_bounded_nobody_waits_and_the_api_is_asked_once_a_minute(
    store: Store, clock: FakeClock
) -> None:
    await furnish(store)
    one, mine = Gateway(store, clock, "g"), key(bounds=b"")
    for _ in range(50):
        await one.serve(mine, wanted(), read=3, written=4)
    assert len(one.asked) == 1
    assert isinstance(one.admission.enter(mine, wanted(), endpoint=ENDPOINT), Ticket), "at once, without a task"
    assert [r.held_bounds for r in one.spool] == [None] * 50
    await clock.advance(61)
    one.away = True
    for _ in range(5):
        await one.serve(mine, wanted())
        await asyncio.sleep(0)
    one.away = False
    await one.settle()
    await one.admission.say(last=True)
    assert len(one.asked) == 1, "who holds nothing says nothing"


async def test_requests_of_a_minute_are_counted_exactly(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"limits": {"requestsPerMinute": 5}})
    one, other = Gateway(store, clock, "g"), Gateway(store, clock, "h")
    served, refusals = 0, list[Refused]()
    for n in range(12):
        try:
            await (one, other)[n % 2].serve(key(), wanted())
            served += 1
        except Refused as refused:
            refusals.append(refused)
    assert served == 5
    for refused in refusals:
        assert (refused.status, refused.words.type, refused.words.code) == (429, "requests", "rate_limit_exceeded")
        assert "key k: 0 of 5 requests per minute left" in refused.words.message
        assert 1 <= refused.retry_after_seconds <= 61
    await clock.advance(60)
    await one.serve(key(), wanted())


async def test_concurrency_is_exact_over_several_and_a_dead_ones_is_free_soon(store: Store, clock: FakeClock) -> None:
    await furnish(store, member={"limits": {"concurrent": 3}})
    one, other = Gateway(store, clock, "g"), Gateway(store, clock, "h")
    tickets = [
        await one.enter(key(), wanted()),
        await other.enter(key("l"), wanted()),
        await one.enter(key(), wanted()),
    ]
    for gateway in (one, other):
        with pytest.raises(Refused) as caught:
            await gateway.enter(key(), wanted())
        assert caught.value.retry_after_seconds == 2
        assert "member alice: 0 of 3 requests at a time left" in caught.value.words.message
    one.end(key(), tickets[0])
    await one.serve(key(), wanted())
    await clock.advance(91)
    for _ in range(2):
        await other.enter(key(), wanted())  # the one died with what it had
    with pytest.raises(Refused):
        await other.enter(key(), wanted())


async def test_every_scope_must_have_room_and_the_tightest_is_named(store: Store, clock: FakeClock) -> None:
    budget = {"budget": {"period": "Total", "tokens": 3_000}}
    await furnish(
        store, key={"budget": {"period": "Day", "micro": 1 << 40}}, member=budget, project=budget, tenant=budget
    )
    await restate(store, "Project", PROJECT, budget={"period": "Total", "tokens": 1_000})
    one = Gateway(store, clock, "g")
    await one.serve(key(), wanted(max_tokens=10), read=20, written=10)
    with pytest.raises(Refused) as caught:
        await one.enter(key(), wanted(2_000, max_tokens=10))
    assert (caught.value.words.code, caught.value.words.type) == ("insufficient_quota", "insufficient_quota")
    assert f"project {PROJECT}: 970 of 1000 tokens in all left" in caught.value.words.message
    assert caught.value.retry_after_seconds == 0, "it does not come back by itself"
    await one.settle()
    await one.admission.say(last=True)
    now = await standing(store)
    assert {place: (b.used, b.held) for place, b in now.items()} == {
        (KEY, "micro/day"): (50, 0),
        (MEMBER, "tokens/total"): (30, 0),
        (OWN, "tokens/total"): (30, 0),
        (TENANT, "tokens/total"): (30, 0),
    }


async def test_an_answer_is_made_as_long_as_there_is_room_for(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 1_000}})
    one, asked = Gateway(store, clock, "g"), wanted(20)
    ticket = await one.enter(key(), asked)
    room = 1_000 - 256 - len(asked.body)
    assert ticket.writes == room
    assert b"%b: %d\r\n" % (MAX_TOKENS, room) in ticket.lines
    assert orjson.loads(shortened(asked.body, room, route=ROUTES["/v1/completions"]))["max_tokens"] == room
    counts = one.end(key(), ticket, read=30, written=10_000)
    assert counts.output_tokens == room, "an engine that says more is not believed"
    await one.settle()
    assert (await standing(store))[KEY, "tokens/total"].used == 30 + room
    with pytest.raises(Refused):
        await one.enter(key(), asked)
    await one.admission.say(last=True)
    assert (await standing(store))[KEY, "tokens/total"].held == 0
    shorter = shortened(b'{"max_completion_tokens":9,"n":2}', 3, route=ROUTES["/v1/chat/completions"])
    assert orjson.loads(shorter) == {"max_completion_tokens": 3, "n": 2}


async def test_a_shorter_answer_has_room_beside_its_prompt(store: Store, clock: FakeClock) -> None:
    """vLLM refuses a request whose prompt and ``max_tokens`` are together more than its context."""
    await furnish(store, key={"budget": {"period": "Total", "micro": 6_000}})
    asked = wanted(200)
    ticket = await Gateway(store, clock, "g").enter(key(), asked)
    assert ticket.writes == ENDPOINT.context_tokens - 256 - len(asked.body), "there is money for more"


async def test_money_makes_it_shorter_too_and_each_of_several_answers(store: Store, clock: FakeClock) -> None:
    await furnish(store, member={"budget": {"period": "Month", "micro": 2_000}})
    one, asked = Gateway(store, clock, "g"), wanted(20, n=2, max_completion_tokens=500)
    ticket = await one.enter(key(), asked)
    assert ticket.writes is not None
    read = 2 * (256 + len(asked.body))
    assert read + 2 * ticket.writes * 3 + 2 <= 2_000 < read + 2 * (ticket.writes + 1) * 3 + 2
    one.end(key(), ticket, read=read, written=2 * ticket.writes)
    await one.settle()
    assert (await standing(store))[MEMBER, "micro/month"].left < 8


async def test_the_answer_says_what_is_left_as_openais_clients_know_it(store: Store, clock: FakeClock) -> None:
    limits = {"requestsPerMinute": 60, "tokensPerMinute": 100_000, "requestsPerDay": 50, "tokensPerDay": 1 << 30}
    await furnish(store, key={"limits": limits})
    one = Gateway(store, clock, "g")
    ticket = await one.enter(key(), wanted(max_tokens=100))
    said = dict(line.split(b": ") for line in ticket.lines.splitlines())
    assert said[b"x-ratelimit-limit-requests"] == b"50"
    assert said[b"x-ratelimit-remaining-requests"] == b"49"
    assert re.fullmatch(rb"\d+h\d+m\d+s", said[b"x-ratelimit-reset-requests"])
    assert said[b"x-ratelimit-limit-tokens"] == b"100000"
    assert int(said[b"x-ratelimit-remaining-tokens"]) == 100_000 - ticket.need.tokens


async def test_a_bound_that_comes_is_heard_with_the_key_and_one_above_within_a_minute(
    store: Store, clock: FakeClock
) -> None:
    await furnish(store)
    one, free = Gateway(store, clock, "g"), key(bounds=b"")
    await one.serve(free, wanted())
    await restate(store, "ApiKey", "k", limits={"requestsPerDay": 1})
    await one.serve(key(), wanted())
    with pytest.raises(Refused):
        await one.serve(key(), wanted())
    await restate(store, "ApiKey", "k", limits={"requestsPerDay": 2})
    await one.serve(replace(key(), bounds=b"other"), wanted())
    with pytest.raises(Refused):
        await one.serve(replace(key(), bounds=b"other"), wanted())
    await restate(store, "Project", PROJECT, limits={"concurrent": 0})
    await clock.advance(61)
    await one.serve(free, wanted())  # beside which it is heard
    await heard(one)
    with pytest.raises(Refused):
        await one.serve(free, wanted())


async def test_while_the_api_is_away_what_is_held_is_served_for_at_most_an_hour(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 1_000_000}})
    one = Gateway(store, clock, "g")
    await one.serve(key(), wanted(max_tokens=10), read=5, written=5)
    one.away = True
    await clock.advance(HOLD_SECONDS - 10)
    await one.serve(key(), wanted(max_tokens=10), read=5, written=5)
    await clock.advance(10)
    with pytest.raises(Refused) as caught:
        await one.serve(key(), wanted(max_tokens=10))
    assert (caught.value.status, caught.value.words.code) == (503, "limit_unknown")
    one.away = False
    await one.serve(key(), wanted(max_tokens=10), read=5, written=5)
    await one.settle()
    assert (await standing(store))[KEY, "tokens/total"].used == 30


async def test_what_is_not_used_is_given_back_and_a_dead_ones_by_its_heir(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 100_000}})
    one = Gateway(store, clock, "g")
    await one.serve(key(), wanted(max_tokens=10), read=5, written=5)
    assert (await standing(store))[KEY, "tokens/total"].held > 1_000
    await one.admission.say()
    await one.admission.say()
    assert (await standing(store))[KEY, "tokens/total"].held == 10, "what its spool has"
    await one.serve(key(), wanted(max_tokens=10), read=5, written=5)
    heir = Gateway(store, clock, "g", spool=one.spool)
    with pytest.raises(Refused) as caught:
        await heir.serve(key(), wanted(max_tokens=10))
    assert caught.value.status == 503, "its predecessor's spool comes first"
    assert (await standing(store))[KEY, "tokens/total"].held > 1_000
    await heir.settle()
    assert await heir.admission.lending.replaced(PROJECT)
    now = (await standing(store))[KEY, "tokens/total"]
    assert (now.used, now.held) == (20, 0)
    await heir.serve(key(), wanted(max_tokens=10))


async def test_what_stands_though_nobody_heard_so_is_given_back(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 100_000}})
    one = Gateway(store, clock, "g")
    await one.serve(key(), wanted(max_tokens=10), read=10, written=10)
    await one.settle()
    await one.admission.say(last=True)
    assert (await standing(store))[KEY, "tokens/total"].held == 0
    one.lost = True
    with pytest.raises(Refused):
        await one.enter(key(), wanted(max_tokens=10))
    one.lost = False
    assert (await standing(store))[KEY, "tokens/total"].held > 0
    await one.admission.say()
    assert (await standing(store))[KEY, "tokens/total"].held == 0, "and not in an hour"


@pytest.mark.parametrize("seed", range(3))
async def test_several_gateways_that_die_and_lose_answers_pass_no_bound(
    store: Store, clock: FakeClock, seed: int
) -> None:
    await furnish(
        store,
        key={"budget": {"period": "Month", "micro": 30_000}, "limits": {"concurrent": 6}},
        member={"limits": {"requestsPerMinute": 25}},
        tenant={"budget": {"period": "Total", "tokens": 15_000}},
    )
    dice, number = random.Random(seed), 4
    gateways = [Gateway(store, clock, f"g{n}") for n in range(number)]
    served = 0

    async def client() -> None:
        nonlocal served
        one = dice.choice(gateways)
        one.lost = dice.random() < 0.1
        try:
            await one.serve(
                key(), wanted(dice.randrange(200), max_tokens=dice.randrange(1, 400)), read=10_000, written=10_000
            )
            served += 1
        except Refused:
            pass
        one.lost = False
        if dice.random() < 0.4:
            await one.settle()

    async def look() -> None:
        now = await standing(store)
        assert all(b.used + b.held <= b.bound for b in now.values()), now

    for minute in range(4):
        served = 0
        for _ in range(12):
            await asyncio.gather(*(client() for _ in range(4)))
            await look()
            if dice.random() < 0.3:
                dead = gateways[at := dice.randrange(number)]
                gateways[at] = Gateway(store, clock, dead.name, spool=dead.spool)
                gateways[at].settled = 0
            if dice.random() < 0.3:
                await dice.choice(gateways).admission.say()
        assert served <= 25, f"minute {minute}"
        await clock.advance(60)
    for one in gateways:
        await one.settle()
        await one.admission.say(last=True)
    now, records = await standing(store), [record for one in gateways for record in one.spool]
    micro = sum(record.input_tokens + 3 * record.output_tokens for record in records)
    tokens = sum(record.input_tokens + record.output_tokens for record in records)
    assert now[KEY, "micro/month"].used == micro <= 30_000
    assert now[TENANT, "tokens/total"].used == tokens <= 15_000
    assert len(records) > 20


def test_a_key_is_taken_from_its_networks_alone() -> None:
    tables = Tables()
    tables.apply(api_key("k", "bsk_net", networks=["192.0.2.0/24", "2001:db8::/32"], owner="alice"))
    entry = tables.find_key("bsk_net")
    assert entry is not None
    assert entry.owner == "alice"
    for peer, taken in (
        ("192.0.2.7", True),
        ("192.0.3.7", False),
        ("::ffff:192.0.2.7", True),
        ("::ffff:192.0.3.7", False),
        ("2001:db8::1%eth0", True),
        ("2001:db9::1", False),
        ("", False),
        ("unix:/x", False),
    ):
        assert entry.reachable(peer) is taken, peer
    tables.apply(api_key("k", "bsk_net"))
    assert len(tables.keys) == 1
    assert all(one.reachable("") for one in tables.keys.values())


async def test_a_client_hears_of_limits_and_of_shorter_answers(store: Store) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 700}, "limits": {"requestsPerMinute": 2}})
    clock = SystemClock()
    api = Gateway(store, store._clock, "g")  # type: ignore[attr-defined]
    async with rig(admission=Admission(Lending(api.lend, clock=clock))) as to:
        to.tables.apply(api_key("k", "bsk_k", owner="alice", limits={"requestsPerMinute": 2}))
        to.tables.apply(api_key("far", "bsk_far", networks=["192.0.2.0/24"]))
        await to.replica("r0", of="words")
        said = [{"role": "user", "content": "What is a converter?"}]
        async with openai.AsyncOpenAI(base_url=to.url, api_key="bsk_k", max_retries=0) as ai:
            raw = await ai.chat.completions.with_raw_response.create(model="words", messages=said)  # type: ignore[arg-type]
            assert 1 <= int(raw.headers["x-bessemer-max-tokens"]) < 700
            assert raw.headers["x-ratelimit-limit-requests"] == "2"
            assert raw.headers["x-ratelimit-remaining-requests"] == "1"
            await ai.chat.completions.create(model="words", messages=said, max_tokens=5)  # type: ignore[arg-type]
            with pytest.raises(openai.RateLimitError) as refused:
                await ai.chat.completions.create(model="words", messages=said, max_tokens=5)  # type: ignore[arg-type]
            assert "key k: 0 of 2 requests per minute left" in str(refused.value)
            told = refused.value.response.headers
            assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("2", "0")
            assert int(told["x-ratelimit-reset-requests"].removesuffix("s")) <= int(told["retry-after"]) <= 61
            assert told["x-ratelimit-limit-tokens"] == "700"
        async with openai.AsyncOpenAI(base_url=to.url, api_key="bsk_far", max_retries=0) as ai:
            with pytest.raises(openai.AuthenticationError) as away:
                await ai.models.list()
            assert away.value.code == "ip_not_authorized"


async def heard(of: Gateway) -> None:
    """Whatever it asks beside its requests has been answered."""
    await asyncio.gather(*(known.again for known in of.admission.lending._known.values() if known.again is not None))


async def test_a_bound_that_went_and_came_again_is_held_once(store: Store, clock: FakeClock) -> None:
    """Somebody has asked for nothing since before it went: what others hold of it meanwhile stays held."""
    day = {"limits": {"tokensPerDay": 10_000}}
    await furnish(store, project=day)
    one, other, long_ago, now = Gateway(store, clock, "g"), Gateway(store, clock, "h"), key(bounds=b""), FREE
    for of in (long_ago, now):
        await one.serve(of, wanted())
    await restate(store, "Project", PROJECT, limits={})
    for _ in range(2):
        await clock.advance(61)
        await one.serve(now, wanted())
        await heard(one)
        await one.settle()
        await one.admission.say()
    await restate(store, "Project", PROJECT, **day)
    await clock.advance(61)
    await one.serve(now, wanted())
    await heard(one)
    tickets = [await one.enter(now, wanted(4000, max_tokens=1)) for _ in range(4)]
    held = (await standing(store))[OWN, "tokens/day"].held
    assert held >= sum(ticket.need.tokens for ticket in tickets)
    one.end(now, tickets.pop(), answered=False)
    await one.enter(long_ago, wanted(max_tokens=1))
    assert (await standing(store))[OWN, "tokens/day"].held >= held
    with pytest.raises(Refused):
        await other.enter(now, wanted(4000, max_tokens=1))
