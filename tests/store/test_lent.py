"""A quota's tokens and money, held beside other bounds by one statement: exact, and the same to who speaks of them
by the older call."""

from __future__ import annotations

import asyncio
import random

import pytest

from bessemer.core.bounds import OF_QUOTA, Answer, Ask, Bound, Want
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Invalid, QuotaExceeded
from bessemer.core.money import Wish
from bessemer.core.quota import METERS, Quota
from bessemer.core.values import UsageBatch
from bessemer.store import Store
from tests.store import test_money as older
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, body
from tests.store.test_bounds import KEY, furnish, restate, standing
from tests.store.test_money import record
from tests.store.test_quota import processes

__all__ = ["processes"]

TOKENS, MONEY = OF_QUOTA
OWN = f"project/{PROJECT}"


class Holder:
    """One gateway that speaks of all bounds at once: the money that it holds, its spool, the number of its last
    word."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.level = self.number = self.sequence = 0

    async def want(
        self, *, tokens: int | None = None, micro: int | None = None, key: int | None = None, anew: bool = False
    ) -> Answer:
        """So much more of the minute; so much money, and so many tokens of the key's, in all."""
        said = ((OWN, TOKENS, tokens), (OWN, MONEY, micro), (KEY, "tokens/total", key))
        wants = [Want(scope=scope, meter=meter, amount=n) for scope, meter, n in said if n is not None]
        for _ in range(2):
            ask = Ask(holder=self.name, after=self.number, key="k", owner="alice", anew=anew, wants=wants)
            answer = await self.store.bounds.hold(PROJECT, ask)
            self.number = answer.number
            if answer.stands:
                self.level = micro if micro is not None else self.level
            if answer.stands or answer.lacks:
                return answer
        raise AssertionError("nobody else speaks for it")

    async def spend(self, cost: int) -> None:
        """Settle a record that costs so much, all of which was held."""
        self.sequence += 1
        records = [record(self.sequence, read=cost, held=cost)]
        spool = f"spool-{self.name}"
        await self.store.ledger.settle(
            UsageBatch(gateway_uid=self.name, spool_uid=spool, first_sequence=self.sequence, records=records)
        )
        self.level -= cost


def of(answer: Answer, meter: str) -> Bound:
    (found,) = (one for one in answer.bounds if one.meter == meter)
    return found


def test_they_are_called_as_the_quota_calls_them() -> None:
    known = {meter.name: meter for meter in METERS}
    assert (known[TOKENS].window_seconds, known[MONEY].told) == (60, True)
    assert [OF_QUOTA[name].way for name in (TOKENS, MONEY)] == ["given", "spent"]


async def test_all_is_held_or_nothing_and_the_tighter_bound_is_told(store: Store, place: str) -> None:
    await furnish(
        store,
        key={"budget": {"period": "Total", "tokens": 100}},
        project={"quota": {"tokensPerMinute": 50, "spendMicro": 400}},
        tenant={"quota": {"tokensPerMinute": 500, "spendMicro": 300}},
    )
    one = Holder(store, "one")
    told = await one.want()
    minute, money = of(told, TOKENS), of(told, MONEY)
    assert (minute.scope, minute.whose, minute.bound, minute.left) == (OWN, OWN, 50, 50)
    assert (money.scope, money.whose, money.bound, money.left) == (OWN, "tenant/acme", 300, 300)
    assert (minute.hint, money.hint) == (
        "an administrator of the tenant may raise the quota",
        "an administrator of the platform may raise the quota",
    )
    assert told.prices.output == 3_000_000
    given = await one.want(tokens=30, micro=200, key=80)
    assert (given.stands, of(given, TOKENS).left, of(given, MONEY).left) == (True, 20, 100)
    other = Holder(store, "other")
    for more in ({"tokens": 21, "micro": 10, "key": 10}, {"tokens": 1, "micro": 101}, {"tokens": 1, "key": 21}):
        refused = await other.want(**more)
        assert (refused.stands, of(refused, TOKENS).left, of(refused, MONEY).left) == (False, 20, 100)
        assert refused.lacks
    assert (await standing(store))[KEY, "tokens/total"].held == 80, "nothing of what was wanted with it"
    assert await store.bounds.held_by("other") == await store.capacity.held_by("other") == []
    await one.spend(120)
    money = of(await one.want(), MONEY)
    assert (money.used, money.held, money.left) == (120, 80, 100)
    check(place)


async def test_one_that_is_lowered_or_not_yet_counted_gives_nothing(store: Store) -> None:
    await furnish(store, tenant={"quota": {"spendMicro": 300}})
    one = Holder(store, "one")
    await one.want(micro=200)
    await one.spend(50)
    await restate(store, "Tenant", "acme", quota={"spendMicro": 120})
    money = of(await one.want(), MONEY)
    assert (money.left, money.over) == (0, 80)
    assert (await one.want(micro=151)).lacks
    assert of(await one.want(micro=40), MONEY).left == 30
    await restate(store, "Tenant", "acme", quota={})
    assert all(bound.meter != MONEY for bound in (await one.want(micro=40)).bounds)
    await restate(store, "Tenant", "acme", quota={"spendMicro": 1000})
    money = of(await one.want(), MONEY)
    assert (money.left, money.hint) == (0, "what this month has cost is being counted: try again in a moment")
    assert "is being counted" in (await one.want(micro=1)).lacks


