"""Money at the gateways: never passed by however many, whatever an engine says; given back; kept by who starts anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.bounds import OF_QUOTA
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Malformed, NotFound, Unavailable
from bessemer.core.money import HOLD_SECONDS
from bessemer.core.quota import Quota, Use
from bessemer.gateway import Lending, Settler, Spool
from bessemer.gateway.errors import Refused
from bessemer.gateway.heirs import INHERIT_SECONDS, ROUND_SECONDS, inherit, keep_saying
from bessemer.gateway.lending import AT_ONCE
from bessemer.gateway.meter import Counts
from bessemer.gateway.need import Need
from bessemer.gateway.tickets import Ticket
from bessemer.gateway.vessels import Row, Vessel
from bessemer.store import Store
from tests.gateway import bounded
from tests.gateway.bounded import FREE
from tests.gateway.harness import PROJECT
from tests.store import test_money as kept
from tests.store.test_quota import opened

BOUND = 20_000


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[Store]:
    store = opened(":memory:", clock)
    await kept.furnish(store, bound=BOUND)
    yield store
    store.close()


class Gateway(bounded.Gateway):
    """One whose requests are of a given size, by a key that nothing else bounds."""

    @property
    def lending(self) -> Lending:
        return self.admission.lending

    async def ask(self, need: Need, *, read: int, written: int) -> None:
        """One request, from its hold to its record. Raises Refused."""
        ticket = self.lending.at_once(FREE, need) or await self.lending.hold(FREE, need)
        await asyncio.sleep(0)
        self.end(FREE, ticket, read=read, written=written)


async def money(store: Store) -> Use:
    return await kept.money(store)


async def test_64_clients_of_several_gateways_spend_it_to_the_last_and_never_pass_it(
    store: Store, clock: FakeClock
) -> None:
    gateways, dice, refused = [Gateway(store, clock, f"g{n}") for n in range(4)], random.Random(11), list[Refused]()

    async def client(n: int) -> None:
        one, writes = gateways[n % 4], dice.randrange(1, 40)
        need = Need(writes + dice.randrange(1, 60), writes)
        try:
            # An engine that says more than can be, now and then.
            await one.ask(need, read=dice.randrange(0, 200), written=dice.randrange(0, 80))
        except Refused as error:
            refused.append(error)

    for _ in range(12):
        dice.choice(gateways).lost = True  # what it is given it does not hear of
        await asyncio.gather(*(client(n) for n in range(64)))
        for one in gateways:
            if dice.random() < 0.7:
                await one.settle()
            one.lost = False
        use = await money(store)
        assert use.used + use.held <= BOUND
        await clock.advance(20)
    for one in gateways:
        await one.settle()
        await one.lending.say()
        await one.lending.say()
    use = await money(store)
    assert use.held == 0, "nothing is lost that was not spent"
    assert use.used == await kept.billed(store) <= BOUND
    assert use.used > BOUND - 200, "less is left than the largest request may cost"
    assert {error.status for error in refused} == {429, 503}
    for error in refused:
        assert error.status == 503 or "an administrator of the platform may raise the quota" in error.words.message


async def test_what_is_not_used_is_given_back_within_a_minute(store: Store, clock: FakeClock) -> None:
    one = Gateway(store, clock, "g")
    await one.ask(Need(100, 50), read=50, written=10)
    assert (await money(store)).held > 80, "more than what it spent: for those who come next"
    await one.lending.say()
    assert (await money(store)).held > 80, "it was used since"
    await one.lending.say()
    assert (await money(store)).held == 80, "what its spool has is held until that is settled"
    await one.settle()
    use = await money(store)
    assert (use.used, use.held) == (80, 0)
    said = len(one.asked)
    await one.lending.say()
    await one.lending.say()
    assert len(one.asked) == said + 1, "who holds nothing says so once"


async def test_one_that_ends_gives_back_the_most_first_and_is_held_up_by_no_call_that_hangs(clock: FakeClock) -> None:
    said, ends, under_way, most = list[tuple[str, int]](), False, 0, 0

    async def ask(project: str, *, bounds: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal under_way, most
        if ends:
            under_way += 1
            most = max(most, under_way)
            await (asyncio.Event().wait() if project == "acme--p7" else asyncio.sleep(0))
            said.append((project, bounds["wants"][0]["amount"]))
            under_way -= 1
        bound = {"scope": f"project/{project}", "meter": "spend_micro", "left": 0, "seconds": None}
        return bounded.answers(bound, number=(bounds["after"] or 0) + 1)

    lending = Lending(ask, clock=clock, holder="g")
    for number in range(300):
        (await lending.hold(replace(FREE, project=f"acme--p{number}"), Need(10 + number, 0))).leave(0)
    ends = True
    saying = asyncio.create_task(lending.say(last=True))
    async with asyncio.timeout(30):
        while len(said) < 299:
            await asyncio.sleep(0)
    saying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saying
    assert sorted(said) == sorted((f"acme--p{number}", 0) for number in range(300) if number != 7)
    assert {project for project, _ in said[:AT_ONCE]} == {f"acme--p{number}" for number in range(268, 300)}
    assert 8 < most <= AT_ONCE


async def test_while_the_api_is_away_what_is_held_is_spent_for_an_hour(store: Store, clock: FakeClock) -> None:
    one = Gateway(store, clock, "g")
    await one.ask(Need(100, 50), read=50, written=10)
    one.away = True
    for _ in range(5):
        await one.ask(Need(100, 50), read=50, written=10)
    with pytest.raises(Refused) as caught:
        await one.ask(Need(9_000, 50), read=1, written=1)
    assert caught.value.status == 503
    await clock.advance(HOLD_SECONDS - 10)
    await one.ask(Need(100, 50), read=50, written=10)
    await clock.advance(10)
    with pytest.raises(Refused):
        await one.ask(Need(100, 50), read=50, written=10)
    one.away = False
    await one.settle()
    await one.lending.say(last=True)
    use = await money(store)
    assert (use.used, use.held) == (560, 0)


async def test_one_that_starts_anew_settles_its_spool_before_it_holds(store: Store, clock: FakeClock) -> None:
    dead = Gateway(store, clock, "g")
    await dead.ask(Need(1_000, 1_000), read=0, written=1_000)
    before = await money(store)
    heir = Gateway(store, clock, "g", spool=dead.spool)
    with pytest.raises(Refused) as caught:
        await heir.ask(Need(10, 0), read=10, written=0)
    assert caught.value.status == 503
    await heir.lending.say()
    assert await money(store) == before, "what is in the spool is held by what its predecessor said"
    await heir.settle()
    await heir.ask(Need(10, 0), read=10, written=0)
    await heir.settle()
    await heir.lending.say(last=True)
    use = await money(store)
    assert (use.used, use.held) == (3_010, 0)


async def test_one_that_starts_anew_gives_back_what_its_predecessor_held_where_it_never_serves(
    store: Store, clock: FakeClock
) -> None:
    """What a killed one held is its heir's within seconds, and not an hour later; once its spool is settled."""
    dead = Gateway(store, clock, "g")
    await dead.ask(Need(1_000, 1_000), read=0, written=1_000)
    assert (await money(store)).held > 0
    assert await store.capacity.held_by("other") == []
    heir, other = Gateway(store, clock, "g", spool=dead.spool), Gateway(store, clock, "other")
    running = [
        asyncio.create_task(keep_saying(one.lending, partial(store.capacity.held_by, one.name), clock=clock))
        for one in (heir, other)
    ]
    try:
        await clock.advance(3 * INHERIT_SECONDS)
        assert (await money(store)).held > 0, "its spool may bring it yet"
        assert await store.capacity.held_by("g") == [PROJECT]
        await heir.settle()
        await clock.advance(2 * INHERIT_SECONDS)
        async with asyncio.timeout(30):
            while (await money(store)).held:
                await asyncio.sleep(0.01)
        use = await money(store)
        assert (use.used, use.held) == (3_000, 0)
        assert await store.capacity.held_by("g") == []
        assert len(other.asked) == 0
    finally:
        for task in running:
            task.cancel()


