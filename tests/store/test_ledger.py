"""The account: spools settled exactly once, corrections that name their row, filters."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, Forbidden, Invalid, NotFound
from bessemer.core.ports import CONTROLLER, Stored, Writer
from bessemer.core.quota import Quota
from bessemer.core.resource import Key
from bessemer.core.values import LedgerEntry, UsageBatch, UsageRecord
from bessemer.store import Store, periods
from bessemer.store.periods import Period, Periods
from bessemer.store.pool import View
from tests.store.make import ALICE, PROJECT, body, claim, inventory, read


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


async def test_what_was_ended_from_outside_is_lost_until_its_agent_says_otherwise(
    store: Store, clock: FakeClock
) -> None:
    await store.capacity.declare("h1", inventory())
    (ran, rested) = await store.capacity.take([claim("a"), claim("b", replica=1)], CONTROLLER)
    agent = Writer("agent", "h1")

    async def report(of: Stored, phase: str) -> None:
        body = read(await store.objects.get(of.key))
        await store.objects.replace({**body, "status": {"phase": phase}}, agent, part="status")

    await report(ran, "Running")
    await report(rested, "Stopped")
    await clock.advance(10)
    assert await store.ledger.lose([ran.uid, rested.uid, "nobody"]) == 1
    assert await store.ledger.lose([ran.uid]) == 0
    await clock.advance(100)
    await report(ran, "Starting")
    rows = [row for row in await store.ledger.entries() if row.claim_uid == ran.uid]
    start = rows[0].at
    assert [(row.state, row.at - start) for row in rows[1:]] == [("running", 0), ("lost", 10), ("deploying", 110)]


async def test_a_lost_name_of_the_gateway_settles_nothing_twice(store: Store) -> None:
    """The spool's own uid is the key: a gateway that comes back under another name sends what it had sent before."""
    assert await store.ledger.settle(batch(1, 5)) == 5
    renamed = batch(1, 7).model_copy(update={"gateway_uid": "g2"})
    assert await store.ledger.settle(renamed) == 7
    assert await tokens(store) == (7, sum(range(1, 8)), 70)


async def window(store: Store, **asked: Any) -> list[LedgerEntry]:
    return [entry async for entry in store.ledger.window(**asked)]


async def make_tenant(store: Store) -> tuple[str, str]:
    """``acme`` and its ``acme--lab``: their uids."""
    tenant = await store.objects.create(body("Tenant", "acme", namespace=""), ALICE)
    project = await store.objects.create(body("Project", PROJECT, namespace=""), ALICE)
    return tenant.uid, project.uid


async def end(store: Store, kind: str, name: str) -> None:
    """Delete an object and let its finalizers go, as its controller does."""
    doomed = read(await store.objects.delete(Key(kind, "", name), ALICE))
    if doomed["metadata"].get("finalizers"):
        doomed["metadata"]["finalizers"] = []
        await store.objects.replace(doomed, CONTROLLER)


async def test_a_tenant_of_the_same_name_inherits_nothing(store: Store, clock: FakeClock) -> None:
    await store.capacity.declare("h1", inventory())
    tenant, project = await make_tenant(store)
    await store.capacity.set_quota("tenant/acme", Quota(claims=3))
    (taken,) = await store.capacity.take([claim("a")], CONTROLLER)
    await clock.advance(100)
    await store.capacity.release(taken.key, CONTROLLER, fenced=True)
    await end(store, "Project", PROJECT)
    await end(store, "Tenant", "acme")
    assert [(row.tenant_uid, row.project_uid) for row in await store.ledger.entries()] == [(tenant, project)] * 2

    again, lab = await make_tenant(store)
    assert again != tenant
    uses = [(use.meter, use.used, use.limit) for use in await store.capacity.use("tenant/acme")]
    assert uses == [("projects", 1, None)], "the project that was made just now, and no bound"
    assert await store.capacity.use(f"project/{PROJECT}") == []
    everything = {"start": 0, "end": 1 << 40}
    assert await window(store, **everything, project_uid=lab) == []
    assert len(await window(store, **everything, project_uid=project)) == 2
    assert await window(store, **everything, project_uid="") == []


async def test_late_tokens_are_of_whoever_served_them(store: Store) -> None:
    await store.capacity.declare("h1", inventory())
    tenant, project = await make_tenant(store)
    (taken,) = await store.capacity.take([claim("chat")], CONTROLLER)
    await store.capacity.release(taken.key, CONTROLLER, fenced=True)
    await end(store, "Project", PROJECT)
    await end(store, "Tenant", "acme")
    await make_tenant(store)
    await store.ledger.settle(batch(1, 1))
    assert [(row.kind, row.tenant_uid, row.project_uid) for row in await store.ledger.entries()][-1] == (
        "tokens",
        tenant,
        project,
    )


async def test_a_tenant_goes_after_its_projects(store: Store) -> None:
    await make_tenant(store)
    with pytest.raises(Conflict, match="tenant acme still has project acme--lab"):
        await end(store, "Tenant", "acme")
    with pytest.raises(Forbidden, match="tenant acme is being deleted"):
        await store.objects.create(body("Project", "acme--new", namespace=""), ALICE)
    await store.objects.create(body("Project", "acmecorp--lab", namespace=""), ALICE)
    await end(store, "Project", PROJECT)
    await end(store, "Tenant", "acme")


