"""What tokens of a request may cost: by whoever may answer it, as records say them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.money import Prices
from bessemer.core.resource import Change, Key
from bessemer.core.values import UsageBatch
from bessemer.gateway.chains import models_of
from bessemer.gateway.errors import Refused
from bessemer.gateway.meter import Counts
from bessemer.gateway.need import Need
from bessemer.gateway.record import Batch
from bessemer.gateway.tables import Tables
from bessemer.gateway.tickets import Account, Ticket
from bessemer.gateway.vessels import KNOWN, Row, Vessel
from bessemer.metering import Plan, derive
from bessemer.store import Store
from tests.gateway.bounded import FREE, Gateway, key, wanted
from tests.gateway.harness import PROJECT, change, endpoint, rig
from tests.store import test_money as kept
from tests.store.make import ALICE, body
from tests.store.make import read as read_body
from tests.store.test_bounds import furnish
from tests.store.test_quota import opened

BOUND = 200_000
DEAR = {"millionInputTokens": 9_000_000, "millionCachedInputTokens": 9_000_000, "millionOutputTokens": 20_000_000}
CHEAP = {"millionInputTokens": 10_000, "millionCachedInputTokens": 0, "millionOutputTokens": 70_000}
PLAN = {**kept.PLAN, "models": {"dear": DEAR, "tiny": CHEAP, "legal": DEAR}}
WHO = ("dear", "tiny", "tiny:legal", "other", "acme--lab/dear", "external/tiny")


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[Store]:
    """A tenant whose money is bounded, and whose plan has rates of models."""
    store = opened(":memory:", clock)
    await kept.furnish(store, bound=BOUND)
    await store.objects.create(body("PricePlan", "by-model", spec=PLAN, namespace=""), ALICE)
    await bill_by(store, "by-model")
    yield store
    store.close()


async def bill_by(store: Store, plan: str) -> None:
    tenant = read_body(await store.objects.get(Key("Tenant", "", "acme")))
    tenant["spec"]["pricePlan"] = plan
    await store.objects.replace(tenant, ALICE)


def taken(name: str, *, of: str, model: str = "", owner: str = "", gone: bool = False) -> Change:
    """A replica as the control side marks it: what it was made of, and of which project that is."""
    spec = {"host": "h1", "workload": {"kind": "Endpoint", "name": of, "uid": "u", "replica": 0}, "intent": {}}
    metadata: dict[str, Any] = {"labels": {"bessemer.dev/model-of": owner} if owner else {}}
    if model:
        metadata["annotations"] = {"bessemer.dev/template": orjson.dumps({"model": model}).decode()}
    status = {"phase": "Running", "address": "https://10.0.0.2:8443"}
    return change("Claim", name, {"metadata": metadata, "spec": spec, "status": status}, gone=gone)


def answers(of: Tables, name: str) -> set[str]:
    return set(of.endpoints[PROJECT, name].answers)


def test_who_answers_is_who_the_replica_was_made_of_not_what_its_endpoint_says_by_now() -> None:
    of = Tables()
    of.apply(endpoint("chat", model="big"))
    assert answers(of, "chat") == {"big", "acme--lab/big"}, "whose it will be is not known before one is there"
    of.apply(taken("c1", of="chat", model="big"))
    assert answers(of, "chat") == {"big"}
    of.apply(endpoint("chat", model="tiny"))
    assert answers(of, "chat") == {"big", "tiny"}
    of.apply(taken("c2", of="chat", model="tiny", owner="acme--lab"))
    assert answers(of, "chat") == {"big", "acme--lab/tiny", "tiny"}
    of.apply(taken("c1", of="chat", gone=True))
    of.apply(endpoint("chat", model="tiny"))
    assert answers(of, "chat") == {"acme--lab/tiny"}
    (replica,) = of.endpoints[PROJECT, "chat"].replicas.values()
    assert replica.model == "acme--lab/tiny"


def test_a_claim_of_before_says_nothing_and_is_of_its_endpoint() -> None:
    of = Tables()
    of.apply(taken("c1", of="chat"))
    of.apply(endpoint("chat", model="big"))
    assert answers(of, "chat") == {"big"}


@pytest.mark.parametrize("name", ["gpt-4o", "acme--lab/tiny", "llama:legal"])
def test_a_service_elsewhere_is_called_as_none_of_ours(name: str) -> None:
    of = Tables()
    of.apply(change("Endpoint", "far", {"spec": {"external": {"url": "https://ai.example.org/v1", "model": name}}}))
    assert answers(of, "far") == {f"external/{name}"}
    assert of.endpoints[PROJECT, "far"].model == f"external/{name}"


def test_whoever_may_answer_instead_is_held_for_too() -> None:
    of = Tables()
    of.apply(endpoint("near", model="tiny", fallbacks=["split", "gone"]))
    of.apply(taken("c1", of="near", model="tiny"))
    backends = [{"endpoint": "big", "weight": 1}, {"endpoint": "none", "weight": 0}]
    of.apply(change("Endpoint", "split", {"spec": {"backends": backends, "fallbacks": ["near"]}}))
    of.apply(endpoint("big", model="big"))
    of.apply(taken("c2", of="big", model="big"))
    of.apply(endpoint("none", model="dear"))
    assert set(models_of(of.endpoints, of.endpoints[PROJECT, "near"])) == {"tiny", "big"}
    assert set(models_of(of.endpoints, of.endpoints[PROJECT, "split"])) == {"tiny", "big"}


# --- what is held ---------------------------------------------------------------------------------------------------


async def test_budgets_are_never_passed_whoever_of_a_chain_answers(store: Store, clock: FakeClock) -> None:
    """Many chains at several gateways, and now and then one answers whom nobody thought of."""
    gateways, dice, refused = [Gateway(store, clock, f"g{n}") for n in range(3)], random.Random(5), list[Refused]()

    async def client(one: Gateway) -> None:
        chain = tuple(dice.sample(WHO, dice.randrange(1, 4)))
        need = Need(dice.randrange(40, 400), dice.randrange(1, 40), chain)
        lending = one.admission.lending
        try:
            ticket = lending.at_once(FREE, need) or await lending.hold(FREE, need)
        except Refused as error:
            refused.append(error)
            return
        await asyncio.sleep(0)
        who = dice.choice(chain if dice.random() < 0.8 else WHO)
        one.end(FREE, ticket, read=dice.randrange(0, 500), written=dice.randrange(0, 60), model=who)

    for _ in range(10):
        await asyncio.gather(*(client(dice.choice(gateways)) for _ in range(80)))
        for one in gateways:
            if dice.random() < 0.7:
                await one.settle()
            use = await kept.money(store)
            assert use.used + use.held <= BOUND
        await clock.advance(20)
    for one in gateways:
        await one.settle()
        await one.admission.say()
        await one.admission.say()
    use = await kept.money(store)
    bill = derive(await store.ledger.entries(), Plan.model_validate(PLAN), start=0, end=kept.FAR)
    assert use.held == 0
    assert bill.total_micro <= use.used <= BOUND
    assert use.used - bill.total_micro < 3 * len(await store.ledger.entries()), "each is rounded up, no more"
    assert {line.model for line in bill.lines} == set(WHO)
    assert refused, "there was not enough for all"
    assert BOUND - use.used < 12_000, "less is left than the largest may cost"


async def test_another_plan_is_gone_by_from_what_is_heard_next(store: Store, clock: FakeClock) -> None:
    one = Gateway(store, clock, "g")
    prices = (await one.admission.lending.hold(FREE, Need(100, 10, ("dear",)))).prices
    assert prices is not None
    assert prices.of("dear").rate == (9_000_000, 9_000_000, 20_000_000)
    await bill_by(store, "standard")
    other = Gateway(store, clock, "h")
    ticket = await other.admission.lending.hold(FREE, Need(100, 10, ("dear",)))
    assert ticket.prices is not None
    assert ticket.prices.of("dear").rate == (1_000_000, 0, 3_000_000)
    other.end(FREE, ticket, read=50, written=10, model="dear")
    await other.settle()
    assert (await kept.money(store)).used == 50 + 30


async def test_an_answer_is_shortened_by_who_may_give_it(store: Store, clock: FakeClock) -> None:
    """The same request, the same money, and as much as whoever may answer leaves room for."""
    writes: dict[str, int | None] = {}
    for model in ("tiny", "other", "dear"):
        one, chat = Gateway(store, clock, model), replace_answers(model)
        entered = one.admission.enter(FREE, wanted(max_tokens=100_000), endpoint=chat)
        ticket = entered if isinstance(entered, Ticket) else await entered
        writes[model] = ticket.writes
        ticket.leave(0)
        await one.admission.say(last=True)
    assert writes["tiny"] is None, "there is room for all of it"
    assert writes["other"] is not None
    assert writes["dear"] is not None
    assert 9_000 < writes["dear"] < 10_000 < 60_000 < writes["other"] < 67_000


def replace_answers(model: str) -> Any:
    of = Tables()
    of.apply(endpoint("chat", model=model, contextTokens=150_000))
    of.apply(taken("c1", of="chat", model=model))
    return replace(of.endpoints[PROJECT, "chat"])


def test_a_plan_without_models_asks_nothing_of_who_answers() -> None:
    prices = Prices(input=5, cached=1, output=9)
    vessel = Vessel(f"project/{PROJECT}", KNOWN["spend_micro"])
    ticket = Ticket(Need(100, 10, ("a",)), Row((vessel,)), Account(), prices, 1)
    counts = Counts(50, 5, 10)
    assert ticket.billed(counts, "b") is counts
    dearer = replace(prices, models={"b": (5, 1, 90)})
    ticket = Ticket(Need(100, 10, ("a",)), Row((vessel,)), Account(), dearer, 1)
    assert ticket.billed(counts, "a") is counts
    assert ticket.billed(counts, "b") == Counts(50, 5, 1), "no more than was held for another"


async def test_two_of_differing_price_answer_under_one_name(store: Store, clock: FakeClock) -> None:
    """Held by the dearer, billed by who answered, through real sockets and into the ledger."""
    one = Gateway(store, clock, "g")
    async with rig(admission=one.admission) as to:
        for name in ("tiny", "dear"):
            uid = await to.replica(f"c-{name}", of=name)
            to.tables.apply(endpoint(name, model=name))
            assert to.tables.endpoints[PROJECT, name].replicas[uid].model == name
        backends = [{"endpoint": name, "weight": 1} for name in ("tiny", "dear")]
        to.tables.apply(change("Endpoint", "front", {"spec": {"backends": backends}}))
        asked = {"model": "front", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        async with httpx.AsyncClient(headers={"authorization": "Bearer bsk_good"}) as client:
            for _ in range(4):
                answer = await client.post(f"{to.url}/chat/completions", json=asked)
                assert answer.status_code == 200
        paid = to.paid()
        assert sorted(record.model for record in paid) == ["dear", "dear", "tiny", "tiny"]
        prices = Prices.read(PLAN)
        least = prices.of("dear").tokens(read=len(orjson.dumps(asked)), cached=0, written=4)
        assert all((record.held_micro or 0) > least for record in paid), "whoever it would be"
        pending = to.spool.pending()
        assert pending is not None
        records = list(pending.records)
    batch = Batch(gateway_uid="g", spool_uid="s", first_sequence=1, records=records)
    await store.ledger.settle(UsageBatch.model_validate(batch.dump()))
    cost = sum(
        prices.of(one.model).tokens(read=one.input_tokens, cached=one.cached_input_tokens, written=one.output_tokens)
        for one in paid
    )
    rows = await store.ledger.entries()
    assert sorted(row.model for row in rows) == ["dear", "tiny"]
    assert 0 <= cost - (await kept.money(store)).used <= 3 * len(paid), "rows of several are rounded once"
    lines = derive(rows, Plan.model_validate(PLAN), start=0, end=kept.FAR).lines
    rates = {line.model: line.unit_price_micro for line in lines if line.meter == "output_tokens"}
    assert rates == {"tiny": 70_000, "dear": 20_000_000}


async def test_whose_key_has_no_money_bounded_takes_nobody_elses_prices_away(clock: FakeClock) -> None:
    """Of a bound that is not of money the api says no prices: those of the others of the project stand."""
    store = opened(":memory:", clock)
    await furnish(store, key={"budget": {"period": "Month", "micro": BOUND}})
    await store.objects.create(body("ApiKey", "free", spec={"limits": {"requestsPerMinute": 100}}), ALICE)
    one, asked = Gateway(store, clock, "g"), wanted(20, max_tokens=50)
    first = await one.enter(key(), asked)
    await one.serve(key("free", owner=""), asked)
    second = await one.enter(key(), asked)
    assert first.micro == second.micro > 0
    store.close()