async def test_an_heir_asks_until_the_api_is_there_and_lives_with_an_older_one(store: Store, clock: FakeClock) -> None:
    dead = Gateway(store, clock, "g")
    await dead.ask(Need(1_000, 1_000), read=0, written=1_000)
    held = (await money(store)).held
    answers: list[Any] = [Unavailable("away"), NotFound("nothing of that name"), [PROJECT]]
    heir = Gateway(store, clock, "g")

    async def left() -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    task = asyncio.create_task(inherit(heir.lending, left, clock=clock))
    await clock.advance(INHERIT_SECONDS)
    await asyncio.wait_for(task, 30)
    assert ((await money(store)).held, heir.asked, len(answers)) == (held, [], 1)
    heir.away = True
    task = asyncio.create_task(inherit(heir.lending, left, clock=clock))
    await clock.advance(INHERIT_SECONDS)
    heir.away = False
    await clock.advance(INHERIT_SECONDS)
    await asyncio.wait_for(task, 30)
    assert (await money(store)).held == 0


async def test_an_api_that_knows_no_such_method_ends_the_question(store: Store, clock: FakeClock) -> None:
    heir, asked = Gateway(store, clock, "g"), list[int]()

    async def left() -> list[str]:
        asked.append(1)
        raise Malformed("the server does not allow this method on the requested resource")

    await asyncio.wait_for(inherit(heir.lending, left, clock=clock), 30)
    assert asked == [1]


async def test_what_is_not_used_is_given_back_while_nobody_says_what_a_predecessor_left(
    store: Store, clock: FakeClock
) -> None:
    one = Gateway(store, clock, "g")

    async def left() -> list[str]:
        raise Unavailable("away")

    running = asyncio.create_task(keep_saying(one.lending, left, clock=clock))
    try:
        await one.ask(Need(100, 50), read=50, written=10)
        await one.settle()
        assert (await money(store)).held > 0
        async with asyncio.timeout(30):
            while (await money(store)).held:  # a round may pass while the one before is still said, by a thread
                await clock.advance(ROUND_SECONDS)
        assert clock.monotonic() < HOLD_SECONDS / 2, "it was given back, and did not end by itself"
    finally:
        running.cancel()


