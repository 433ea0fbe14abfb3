"""Limits and budgets: of many who hold, spend and die at once nobody passes a bound of any scope, by one unit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bessemer.core.bounds import METERS, Answer, Ask, Bound, Want
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Invalid, Unavailable
from bessemer.core.money import HOLD_SECONDS
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.store import Store
from tests.store.faults import gone_after
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, body, read
from tests.store.test_money import PLAN, record
from tests.store.test_quota import opened, processes

__all__ = ["processes"]

KEY, TENANT, MEMBER, OWN = f"key/{PROJECT}/k", "tenant/acme", "member/acme/alice", f"project/{PROJECT}"


async def furnish(store: Store, *, key: Mapping[str, Any] | None = None, **above: Mapping[str, Any]) -> None:
    """A tenant, a project and a key of alice's, with these limits and budgets."""
    await store.objects.create(body("PricePlan", "standard", spec=PLAN, namespace=""), ALICE)
    members = [{"user": "alice", **above.get("member", {})}]
    await store.objects.create(
        body("Tenant", "acme", spec={"members": members, **above.get("tenant", {})}, namespace=""), ALICE
    )
    await store.objects.create(body("Project", PROJECT, spec={**above.get("project", {})}, namespace=""), ALICE)
    await store.objects.create(body("ApiKey", "k", spec={"owner": "alice", **(key or {})}), ALICE)


async def restate(store: Store, kind: str, name: str, **spec: Any) -> None:
    """Let the object say something else."""
    found = read(await store.objects.get(Key(kind, PROJECT if kind == "ApiKey" else "", name)))
    found["spec"] |= spec
    await store.objects.replace(found, ALICE)