async def test_a_window_holds_what_an_account_of_it_needs(store: Store, clock: FakeClock) -> None:
    """Claims that were alive in it, from their open row on; tokens of it; every correction; nothing of others."""
    await store.capacity.declare("h1", inventory())
    _, project = await make_tenant(store)
    at = int(clock.now())
    (old,) = await store.capacity.take([claim("old")], CONTROLLER)
    (long,) = await store.capacity.take([claim("long")], CONTROLLER)
    await store.ledger.settle(batch(1, 1))
    await clock.advance(100)
    await store.capacity.release(old.key, CONTROLLER, fenced=True)
    await clock.advance(100)
    (short,) = await store.capacity.take([claim("short")], CONTROLLER)
    await store.ledger.settle(batch(2, 1))
    await store.ledger.settle(batch(1, 1, spool="s2", project="other--one", endpoint="theirs"))
    await clock.advance(100)
    await store.capacity.release(short.key, CONTROLLER, fenced=True)
    await store.capacity.take([claim("late")], CONTROLLER)
    await store.ledger.correct(2, {"milli_cores": 1}, ALICE)
    rows = await window(store, start=at + 150, end=at + 250, project_uid=project)
    assert [(row.kind, row.workload_name, row.at - at) for row in rows] == [
        ("correction", "long", 300),
        ("open", "long", 0),
        ("open", "short", 200),
        ("tokens", "chat", 200),
    ]
    assert rows[1].claim_uid == long.uid


async def test_a_window_is_read_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long account no more is in memory than a page; several rows of one second stand astride two pages."""
    monkeypatch.setattr("bessemer.store.periods.SLICE", 3)
    await store.capacity.declare("h1", inventory())
    _, project = await make_tenant(store)
    for number in range(1, 12):
        await store.ledger.settle(batch(number, 1))
    for number in range(4):
        (taken,) = await store.capacity.take([claim(f"c{number}")], CONTROLLER)
        await store.capacity.release(taken.key, CONTROLLER, fenced=True)
    rows = [row async for row in Periods(store._reader).read(Period(project, 0, 1 << 40))]
    assert sorted(row[0] for row in rows) == list(range(1, 20))
    assert [row[0] for row in rows[-11:]] == list(range(1, 12))


async def test_a_claim_that_ends_while_the_window_is_read_is_in_it_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which claims stand is looked up in slices, and others write between two of them."""
    monkeypatch.setattr("bessemer.store.pool.SLICE", 2)
    await store.capacity.declare("h1", inventory())
    _, project = await make_tenant(store)
    taken = [(await store.capacity.take([claim(f"c{number}")], CONTROLLER))[0] for number in range(5)]
    pool, looks = store._reader.pool, asyncio.Event()  # type: ignore[attr-defined]
    look = pool.open

    async def opened() -> View:
        view: View = await look()
        looks.set()
        return view

    monkeypatch.setattr(pool, "open", opened)
    reading = asyncio.create_task(window(store, start=0, end=1 << 40, project_uid=project))
    await looks.wait()
    assert not reading.done()
    await store.capacity.release(taken[-1].key, CONTROLLER, fenced=True)
    assert [row.claim_uid for row in await reading] == [claimed.uid for claimed in taken]


async def test_claims_that_came_after_the_window_are_not_read(store: Store, clock: FakeClock) -> None:
    """However many have been closed since: of each one number is looked at, and no row."""
    await store.capacity.declare("h1", inventory())
    _, project = await make_tenant(store)
    at = int(clock.now())
    (old,) = await store.capacity.take([claim("old")], CONTROLLER)
    await clock.advance(100)
    for number in range(3):
        (taken,) = await store.capacity.take([claim(f"c{number}")], CONTROLLER)
        await store.capacity.release(taken.key, CONTROLLER, fenced=True)
    await store.capacity.release(old.key, CONTROLLER, fenced=True)
    asked: list[str] = []

    class Counting(Periods):
        async def _claim(self, uid: str, *, top: int, end: int) -> list[Any]:
            asked.append(uid)
            return await super()._claim(uid, top=top, end=end)

    rows = [row async for row in Counting(store._reader).read(Period(project, at, at + 50))]
    assert (len(rows), asked) == (1, [old.uid])


def test_windows_are_found_by_index(file_store: Store, tmp_path: Path) -> None:
    """None of the reads of a window goes through the rows, or the claims, of others."""
    connection = sqlite3.connect(tmp_path / "store.db")
    statements = {
        "a name": (periods._NAME, ["SEARCH ledger USING INDEX ledger_project (project_uid=?)"]),
        "standing": (
            periods._STANDING,
            [
                "SEARCH objects USING PRIMARY KEY (kind=? AND namespace=?)",
                "SEARCH opening USING INDEX ledger_once (claim_uid=? AND kind=?)",
            ],
        ),
        "closes": (
            periods._CLOSES,
            [
                "SEARCH ledger USING INDEX ledger_project (project_uid=? AND kind=? AND at>?)",
                "SEARCH opening USING INDEX ledger_once (claim_uid=? AND kind=?)",
            ],
        ),
        "tokens": (
            periods._TOKENS,
            ["SEARCH ledger USING INDEX ledger_project (project_uid=? AND kind=? AND at>? AND at<?)"],
        ),
        "corrections": (
            periods._CORRECTIONS,
            ["SEARCH ledger USING INDEX ledger_project (project_uid=? AND kind=? AND at>?)"],
        ),
        "a claim": (periods._CLAIM_ROWS, ["SEARCH ledger USING INDEX ledger_claim (claim_uid=? AND id<?)"]),
    }
    for name, (statement, wanted) in statements.items():
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
        values = [1] * len(compiled.positiontup or ())
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {compiled}", values)]
        assert [step for step in plan if "SUBQUERY" not in step] == wanted, (name, plan)
        assert "body" not in str(compiled), name
    connection.close()
