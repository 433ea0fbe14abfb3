"""Money: of many who hold, spend and die at once nobody passes a bound, and what was spent is what the ledger says."""

from __future__ import annotations

import asyncio
import random

import pytest

from bessemer.core.clock import FakeClock, SystemClock
from bessemer.core.errors import Conflict, Invalid, NotFound, QuotaExceeded, Unavailable
from bessemer.core.money import HOLD_SECONDS, Prices, Wish
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.quota import Quota, Use
from bessemer.core.resource import Key
from bessemer.core.spools import ALIVE_SECONDS
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.metering.invoice import derive
from bessemer.metering.plan import Plan
from bessemer.store import Store
from tests.store.faults import gone_after
from tests.store.invariants import check, connect
from tests.store.make import ALICE, PROJECT, agent, body, claim, inventory
from tests.store.make import read as said
from tests.store.test_quota import opened, outcomes, processes

__all__ = ["processes"]

METER, MINUTE = "spend_micro", "tokens_per_minute"
RATES = {"millionInputTokens": 1_000_000, "millionOutputTokens": 3_000_000, "coreHour": 3_600_000}
"""A token that is read costs one, one that is written three, a core a thousand a second."""
PLAN = {"currency": "SEK", "rates": RATES}
FAR = 1 << 60


async def furnish(store: Store, *, bound: int | None = 10_000, project: int | None = None) -> None:
    """A plan, a tenant that is bounded, and a project of it."""
    await store.objects.create(body("PricePlan", "standard", spec=PLAN, namespace=""), ALICE)
    quota = {"spendMicro": bound} if bound is not None else {}
    await store.objects.create(body("Tenant", "acme", spec={"quota": quota}, namespace=""), ALICE)
    own = {"spendMicro": project} if project is not None else {}
    await store.objects.create(body("Project", PROJECT, spec={"quota": own}, namespace=""), ALICE)


def record(
    n: int,
    *,
    read: int = 0,
    written: int = 0,
    held: int | None = None,
    project: str = PROJECT,
    model: str = "words",
) -> UsageRecord:
    return UsageRecord(
        at=1,
        request_id=f"r{n}",
        project=project,
        endpoint="chat",
        endpoint_uid=f"uid-of-{project}",
        api_key="k",
        model=model,
        status=200,
        input_tokens=read,
        output_tokens=written,
        held_micro=held,
    )


class Holder:
    """One gateway, as the store knows it: a level, a spool, and the number of its last word."""

    def __init__(self, store: Store, name: str, *, project: str = PROJECT) -> None:
        self.store, self.name, self.project = store, name, project
        self.level = self.number = self.sequence = 0

    async def state(self, micro: int, *, asks: bool = True) -> int:
        """Hold so much in all; what is left. Raises QuotaExceeded."""
        for _ in range(2):
            wish = Wish(holder=self.name, micro=micro, after=self.number)
            share = await self.store.capacity.hold(self.project, meter=MINUTE, amount=int(asks), money=wish)
            assert share.money is not None
            self.number = share.money.number
            if share.money.stands:
                self.level = micro
                return share.money.left
        raise AssertionError("nobody else speaks for it")

    async def spend(self, cost: int, *, held: int | None = None) -> None:
        """Settle a record that costs so much, of which so much was held."""
        first, self.sequence = self.sequence + 1, self.sequence + 1
        records = [record(first, read=cost, held=cost if held is None else held, project=self.project)]
        await self.store.ledger.settle(
            UsageBatch(gateway_uid=self.name, spool_uid=f"spool-{self.name}", first_sequence=first, records=records)
        )
        self.level -= min(self.level, cost)


async def money(store: Store, scope: str = "tenant/acme") -> Use:
    return next(use for use in await store.capacity.use(scope) if use.meter == METER)


async def billed(store: Store) -> int:
    """What the ledger comes to, by what an invoice is made with."""
    return derive(await store.ledger.entries(), Plan.model_validate(PLAN), start=0, end=FAR).total_micro


# --- who comes first --------------------------------------------------------------------------------------------