async def test_one_that_starts_anew_serves_once_its_spool_is_settled_though_most_of_it_was(
    store: Store, clock: FakeClock, tmp_path: Path
) -> None:
    """What is settled is not written down: the api answers the first batch with the last record of all."""
    dead, usage = Spool(tmp_path), [kept.record(number, read=1) for number in range(1, 1302)]
    for record in usage[:-1]:
        dead.append(record)
    before = Settler(dead, store.ledger.settle, clock=clock, gateway_uid="g")
    while await before.once():
        pass
    dead.append(usage[-1])
    dead.close()
    spool = Spool(tmp_path)
    heir = Gateway(store, clock, "g", before=spool.waiting)
    assert spool.waiting == 1301
    settler = Settler(spool, store.ledger.settle, clock=clock, gateway_uid="g", settled=heir.lending.settled)
    assert await settler.once()
    with pytest.raises(Refused):
        await heir.ask(Need(10, 0), read=10, written=0)
    assert await settler.once()
    await heir.ask(Need(10, 0), read=10, written=0)
    assert not await settler.once()
    spool.close()


async def test_one_that_is_cut_off_for_long_is_counted_once_when_it_comes_back(store: Store, clock: FakeClock) -> None:
    one = Gateway(store, clock, "g")
    await one.ask(Need(1_000, 1_000), read=0, written=1_000)
    await clock.advance(HOLD_SECONDS)
    assert (await money(store)).held == 3_002
    await one.ask(Need(10, 0), read=10, written=0)
    await one.settle()
    await one.lending.say(last=True)
    use = await money(store)
    assert (use.used, use.held) == (3_010, 0)


async def test_a_bound_that_comes_goes_and_is_lowered(store: Store, clock: FakeClock) -> None:
    await store.capacity.set_quota("tenant/acme", Quota())
    one = Gateway(store, clock, "g")
    await one.ask(Need(100, 50), read=50, written=10)
    assert one.spool[-1].held_micro is None
    await store.capacity.set_quota("tenant/acme", Quota(spend_micro=BOUND))
    await clock.advance(61)
    await one.ask(Need(100, 50), read=50, written=10)  # it hears of it beside this one
    (again,) = (known.again for known in one.lending._known.values())
    assert again is not None
    await again
    await one.ask(Need(100, 50), read=50, written=10)
    assert one.spool[-1].held_micro == 202
    await store.capacity.set_quota("tenant/acme", Quota(spend_micro=100))
    await clock.advance(61)
    await one.ask(Need(100, 50), read=50, written=10)  # as before
    (again,) = (known.again for known in one.lending._known.values())
    assert again is not None
    await again
    with pytest.raises(Refused):
        await one.ask(Need(100, 50), read=50, written=10)
    await one.lending.say()
    await one.lending.say()
    assert (await money(store)).held == 160
    await store.capacity.set_quota("tenant/acme", Quota())
    await one.ask(Need(100, 50), read=50, written=10)
    assert one.spool[-1].held_micro is None


def test_an_answer_is_billed_for_no_more_than_was_held_for_it() -> None:
    free = Counts(10**9, 5, 10**9)
    assert Ticket(Need(0, 0)).billed(free) is free
    ticket = Ticket(Need(100, 30), Row([Vessel(f"project/{PROJECT}", OF_QUOTA["spend_micro"])]))
    assert ticket.billed(free) == Counts(70, 5, 30)
    assert ticket.billed(Counts(90, 80, 20)) == Counts(80, 80, 20)
    assert ticket.billed(Counts(60, 0, 20)) == Counts(60, 0, 20)


async def test_what_nobody_may_hold_is_not_even_asked_for(store: Store, clock: FakeClock) -> None:
    one = Gateway(store, clock, "g")
    await one.ask(Need(100, 50), read=50, written=10)
    said = len(one.asked)
    with pytest.raises(Refused) as caught:
        await one.ask(Need(1 << 52, 1 << 52), read=1, written=1)  # each of them costs three
    assert (caught.value.status, caught.value.words.type) == (400, "invalid_request_error")
    assert len(one.asked) == said
    await one.ask(Need(100, 50), read=50, written=10)
    assert one.spool[-1].held_micro == 202, "it is bounded as before"


@pytest.mark.parametrize("output", [0, 3, 5_000_001, 7])
def test_the_most_is_never_less_than_what_is_billed(output: int) -> None:
    dice = random.Random(output)
    for _ in range(500):
        prices = kept.Prices(input=dice.randrange(0, 4_000_000), cached=dice.randrange(0, 4_000_000), output=output)
        writes = dice.randrange(0, 50)
        tokens = writes + dice.randrange(1, 50)
        written = dice.randrange(0, writes + 1)
        read = dice.randrange(0, tokens - written + 1)
        cost = prices.tokens(read=read, cached=dice.randrange(0, read + 1), written=written)
        assert cost <= prices.most(tokens, writes=writes)