class Holder:
    """One gateway, as the store knows it: what it holds of each bound, its spool, the number of its last word."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.levels: dict[tuple[str, str], int] = {}
        self.number = self.sequence = 0

    async def want(self, *wants: tuple[str, str, int], anew: bool = False) -> Answer:
        """Say of each that so much is held in all, or more of it is wanted; again where somebody spoke in its name."""
        said = [Want(scope=scope, meter=meter, amount=amount) for scope, meter, amount in wants]
        for _ in range(2):
            ask = Ask(holder=self.name, after=self.number, key="k", owner="alice", anew=anew, wants=said)
            answer = await self.store.bounds.hold(PROJECT, ask)
            self.number = answer.number
            if answer.stands:
                self.levels |= {(one.scope, one.meter): one.amount for one in said if METERS[one.meter].way != "given"}
            if answer.stands or answer.lacks:
                return answer
        raise AssertionError("nobody else speaks for it")

    async def spend(self, read: int = 0, written: int = 0, *, held: bool = True) -> None:
        """Settle a record of so many tokens, which was held of all bounds of which something is held."""
        self.sequence += 1
        places = [place for place, n in self.levels.items() if n and METERS[place[1]].way == "spent"]
        names = [f"{scope.partition('/')[0]} {meter}" for scope, meter in places]
        one = record(self.sequence, read=read, written=written)
        one = one.model_copy(update={"owner": "alice", "held_bounds": names if held and names else None})
        await self.settle([one])
        for place in places if held else ():
            cost = {"tokens": read + written, "micro": read + 3 * written, "requests": 1}[METERS[place[1]].unit]
            self.levels[place] = max(0, self.levels[place] - cost)

    async def settle(self, records: list[UsageRecord]) -> None:
        await self.store.ledger.settle(
            UsageBatch(
                gateway_uid=self.name,
                spool_uid=f"spool-{self.name}",
                first_sequence=self.sequence + 1 - len(records),
                records=records,
            )
        )


async def standing(store: Store) -> dict[tuple[str, str], Bound]:
    return {(one.scope, one.meter): one for one in await store.bounds.standing([KEY, MEMBER, OWN, TENANT])}


async def test_all_of_a_requests_bounds_must_have_room_or_nothing_is_held(store: Store, place: str) -> None:
    await furnish(
        store,
        key={"budget": {"period": "Total", "tokens": 1000}},
        member={"budget": {"period": "Month", "micro": 500}},
        project={"limits": {"requestsPerMinute": 3}},
        tenant={"limits": {"concurrent": 2}},
    )
    one, other = Holder(store, "one"), Holder(store, "other")
    told = await one.want()
    assert {(b.scope, b.meter, b.bound, b.left) for b in told.bounds} == {
        (KEY, "tokens/total", 1000, 1000),
        (MEMBER, "micro/month", 500, 500),
        (OWN, "requests/minute", 3, 3),
        (TENANT, "concurrent", 2, 2),
    }
    assert told.prices.output == 3_000_000
    wants = ((KEY, "tokens/total", 100), (MEMBER, "micro/month", 300), (OWN, "requests/minute", 1))
    assert (await one.want(*wants, (TENANT, "concurrent", 1))).stands
    refused = await other.want(*wants, (TENANT, "concurrent", 1))
    assert not refused.stands
    assert refused.lacks == "member alice: SEK 0.0002 of SEK 0.0005 spend this month left"
    now = await standing(store)
    assert {place: (b.used, b.held) for place, b in now.items()} == {
        (KEY, "tokens/total"): (0, 100),
        (MEMBER, "micro/month"): (0, 300),
        (OWN, "requests/minute"): (1, 0),
        (TENANT, "concurrent"): (0, 1),
    }, "nothing of what was wanted with it was given"
    await one.spend(60, 20)
    now = await standing(store)
    assert (now[KEY, "tokens/total"].used, now[KEY, "tokens/total"].held) == (80, 20)
    assert (now[MEMBER, "micro/month"].used, now[MEMBER, "micro/month"].held) == (120, 180)
    check(place)


async def test_a_statement_that_was_lost_late_or_repeated_moves_nothing(store: Store) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 100}})
    one = Holder(store, "one")
    await one.want((KEY, "tokens/total", 60))
    late = Ask(holder="one", after=one.number, key="k", wants=[Want(scope=KEY, meter="tokens/total", amount=90)])
    await one.want((KEY, "tokens/total", 10))
    answer = await store.bounds.hold(PROJECT, late)
    assert (answer.stands, answer.number) == (False, one.number)
    assert (await standing(store))[KEY, "tokens/total"].held == 10
    lost = await store.bounds.hold(PROJECT, replace(late, after=one.number))
    assert lost.stands
    assert not (await store.bounds.hold(PROJECT, replace(late, after=one.number))).stands, "it was said already"
    assert (await one.want((KEY, "tokens/total", 30))).stands, "it hears of the number, and says it again"
    assert (await standing(store))[KEY, "tokens/total"].held == 30


async def test_what_nobody_may_speak_of_is_refused(store: Store) -> None:
    await furnish(store)
    for scope, meter, amount in (
        ("key/other--lab/k", "tokens/day", 1),
        ("tenant/other", "tokens/day", 1),
        (KEY, "tokens/year", 1),
        (KEY, "tokens/day", -1),
    ):
        with pytest.raises(Invalid):
            await Holder(store, "one").want((scope, meter, amount))
    assert await store.bounds.held_by("one") == []


async def test_of_64_who_fight_for_the_last_units_none_passes_any_bound(processes: list[Store], place: str) -> None:
    await furnish(
        processes[0],
        key={"budget": {"period": "Month", "micro": 4_000}, "limits": {"requestsPerMinute": 150}},
        member={"budget": {"period": "Day", "tokens": 2_100}},
        tenant={"budget": {"period": "Total", "micro": 3_990}, "limits": {"concurrent": 9}},
    )
    dice, spent, served = random.Random(5), 0, 0

    async def gateway(n: int) -> None:
        nonlocal spent, served
        one = Holder(processes[n % len(processes)], f"g{n}")
        for _ in range(4):
            tokens = dice.randrange(1, 90)
            answer = await one.want(
                (KEY, "micro/month", tokens * 3),
                (KEY, "requests/minute", 1),
                (MEMBER, "tokens/day", tokens),
                (TENANT, "micro/total", tokens * 3),
                (TENANT, "concurrent", 1),
            )
            if answer.stands:
                served += 1
                written = dice.randrange(0, tokens + 1)
                await one.spend(tokens - written, written)
                spent += tokens + 2 * written
            now = await standing(processes[0])
            assert all(b.used + b.held <= b.bound for b in now.values())
            await one.want(*((scope, meter, 0) for scope, meter in one.levels))

    await asyncio.gather(*(gateway(n) for n in range(64)))
    now = await standing(processes[-1])
    assert all(b.held == 0 for b in now.values()), "each gave back what it did not need"
    assert now[KEY, "micro/month"].used == now[TENANT, "micro/total"].used == spent <= 3_990
    assert now[KEY, "requests/minute"].used == served <= 150
    check(place)


async def test_a_period_ends_by_the_stores_clock_and_what_is_held_goes_over(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"limits": {"tokensPerDay": 100, "requestsPerMinute": 2, "concurrent": 1}})
    one = Holder(store, "one")
    assert (await one.want((KEY, "tokens/day", 90), (KEY, "requests/minute", 2), (KEY, "concurrent", 1))).stands
    assert (await one.want((KEY, "requests/minute", 1))).lacks == "key k: 0 of 2 requests per minute left"
    await clock.advance(60)
    assert (await one.want((KEY, "requests/minute", 1), (KEY, "tokens/day", 90))).stands
    await one.spend(40)
    day = (await standing(store))[KEY, "tokens/day"]
    assert (day.used, day.held, day.left) == (40, 50, 10)
    assert day.until is not None
    await clock.advance(day.until - clock.now())
    await one.want((KEY, "tokens/day", 50))
    day = (await standing(store))[KEY, "tokens/day"]
    assert (day.used, day.held) == (0, 50)
    other = Holder(store, "other")
    assert (await other.want((KEY, "tokens/day", 51))).lacks == "key k: 50 of 100 tokens this day left"
    assert (await other.want((KEY, "tokens/day", 50), (KEY, "concurrent", 1))).stands, "who is silent is not busy"


async def test_who_falls_silent_holds_until_its_heir_or_somebody_says_otherwise(
    store: Store, clock: FakeClock, place: str
) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 100}})
    dead, heir, other = Holder(store, "g"), Holder(store, "g"), Holder(store, "other")
    await dead.want((KEY, "tokens/total", 60))
    assert await store.bounds.held_by("g") == [PROJECT]
    assert (await other.want((KEY, "tokens/total", 41))).lacks
    await dead.spend(25)
    assert (await heir.want(anew=True)).stands, "its predecessor's spool is settled: nothing else of it comes"
    assert await store.bounds.held_by("g") == []
    assert (await standing(store))[KEY, "tokens/total"].left == 75
    await other.want((KEY, "tokens/total", 75))
    await clock.advance(100 * HOLD_SECONDS)
    third = Holder(store, "third")
    assert (await third.want((KEY, "tokens/total", 1))).lacks, "what its spool has may come yet"
    await other.spend(5)
    assert ((await standing(store))[KEY, "tokens/total"].used, await store.bounds.held_by("other")) == (30, [PROJECT])
    (lost,) = await store.spools.forget("other", ALICE)
    assert [(part.scope, part.meter, part.amount) for part in lost.parts] == [(KEY, "tokens/total", 70)]
    bound = (await standing(store))[KEY, "tokens/total"]
    assert (bound.used, bound.held, await store.bounds.held_by("other")) == (100, 0, []), "it is used, and never billed"
    assert (await third.want((KEY, "tokens/total", 1))).lacks
    assert (await Holder(store, "other").want()).number == 0
    check(place)


async def test_what_was_lost_counts_within_the_period_in_which_that_is_said(store: Store, clock: FakeClock) -> None:
    await furnish(store, key={"limits": {"tokensPerDay": 100, "concurrent": 2}})
    dead, other = Holder(store, "g"), Holder(store, "other")
    await dead.want((KEY, "tokens/day", 60), (KEY, "concurrent", 2))
    await clock.advance(86_400)
    assert (await other.want((KEY, "tokens/day", 41))).lacks
    await store.spools.forget("g", ALICE)
    assert (await other.want((KEY, "tokens/day", 40), (KEY, "concurrent", 2))).stands
    await clock.advance(86_400)
    day = (await standing(store))[KEY, "tokens/day"]
    assert (day.used, day.held) == (0, 40)


async def test_bounds_follow_their_object_and_go_with_it(store: Store, place: str) -> None:
    await furnish(store, key={"budget": {"period": "Total", "tokens": 100}}, member={"limits": {"concurrent": 1}})
    one = Holder(store, "one")
    await one.want((KEY, "tokens/total", 100))
    await one.spend(30)
    await restate(store, "ApiKey", "k", budget={"period": "Total", "tokens": 20})
    assert (await standing(store))[KEY, "tokens/total"].left == 0
    assert (await one.want((KEY, "tokens/total", 69))).stands, "less is held than was"
    await restate(store, "ApiKey", "k", budget=None)
    await one.spend(5)
    assert (KEY, "tokens/total") not in await standing(store)
    await restate(store, "ApiKey", "k", budget={"period": "Total", "tokens": 200})
    assert (await standing(store))[KEY, "tokens/total"].used == 35, "it went on being counted"
    await restate(store, "Tenant", "acme", members=[])
    assert (MEMBER, "concurrent") not in await standing(store)
    check(place)
    await store.objects.delete(Key("ApiKey", PROJECT, "k"), ALICE)
    await store.objects.create(body("ApiKey", "k", spec={"budget": {"period": "Total", "tokens": 50}}), ALICE)
    now = (await standing(store))[KEY, "tokens/total"]
    assert (now.used, now.held, now.left) == (0, 0, 50), "whoever gets its name begins anew"


async def test_nobody_speaks_of_a_project_that_is_gone(store: Store, place: str) -> None:
    await furnish(store, project={"limits": {"concurrent": 3}})
    one = Holder(store, "one")
    await one.want((OWN, "concurrent", 2))
    await store.objects.delete(Key("ApiKey", PROJECT, "k"), ALICE)
    gone = read(await store.objects.delete(Key("Project", "", PROJECT), ALICE))
    gone["metadata"]["finalizers"] = []
    await store.objects.replace(gone, CONTROLLER)
    assert (await one.want((OWN, "concurrent", 2))).stands, "it is of no matter to anybody"
    assert one.number == 0
    check(place)


async def life(store: Store) -> None:
    """A gateway that begins, holds, settles and ends; what was done of it before is done once."""
    one = Holder(store, "g")
    await one.want(anew=True)
    await one.want((KEY, "tokens/total", 60), (TENANT, "concurrent", 1))
    await one.spend(25)
    now = await standing(store)
    assert now[KEY, "tokens/total"].used == 25
    await one.want((KEY, "tokens/total", 0), (TENANT, "concurrent", 0))


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_a_crash_at_any_commit_is_made_good(place: str, clock: FakeClock, before: bool) -> None:
    """Each commit of a gateway's life is the last one once, made or not."""
    ended, stop = False, -1
    store = opened(place, clock)
    await furnish(store, key={"budget": {"period": "Total", "tokens": 100}}, tenant={"limits": {"concurrent": 1}})
    store.close()
    while not ended:
        stop += 1
        store = opened(place, clock)
        gone_after(store._committer._session, stop, before=before)  # type: ignore[attr-defined]
        try:
            await life(store)
            ended = True
        except Unavailable:
            pass
        store.close()
        check(place)
    assert stop >= 4, "each commit was the last one once"
    store = opened(place, clock)
    await life(store)
    assert {place: (b.used, b.held) for place, b in (await standing(store)).items()} == {
        (KEY, "tokens/total"): (25, 0),
        (TENANT, "concurrent"): (0, 0),
    }
    store.close()


async def test_a_budget_is_spent_by_the_rate_of_who_answered(store: Store) -> None:
    """And as much leaves the hold as the records came to that were held of it."""
    dear = {"millionInputTokens": 7_000_000, "millionCachedInputTokens": 0, "millionOutputTokens": 0}
    await furnish(store, key={"budget": {"period": "Total", "micro": 1_000}})
    plan = {**PLAN, "models": {"big": dear}}
    await store.objects.create(body("PricePlan", "by-model", spec=plan, namespace=""), ALICE)
    await restate(store, "Tenant", "acme", pricePlan="by-model")
    holder = Holder(store, "g")
    answer = await holder.want((KEY, "micro/total", 500))
    assert answer.prices.of("big").input == 7_000_000
    said = {"owner": "alice", "held_bounds": ["key micro/total"]}
    for n, model in enumerate(("big", "words", "big:tuned"), 1):
        one = record(n, read=10, model=model).model_copy(update=said)
        holder.sequence = n
        await holder.settle([one])
    (bound,) = await store.bounds.standing([KEY])
    assert (bound.used, bound.held) == (150, 350)