async def test_of_64_who_fight_for_the_last_units_none_passes_the_bound(processes: list[Store], place: str) -> None:
    await furnish(processes[0], bound=5_000, project=4_990)
    await processes[0].objects.create(body("Project", "acme--other", namespace=""), ALICE)
    dice = random.Random(7)

    async def gateway(n: int) -> None:
        one = Holder(processes[n % len(processes)], f"g{n}", project=PROJECT if n % 8 else "acme--other")
        for _ in range(4):
            cost = dice.randrange(1, 90)
            try:
                await one.state(one.level + cost)
            except QuotaExceeded:
                continue
            use = await money(processes[0])
            assert use.used + use.held <= 5_000
            await one.spend(dice.randrange(0, cost + 1), held=cost)
            await one.state(0, asks=False)

    await asyncio.gather(*(gateway(n) for n in range(64)))
    use = await money(processes[-1])
    assert use.held == 0, "each gave back what it did not need"
    assert use.used == await billed(processes[0]) <= 5_000
    last = Holder(processes[-1], "last", project="acme--other")
    await last.state(5_000 - use.used)
    with pytest.raises(QuotaExceeded):
        await last.state(5_000 - use.used + 1)
    await last.spend(5_000 - use.used)
    assert await money(processes[0]) == Use(scope="tenant/acme", meter=METER, used=5_000, limit=5_000, held=0)
    assert await billed(processes[0]) == 5_000, "the last unit is not lost"
    check(place)


async def test_of_64_claims_as_many_are_taken_as_their_first_hours_have_room(processes: list[Store]) -> None:
    await furnish(processes[0], bound=3 * 3_600_000 + 10)
    for n in range(8):
        await processes[0].capacity.declare(f"h{n}", inventory(threads=64))
    calls = [
        processes[n % len(processes)].capacity.take([claim(f"w{n}", host=f"h{n % 8}")], CONTROLLER) for n in range(64)
    ]
    made, refused = await outcomes(calls)
    assert (len(made), len(refused)) == (3, 61)
    assert str(refused[0]) == (
        f"tenant acme: the first hour of {str(refused[0]).split('hour of ')[1].split(':')[0]}: SEK 3.60 asked, "
        "SEK 0.00001 of SEK 10.80001 left for this month (SEK 10.80 spent); "
        "an administrator of the platform may raise the quota"
    )
    gang = [claim(f"gang-{n}", host=f"h{n}") for n in range(2)]
    await processes[0].capacity.set_quota("tenant/acme", Quota(spend_micro=4 * 3_600_000 + 10))
    with pytest.raises(QuotaExceeded):
        await processes[0].capacity.take(gang, CONTROLLER)
    assert (await money(processes[0])).used == 3 * 3_600_000, "a gang that is refused counts for nothing"


# --- statements -------------------------------------------------------------------------------------------------


async def test_a_word_that_is_late_or_said_twice_moves_nothing(store: Store) -> None:
    await furnish(store)
    wish = Wish(holder="g", micro=100, after=0)
    for stands in (True, False, False):
        share = await store.capacity.hold(PROJECT, meter=MINUTE, amount=1, money=wish)
        assert share.money is not None
        assert (share.money.stands, share.money.number) == (stands, 1)
        assert (await money(store)).held == 100
    look = await store.capacity.hold(PROJECT, meter=MINUTE, amount=1, money=Wish(holder="g", micro=0, after=None))
    assert look.money is not None
    assert (look.money.stands, look.money.left) == (False, 9_900)
    assert look.money.prices == Prices(currency="SEK", input=1_000_000, output=3_000_000, core_hour=3_600_000)
    with pytest.raises(Invalid):
        await store.capacity.hold(PROJECT, meter=MINUTE, amount=1, money=Wish(holder="g", micro=-1, after=1))


