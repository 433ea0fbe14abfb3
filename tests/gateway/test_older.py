"""A gateway beside an api of an older release, which answers for a quota by a call of its own, and beside one of each:
no bound is passed, and whom nobody bounds is served."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from bessemer.core.bounds import OF_QUOTA
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Invalid, Malformed, QuotaExceeded
from bessemer.core.money import Wish
from bessemer.core.quota import Quota
from bessemer.gateway import Lending
from bessemer.gateway.errors import Refused
from bessemer.gateway.need import Need
from bessemer.gateway.older import Older
from bessemer.store import Store
from tests.gateway import bounded
from tests.gateway.bounded import FREE, key, wanted
from tests.gateway.harness import PROJECT
from tests.store import test_money as kept
from tests.store.make import ALICE, body
from tests.store.test_bounds import KEY, furnish, standing
from tests.store.test_quota import opened

BOUND, MINUTE = 20_000, 3_000
QUOTA = {"quota": {"spendMicro": BOUND, "tokensPerMinute": MINUTE}}
NEWER = ("over", "whose", "hint")


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[Store]:
    store = opened(":memory:", clock)
    yield store
    store.close()


class Gateway(bounded.Gateway):
    """One whose api is of an older release while it is ``older``: 1 has a call of its own for quotas, 2 knows of no
    bounds besides, 3 of no money."""

    def __init__(self, store: Store, clock: FakeClock, name: str, *, older: int = 1) -> None:
        super().__init__(store, clock, name)
        self.older = older
        self.admission.lending = Lending(Older(self.replica, self.share).ask, clock=clock, holder=name)

    async def replica(self, project: str, *, bounds: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.older > 1:
            raise Malformed("a share is of a meter and of an amount")
        if not self.older:
            return await self.lend(project, bounds=bounds)
        if any(one["meter"] in OF_QUOTA for one in bounds["wants"]):
            raise Invalid("no bound")
        said = dict(await self.lend(project, bounds={**bounds, "anew": False}))
        told = [one for one in said.pop("bounds") if one["meter"] not in OF_QUOTA]
        del said["quota"]
        return {**said, "bounds": [{name: one[name] for name in one if name not in NEWER} for one in told]}

    async def share(
        self, project: str, *, meter: str, amount: int, money: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        self._require()
        if self.older > 2 and money is not None:
            raise Malformed("money: extra inputs are not permitted")
        now, wish = self.clock.now(), Wish(**money) if money is not None else None
        try:
            given = await self.store.capacity.hold(project, meter=meter, amount=amount, money=wish)
        except QuotaExceeded as error:
            return {"amount": 0, "seconds": 60 - now % 60, "left": 0, "words": error.message}
        said = {"amount": given.amount, "seconds": given.until - now, "left": given.left, "words": ""}
        if (purse := given.money) is None:
            return said
        prices = {name: getattr(purse.prices, name) for name in ("currency", "input", "cached", "output")}
        return {**said, "money": {"prices": prices, "number": purse.number, "stands": purse.stands, "left": purse.left}}


async def test_money_and_tokens_are_held_by_the_older_call(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 1_500}}, tenant=QUOTA)
    one = Gateway(store, clock, "g")
    await one.serve(key(), wanted(max_tokens=10), read=20, written=10)
    held = (await kept.money(store)).held
    assert held > 50
    assert one.spool[-1].held_micro is not None
    with pytest.raises(Refused) as refused:
        await one.enter(key(), wanted(1_700, max_tokens=10))
    assert f"key k: {1_500 - 30} of 1500 tokens in all left" in refused.value.words.message
    with pytest.raises(Refused) as refused:
        await one.enter(FREE, wanted(n=9, max_tokens=10_000))
    assert refused.value.words.code == "insufficient_quota"
    assert "tenant acme: " in refused.value.words.message
    assert (await one.enter(FREE, wanted(max_tokens=10_000))).writes is not None, "as long as there is room for"
    await one.settle()
    one = Gateway(store, clock, "g")  # it was killed
    assert await one.admission.lending.replaced(PROJECT)
    assert ((await kept.money(store)).used, (await kept.money(store)).held) == (50, 0)
    one.older = 0
    await clock.advance(60)
    await one.serve(key(), wanted(max_tokens=10), read=20, written=10)
    await one.settle()
    await one.admission.say(last=True)
    assert ((await kept.money(store)).used, (await kept.money(store)).held) == (100, 0)
    assert (await standing(store))[KEY, "tokens/total"].used == 60


@pytest.mark.parametrize("seed", range(3))
async def test_beside_replicas_of_both_no_bound_is_passed(store: Store, clock: FakeClock, seed: int) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 9_000}}, tenant=QUOTA)
    gateways, dice, served = [Gateway(store, clock, f"g{n}") for n in range(4)], random.Random(seed), 0
    await store.objects.create(body("Project", "acme--other", namespace=""), ALICE)
    late = kept.Holder(store, "of-an-older-release", project="acme--other")

    async def client() -> None:
        nonlocal served
        one = dice.choice(gateways)
        one.older, one.lost = dice.randrange(2), dice.random() < 0.1
        try:
            await one.serve(key(), wanted(dice.randrange(99), max_tokens=dice.randrange(1, 99)), read=9_000, written=99)
            served += 1
        except Refused:
            pass
        one.lost = False
        if dice.random() < 0.4:
            await one.settle()

    for _ in range(3):
        for _ in range(8):
            await asyncio.gather(*(client() for _ in range(4)))
            with_another = dice.randrange(100)
            try:
                await late.state(late.level + with_another)
                await late.spend(with_another)
            except QuotaExceeded:
                pass
            use = await kept.money(store)
            assert use.used + use.held <= BOUND
            (minute,) = (use for use in await store.capacity.use("tenant/acme") if use.meter == "tokens_per_minute")
            assert minute.used <= MINUTE
            assert all(b.used + b.held <= b.bound for b in (await standing(store)).values())
            if dice.random() < 0.3:
                await dice.choice(gateways).admission.say()
        await clock.advance(60)
    for one in gateways:
        await one.settle()
        for _ in range(2):
            one.older = dice.randrange(2)
            await one.admission.say(last=True)
    await late.state(0, asks=False)
    use = await kept.money(store)
    assert (use.used, use.held) == (await kept.billed(store), 0)
    assert served > 10


async def test_one_that_knows_of_no_bounds_serves_whom_it_knows_to_bound(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"limits": {"requestsPerDay": 9}}, tenant=QUOTA)
    one = Gateway(store, clock, "g", older=2)
    await one.serve(FREE, wanted(max_tokens=10), read=20, written=10)
    assert (await kept.money(store)).held > 0
    one.older = 1
    await one.serve(key(), wanted(max_tokens=10), read=20, written=10)
    one.older = 2
    with pytest.raises(Refused) as caught:
        await one.serve(key("l", bounds=b"others"), wanted(max_tokens=10))
    assert (caught.value.status, caught.value.words.code) == (503, "limit_unknown")


async def test_one_that_knows_of_no_money_serves_whom_nobody_bounds(store: Store, clock: FakeClock) -> None:
    await furnish(store)
    one = Gateway(store, clock, "g", older=3)
    await one.serve(FREE, wanted(), read=1, written=1)
    await store.capacity.set_quota("tenant/acme", Quota(spend_micro=BOUND))
    one.older = 1
    await clock.advance(61)
    await one.serve(FREE, wanted(), read=1, written=1)  # beside which it is heard
    (again,) = (known.again for known in one.admission.lending._known.values())
    assert again is not None
    await again
    one.older = 3
    with pytest.raises(Refused) as caught:
        await one.serve(FREE, wanted(), read=1, written=1)
    assert caught.value.status == 503, "no refusal takes a bound of money away"


async def test_a_newer_api_may_say_more(store: Store, clock: FakeClock) -> None:
    async def lend(project: str, *, bounds: Mapping[str, Any]) -> Mapping[str, Any]:
        said = bounded.answers({**bounded.minute(100), "since": 3}, {**bounded.minute(1), "meter": "words/second"})
        return {**said, "forecast": 9, "prices": {"input": 1, "request": 7}}

    ticket = await Lending(lend, clock=clock).hold(FREE, Need(40, 5))
    assert b"x-ratelimit-remaining-tokens: 100\r\n" in ticket.lines
