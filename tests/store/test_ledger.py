"""The account: spools settled exactly once, corrections that name their row, filters."""

from __future__ import annotations

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, Forbidden, Invalid, NotFound
from bessemer.core.ports import CONTROLLER
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.store import Store
from tests.store.make import ALICE, PROJECT, claim, inventory


def record(number: int, *, endpoint: str = "chat", key: str = "app", project: str = PROJECT) -> UsageRecord:
    return UsageRecord(
        at=1_749_999_000,
        request_id=f"r{number}",
        project=project,
        endpoint=endpoint,
        endpoint_uid=f"uid-{endpoint}",
        api_key=key,
        model="smol",
        status=200,
        input_tokens=number,
        cached_input_tokens=1,
        output_tokens=10,
    )


def batch(first: int, count: int, *, spool: str = "s1", **more: str) -> UsageBatch:
    records = [record(number, **more) for number in range(first, first + count)]
    return UsageBatch(gateway_uid="g1", spool_uid=spool, first_sequence=first, records=records)


async def tokens(store: Store) -> tuple[int, int, int]:
    rows = await store.ledger.entries()
    return sum(r.requests for r in rows), sum(r.input_tokens for r in rows), sum(r.output_tokens for r in rows)


async def test_a_batch_is_one_row_per_endpoint_key_and_model(store: Store) -> None:
    mixed = batch(1, 2).model_copy(update={"records": [record(1), record(2), record(3, key="other")]})
    assert await store.ledger.settle(mixed) == 3
    first, second = await store.ledger.entries()
    assert (first.kind, first.tenant, first.project, first.workload_kind) == ("tokens", "acme", PROJECT, "Endpoint")
    assert (first.api_key, first.requests, first.input_tokens, first.cached_input_tokens) == ("app", 2, 3, 2)
    assert (first.output_tokens, first.model, first.at, first.fake) == (20, "smol", 1_750_000_000, False)
    assert (second.api_key, second.requests) == ("other", 1)


async def test_records_are_settled_once_however_they_arrive(store: Store) -> None:
    assert await store.ledger.settle(batch(1, 5)) == 5
    assert await store.ledger.settle(batch(1, 5)) == 5
    assert await store.ledger.settle(batch(3, 5)) == 7
    assert await store.ledger.settle(batch(2, 3)) == 7
    assert await store.ledger.settle(batch(8, 0)) == 7
    assert await tokens(store) == (7, sum(range(1, 8)), 70)


async def test_a_gap_is_refused_and_says_what_is_missing(store: Store) -> None:
    with pytest.raises(Conflict, match="records from 1 on are missing"):
        await store.ledger.settle(batch(2, 1))
    await store.ledger.settle(batch(1, 5))
    with pytest.raises(Conflict, match="settled up to 5: records from 6 on are missing"):
        await store.ledger.settle(batch(7, 1))
    with pytest.raises(Invalid):
        await store.ledger.settle(batch(0, 1))
    assert await store.ledger.settle(batch(1, 2, spool="s2")) == 2


async def test_tokens_of_a_fake_endpoint_say_so(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    key, spec, metadata = claim("chat")
    await store.capacity.take([(key, spec.model_copy(update={"fake": True}), metadata)], CONTROLLER)
    await store.ledger.settle(batch(1, 1))
    assert [row.fake for row in await store.ledger.entries()] == [True, True]


async def test_a_correction_names_its_row(store: Store, clock: FakeClock) -> None:
    await store.ledger.settle(batch(1, 2))
    await clock.advance(100)
    correction = await store.ledger.correct(1, {"output_tokens": 5}, ALICE)
    assert (correction.kind, correction.corrects, correction.output_tokens) == ("correction", 1, 5)
    assert (correction.input_tokens, correction.at) == (3, 1_750_000_100)
    assert (await store.ledger.entries())[-1] == correction
    assert [row.verb for row in await store.audit.rows()] == ["correct"]
    with pytest.raises(NotFound):
        await store.ledger.correct(99, {"output_tokens": 5}, ALICE)
    for wrong in ({"output_tokens": -1}, {"price": 1}, {"at": 1}):
        with pytest.raises(Invalid):
            await store.ledger.correct(1, wrong, ALICE)
    with pytest.raises(Forbidden):
        await store.ledger.correct(1, {}, CONTROLLER)


async def test_a_corrected_interval_goes_on(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    await store.ledger.correct(1, {"milli_cores": 1}, ALICE)
    await store.capacity.release(taken.key, CONTROLLER, fenced=True)
    assert [row.kind for row in await store.ledger.entries()] == ["open", "correction", "close"]


async def test_entries_are_filtered(store: Store, clock: FakeClock) -> None:
    await store.ledger.settle(batch(1, 1))
    await clock.advance(50)
    await store.ledger.settle(batch(1, 1, spool="s2", project="other--one"))
    assert [row.project for row in await store.ledger.entries(project=PROJECT)] == [PROJECT]
    assert [row.tenant for row in await store.ledger.entries(tenant="other")] == ["other"]
    assert len(await store.ledger.entries(before=1_750_000_050)) == 1
    assert len(await store.ledger.entries(tenant="acme", project="other--one")) == 0