async def test_what_a_dead_gateway_held_stays_for_its_spool_and_that_is_counted_once(
    store: Store, clock: FakeClock
) -> None:
    await furnish(store)
    dead = Holder(store, "dead")
    await dead.state(6_000)
    other = Holder(store, "other")
    await other.state(4_000)
    with pytest.raises(
        QuotaExceeded, match=r"SEK 0.00 of SEK 0.01 left for this month \(SEK 0.00 spent, SEK 0.01 held"
    ):
        await other.state(4_001)
    await dead.spend(5_000)  # as its spool is settled by whoever finds it
    use = await money(store)
    assert (use.used, use.held) == (5_000, 5_000), "what was spent was held before"
    await clock.advance(100 * HOLD_SECONDS)
    await other.state(4_000)
    use = await money(store)
    assert (use.used, use.held) == (5_000, 5_000), "what it did not settle may come yet"
    with pytest.raises(QuotaExceeded):
        await other.state(5_000)
    batch = UsageBatch(gateway_uid="dead", spool_uid="spool-dead", first_sequence=1, records=[record(1, read=5_000)])
    await store.ledger.settle(batch)
    assert (await money(store)).used == 5_000, "a batch that comes again costs nothing"
    await other.spend(4_000)
    assert (await money(store)).used == await billed(store) == 9_000


async def test_a_spool_that_is_lost_for_good_counts_until_the_month_ends_and_bills_nobody(
    store: Store, clock: FakeClock
) -> None:
    await furnish(store)
    dead, other = Holder(store, "dead"), Holder(store, "other")
    await dead.state(6_000)
    await other.state(1_000)
    with pytest.raises(Conflict, match="was heard of 0 seconds ago"):
        await store.spools.forget("dead", ALICE)
    with pytest.raises(NotFound):
        await store.spools.forget("nobody", ALICE)
    await clock.advance(ALIVE_SECONDS)
    assert [
        (one.holder, one.project, [part.amount for part in one.parts]) for one in await store.spools.standing()
    ] == [
        ("dead", PROJECT, [6_000]),
        ("other", PROJECT, [1_000]),
    ]
    (lost,) = await store.spools.forget("dead", ALICE)
    assert lost.parts[0].amount == 6_000
    assert [row.verb for row in await store.audit.rows()][-1] == "forget"
    assert [one.holder for one in await store.spools.standing()] == ["other"]
    assert await store.capacity.held_by("dead") == []
    use = await money(store)
    assert (use.used, use.held) == (0, 7_000), "it counts"
    await store.capacity.told("tenant/acme", meter=METER, used=0, upto=await store.ledger.last())
    with pytest.raises(QuotaExceeded):
        await other.state(4_001)
    heir = Holder(store, "dead")
    await heir.state(500)
    assert (await money(store)).held == 7_500, "who has its name begins anew"
    assert await billed(store) == 0
    await clock.advance(31 * 86_400)
    await Holder(store, "third").state(8_000)
    assert (await money(store)).held == 9_500, "the month is over"


async def test_a_bound_below_what_is_held_gives_nothing_more_and_takes_what_comes_back(store: Store) -> None:
    await furnish(store)
    one = Holder(store, "g")
    await one.state(6_000)
    await store.capacity.set_quota("tenant/acme", Quota(spend_micro=5_000))
    assert await one.state(6_000) == -1_000, "it hears that it is too much"
    with pytest.raises(QuotaExceeded):
        await one.state(6_001)
    assert await one.state(4_000) == 1_000
    await store.capacity.set_quota("tenant/acme", Quota())
    share = await store.capacity.hold(
        PROJECT, meter=MINUTE, amount=1, money=Wish(holder="g", micro=1, after=one.number)
    )
    assert share.money is None