async def test_who_begins_anew_holds_nothing_by_any_word(store: Store) -> None:
    """What its predecessor held by the older call included; and that one's late word moves nothing."""
    await furnish(store, tenant={"quota": {"spendMicro": 1000}})
    before = older.Holder(store, "g")
    await before.state(600)
    heir = Holder(store, "g")
    assert (await heir.want(micro=0, anew=True)).stands
    assert (of(await heir.want(), MONEY).held, await store.capacity.held_by("g")) == (0, [])
    late = Wish(holder="g", micro=600, after=before.number)
    share = await store.capacity.hold(PROJECT, meter=TOKENS, amount=0, money=late)
    assert share.money is not None
    assert not share.money.stands
    await heir.want(micro=300)
    assert (await heir.want(micro=10, anew=True)).stands
    assert of(await heir.want(), MONEY).held == 10
    (lost,) = await store.spools.standing()
    assert [(part.meter, part.amount) for part in lost.parts] == [(MONEY, 10)]


async def test_what_nobody_may_speak_of_is_refused(store: Store) -> None:
    await furnish(store, tenant={"quota": {"spendMicro": 1000}})
    for scope, meter, amount in (("tenant/acme", MONEY, 1), ("project/other--lab", TOKENS, 1), (OWN, TOKENS, -1)):
        ask = Ask(holder="g", after=0, wants=[Want(scope=scope, meter=meter, amount=amount)])
        with pytest.raises(Invalid):
            await store.bounds.hold(PROJECT, ask)


async def test_a_minute_ends_by_the_stores_clock(store: Store, clock: FakeClock) -> None:
    await furnish(store, tenant={"quota": {"tokensPerMinute": 100}})
    one = Holder(store, "one")
    assert (await one.want(tokens=100)).stands
    assert (await one.want(tokens=1)).lacks.startswith("tenant acme: 1 tokens per minute asked, 0 of 100 left")
    await store.capacity.set_quota("tenant/acme", Quota(tokens_per_minute=60))
    assert (of(await one.want(), TOKENS).left, of(await one.want(), TOKENS).over) == (0, 40)
    minute = of(await one.want(), TOKENS)
    assert minute.until is not None
    await clock.advance(minute.until - clock.now())
    assert of(await one.want(), TOKENS).left == 60
    assert (await one.want(tokens=60)).stands


async def test_of_64_who_speak_by_either_call_none_passes_a_bound(processes: list[Store], place: str) -> None:
    await furnish(processes[0], tenant={"quota": {"spendMicro": 5_000, "tokensPerMinute": 4_000}})
    await processes[0].objects.create(body("Project", "acme--other", namespace=""), ALICE)
    dice, given, spent = random.Random(9), 0, 0

    async def gateway(n: int) -> None:
        nonlocal given, spent
        store, name = processes[n % len(processes)], f"g{n}"
        new, old = Holder(store, name), older.Holder(store, name)
        for _ in range(4):
            cost = dice.randrange(1, 90)
            if n % 2:
                if not (await new.want(tokens=cost, micro=new.level + cost)).stands:
                    continue
            else:
                wish = Wish(holder=name, micro=old.level + cost, after=old.number)
                try:
                    share = await store.capacity.hold(PROJECT, meter=TOKENS, amount=cost, money=wish)
                except QuotaExceeded:
                    continue
                assert share.money is not None
                old.number, old.level = share.money.number, old.level + cost
            given += cost
            used = await older.money(processes[0])
            assert used.used + used.held <= 5_000
            less = dice.randrange(0, cost + 1)
            spent += less
            await (new.spend(less) if n % 2 else old.spend(less))
            await (new.want(micro=0) if n % 2 else old.state(0, asks=False))

    await asyncio.gather(*(gateway(n) for n in range(64)))
    use = await older.money(processes[-1])
    assert (use.held, use.used) == (0, spent), "each gave back what it did not need"
    assert given <= 4_000
    assert spent <= 5_000
    check(place)


async def test_what_an_older_gateway_holds_by_the_older_call_stands_though_it_begins_anew(store: Store) -> None:
    """It asks for money first, and then for its bounds, of which it names none of money."""
    await furnish(store, tenant={"quota": {"spendMicro": 100}})
    old, other = older.Holder(store, "old"), Holder(store, "other")
    await old.state(80)
    ask = Ask(holder="old", after=0, key="k", owner="alice", anew=True)
    assert (await store.bounds.hold(PROJECT, ask)).stands
    assert (await older.money(store)).held == 80
    assert (await other.want(micro=30, anew=True)).lacks
