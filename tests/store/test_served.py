"""How endpoints answered, as it is settled: beside the ledger's rows, once, and in the time in which it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.served import COARSE_SECONDS, FINE_KEPT_SECONDS, FINE_SECONDS, Asked, By, Served
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.store import Store
from tests.store.make import PROJECT, SYSTEM, agent, body, claim, inventory, read

NOW = 1_750_000_000


def record(number: int = 1, *, at: int = NOW, endpoint: str = "chat", key: str = "app", owner: str = "") -> UsageRecord:
    return UsageRecord(
        at=at,
        request_id=f"r{number}",
        project=PROJECT,
        endpoint=endpoint,
        endpoint_uid=f"uid-{endpoint}",
        api_key=key,
        model="smol",
        status=200,
        input_tokens=10,
        output_tokens=number,
        first_token_ms=20,
        latency_ms=20 + 10 * (number - 1),
        owner=owner or None,
        replica="claim-1",
    )


def batch(first: int, *records: UsageRecord, spool: str = "s1") -> UsageBatch:
    return UsageBatch(gateway_uid="g1", spool_uid=spool, first_sequence=first, records=list(records))


@pytest.fixture
async def project(store: Store) -> str:
    await store.objects.create(body("Tenant", "acme", namespace=""), SYSTEM)
    return (await store.objects.create(body("Project", PROJECT, namespace=""), SYSTEM)).uid


def asked(uid: str, by: By = "endpoint", *, grain: int = FINE_SECONDS) -> Asked:
    start = NOW - NOW % COARSE_SECONDS - COARSE_SECONDS
    return Asked(project_uid=uid, by=by, start=start, end=start + 3 * COARSE_SECONDS, step=grain, grain=grain)


async def sums(store: Store, of: Asked) -> dict[str, Served]:
    found: dict[str, Served] = {}
    async for _, names in store.figures.steps(of):
        for (name, _), values in names.items():
            found.setdefault(name, Served()).add(values.values)
    return found


async def test_sums_are_of_what_was_settled_however_often_it_came(store: Store, project: str) -> None:
    records = [record(1), record(2, key="other", owner="rob"), record(3, endpoint="words"), record(4)]
    for _ in range(2):
        await store.ledger.settle(batch(1, *records))
    await store.ledger.settle(batch(4, records[3], record(5)))
    for by, requests in (
        ("endpoint", {"chat": 4, "words": 1}),
        ("key", {"app": 4, "other": 1}),
        ("member", {"": 4, "rob": 1}),
        ("model", {"smol": 5}),
    ):
        for grain in (FINE_SECONDS, COARSE_SECONDS):
            found = await sums(store, asked(project, by, grain=grain))  # type: ignore[arg-type]
            assert {name: one["requests"] for name, one in found.items()} == requests
    (all_of_it,) = (await sums(store, asked(project, "model"))).values()
    rows = [row for row in await store.ledger.entries() if row.kind == "tokens"]
    assert all_of_it["output_tokens"] == sum(row.output_tokens for row in rows) == 15
    assert all_of_it["input_tokens"] == sum(row.input_tokens for row in rows) == 50
    between = all_of_it.between()
    assert between is not None
    assert between.mean == 10.0
    narrow = replace(asked(project, "key"), endpoint="words", key="app")
    assert {name: one["output_tokens"] for name, one in (await sums(store, narrow)).items()} == {"app": 3}
    assert not await sums(store, asked("another"))


async def test_a_request_counts_when_it_was_answered(store: Store, project: str, clock: FakeClock) -> None:
    """One that is told late, too; not one whose gateway's clock was wrong."""
    early, wrong = NOW - 1800, NOW + 40_000
    await store.ledger.settle(batch(1, record(1), record(2, at=early), record(3, at=wrong), record(4, at=5)))
    found = {at: names["chat", "smol"]["requests"] async for at, names in store.figures.steps(asked(project))}
    assert found == {NOW - NOW % FINE_SECONDS: 3, early - early % FINE_SECONDS: 1}


async def test_what_is_fine_is_kept_for_a_while_and_hours_for_good(
    store: Store, project: str, clock: FakeClock
) -> None:
    await store.ledger.settle(batch(1, record(1)))
    await clock.advance(FINE_KEPT_SECONDS + COARSE_SECONDS)
    await store.ledger.settle(batch(2, record(2, at=int(clock.now()))))
    assert not await sums(store, asked(project))
    assert (await sums(store, asked(project, grain=COARSE_SECONDS)))["chat"]["requests"] == 1


async def test_what_pays_nothing_is_in_no_row_and_in_no_sum(store: Store, project: str) -> None:
    unpaid = record(9).model_copy(update={"ended": "unpaid", "input_tokens": 0, "output_tokens": 0})
    assert await store.ledger.settle(batch(1, unpaid)) == 1
    assert await store.ledger.entries() == []
    assert not await sums(store, asked(project))
    assert await store.ledger.settle(batch(1, unpaid, record(1))) == 2
    assert [row.requests for row in await store.ledger.entries()] == [1]


async def test_what_was_billed_and_counted_stays_when_the_replica_is_gone(store: Store, project: str) -> None:
    """By how answers ended; what an engine counted as its host said last, and of a claim that says nothing, nothing."""
    await store.capacity.declare("h1", inventory())
    (taken,) = await store.capacity.take([claim("chat")], SYSTEM)
    unpaid = record(9).model_copy(update={"ended": "unpaid", "input_tokens": 0, "output_tokens": 0})
    cut = record(3).model_copy(update={"ended": "cut"})
    mine = [one.model_copy(update={"replica": taken.uid}) for one in (record(1), record(2), cut, unpaid)]
    await store.ledger.settle(batch(1, *mine, record(5).model_copy(update={"replica": ""})))
    (replica,) = await store.figures.replicas(project)
    assert (replica.uid, replica.counted) == (taken.uid, None)
    assert {how: (one.requests, one.read, one.wrote) for how, one in replica.billed.items()} == {
        "": (2, 20, 3),
        "cut": (1, 10, 3),
        "unpaid": (1, 0, 0),
    }
    counted = {"process": "1:2", "at": NOW, "tokens": [30, 7], "probes": [1, 1], "context": 64}
    document = read(taken)
    document["status"] = {"phase": "Gone", "detail": {"counted": counted}}
    await store.objects.replace(document, agent("h1"), part="status")
    await store.capacity.release(taken.key, SYSTEM)
    (replica,) = await store.figures.replicas(project)
    assert (replica.host, replica.gone, len(replica.billed)) == ("h1", True, 3)
    assert replica.counted is not None
    assert (replica.counted.tokens, replica.counted.probes) == ((30, 7), (1, 1))
    (silent,) = await store.capacity.take([claim("other")], SYSTEM)
    await store.capacity.release(silent.key, SYSTEM, fenced=True)
    assert len(await store.figures.replicas(project)) == 1