async def test_tokens_that_are_late_count_on_whoever_they_are_of(store: Store) -> None:
    """Of a project that is gone they are its tenant's still, and not of the next of the name."""
    await furnish(store, project=8_000)
    await Holder(store, "g").spend(1_000, held=0)
    gone = (await store.objects.list(Scope(kind="Project"))).items[0]
    await store.objects.delete(gone.key, ALICE)
    await store.objects.replace(body("Project", PROJECT, namespace=""), CONTROLLER)  # its finalizer has let it go
    await store.objects.create(body("Project", PROJECT, spec={"quota": {"spendMicro": 8_000}}, namespace=""), ALICE)
    late = Holder(store, "g")
    late.sequence = 1
    await late.spend(500, held=0)
    assert (await money(store, f"project/{PROJECT}")).used == 0
    assert (await money(store)).used == 1_500
    tenant_uid = (await store.objects.get(gone.key._replace(kind="Tenant", name="acme"))).uid
    assert list(await store.ledger.projects(tenant_uid)) == [gone.uid]


@pytest.mark.real
async def test_what_is_held_goes_by_the_clock_that_all_replicas_share(database: str) -> None:
    """A replica whose own clock is wrong says the same as the others."""
    wrong = FakeClock(SystemClock().now() + 2 * HOLD_SECONDS)
    store = opened(database, wrong)
    await furnish(store, project=9_000)
    await Holder(store, "g").state(6_000)
    assert (await money(store)).held == (await money(store, f"project/{PROJECT}")).held == 6_000
    store.close()


# --- looks ------------------------------------------------------------------------------------------------------


async def test_a_look_is_of_rows_up_to_one_and_loses_none_that_came_since(store: Store) -> None:
    await furnish(store)
    one = Holder(store, "g")
    await one.spend(100, held=0)
    upto = await store.ledger.last()
    await one.spend(30, held=0)
    await store.capacity.declare("h1", inventory())
    await store.capacity.set_quota("tenant/acme", Quota(spend_micro=1 << 40))
    await store.capacity.take([claim("a")], CONTROLLER)
    await store.capacity.told("tenant/acme", meter=METER, used=100, upto=upto)
    assert (await money(store)).used == 100 + 30 + 3_600_000
    newer = await store.ledger.last()
    await store.capacity.told("tenant/acme", meter=METER, used=7, upto=newer)
    await store.capacity.told("tenant/acme", meter=METER, used=100, upto=upto)
    assert (await money(store)).used == 7, "an older look that comes late says nothing"
    with pytest.raises(Invalid, match="is counted here"):
        await store.capacity.told("tenant/acme", meter="instances", used=0, upto=newer)


async def test_a_bound_on_what_was_never_counted_gives_nothing_before_a_look(store: Store) -> None:
    await furnish(store, bound=None)
    await Holder(store, "g").spend(9_000, held=0)
    await store.capacity.declare("h1", inventory())
    await store.capacity.set_quota("tenant/acme", Quota(spend_micro=10_000))
    for call in (
        store.capacity.take([claim("a")], CONTROLLER),
        store.objects.create(body("Instance", "a"), ALICE),
        Holder(store, "g").state(1),
    ):
        with pytest.raises(QuotaExceeded, match="what this month has cost is being counted: try again in a moment"):
            await call
    await store.capacity.told("tenant/acme", meter=METER, used=9_000, upto=await store.ledger.last())
    assert await Holder(store, "g").state(1_000) == 0
    with pytest.raises(QuotaExceeded):
        await store.objects.create(body("Instance", "a"), ALICE)


async def test_what_is_gone_is_told_of_no_more(store: Store, place: str) -> None:
    await store.capacity.told("tenant/gone", meter=METER, used=5, upto=0)
    connection = connect(place)
    found = connection.execute("SELECT scope FROM quota WHERE scope = 'tenant/gone'").fetchall()
    connection.close()
    assert found == []


async def test_once_the_money_is_used_up_nothing_new_comes(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    await store.capacity.set_quota("tenant/acme", Quota(spend_micro=12_000_000))
    await store.capacity.told("tenant/acme", meter=METER, used=11_999_999, upto=0)
    await store.objects.create(body("Instance", "a"), ALICE)
    await store.capacity.take([claim("a")], CONTROLLER)
    await store.capacity.told("tenant/acme", meter=METER, used=12_500_000, upto=await store.ledger.last())
    words = (
        r"tenant acme: EUR 0.00 of EUR 12.00 left for this month \(EUR 12.50 spent\); an administrator of the platform"
    )
    with pytest.raises(QuotaExceeded, match=words):
        await store.objects.create(body("Instance", "b"), ALICE)
    with pytest.raises(QuotaExceeded, match=words):
        await store.capacity.take([claim("b")], CONTROLLER)
    with pytest.raises(QuotaExceeded, match=words):
        await store.capacity.hold(PROJECT, meter=MINUTE, amount=0)  # of a gateway that knows of no holds
    await store.capacity.take([claim("a")], CONTROLLER)
    await store.objects.create(body("Thing", "free"), ALICE)
    await store.capacity.set_quota("tenant/acme", Quota(spend_micro=13_000_000))
    await store.objects.create(body("Instance", "b"), ALICE)


# --- crashes ----------------------------------------------------------------------------------------------------


async def life(store: Store) -> None:
    """A gateway's: it holds, spends, and gives back; each step is harmless when it is repeated."""
    await store.capacity.declare("h1", inventory())
    one = Holder(store, "g")
    await one.state(50)
    await one.spend(40, held=50)
    await one.state(0, asks=False)
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    said_gone = {"kind": "Claim", "metadata": {"name": taken.key.name, "namespace": PROJECT}}
    await store.objects.replace({**said_gone, "status": {"phase": "Gone"}}, agent("h1"), part="status")


@pytest.mark.parametrize("before", [True, pytest.param(False, marks=pytest.mark.long)])
async def test_after_a_crash_at_every_commit_what_is_spent_is_what_the_ledger_says(
    place: str, clock: FakeClock, before: bool
) -> None:
    store = opened(place, clock)
    await furnish(store, bound=1 << 40)
    store.close()
    for stop in range(12):
        store = opened(place, clock)
        gone_after(store._committer._session, stop, before=before)  # type: ignore[attr-defined]
        try:
            await life(store)
            ended = True
        except Unavailable:
            ended = False
        store.close()
        check(place)
        if ended:
            break
    assert ended
    assert stop >= 6, "each commit was the last one once"
    store = opened(place, clock)
    await life(store)
    use = await money(store)
    # The claim's first hour is counted once, whatever was repeated; the tokens once by their sequence.
    assert (use.used, use.held) == (40 + 3_600_000, 0)
    store.close()


# --- rates of models --------------------------------------------------------------------------------------------


async def test_each_record_is_spent_by_the_rate_of_who_answered(store: Store) -> None:
    """By the quota, by a look of it that was taken before, and by the invoice; and then by another plan."""
    dear = {"millionInputTokens": 7_000_000, "millionCachedInputTokens": 0, "millionOutputTokens": 0}
    plan = {**PLAN, "models": {"big": dear, "acme--lab/own": {**dear, "millionInputTokens": 0}}}
    await furnish(store)
    await store.objects.create(body("PricePlan", "by-model", spec=plan, namespace=""), ALICE)
    tenant = said(await store.objects.get(Key("Tenant", "", "acme")))
    tenant["spec"]["pricePlan"] = "by-model"
    await store.objects.replace(tenant, ALICE)
    holder = Holder(store, "g")
    await holder.state(1_000)
    asked = {"big": 10, "words": 10, "big:tuned": 10, "acme--lab/big": 10, "acme--lab/own": 10, "external/big": 10}
    records = [record(n, read=count, held=100, model=model) for n, (model, count) in enumerate(asked.items(), 1)]
    await store.ledger.settle(UsageBatch(gateway_uid="g", spool_uid="s", first_sequence=1, records=records))
    spent = 2 * 70 + 3 * 10
    assert (await money(store)).used == spent
    assert (await money(store)).held == 1_000 - spent
    rows = await store.ledger.entries()
    assert derive(rows, Plan.model_validate(plan), start=0, end=FAR).total_micro == spent
    assert await billed(store) == 60, "by the plan that names none"
    await store.capacity.told("tenant/acme", meter=METER, used=0, upto=0)
    assert (await money(store)).used == spent, "what a look did not see is added by the same rates"
