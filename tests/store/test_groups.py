"""Operations of one group: each stands or falls alone, whether the group ran once or again with savepoints."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import insert, literal_column, select

from bessemer.core.errors import BessemerError, Conflict, Invalid, NotFound, QuotaExceeded, Unavailable
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.store import Store
from bessemer.store.schema import audit, changes, labels
from bessemer.store.transaction import Tx
from tests.store.make import ALICE, PROJECT, body

LABELS = select(labels.c.name, labels.c.label, labels.c.value).where(labels.c.kind == "Thing")
CHANGES = select(changes.c.revision).order_by(changes.c.revision)
ONE_MORE = insert(changes)


async def together(store: Store, *asked: Any) -> list[Any]:
    """In one group: they are asked for while another is on its way."""
    return await asyncio.gather(*asked, return_exceptions=True)


async def rows(store: Store, statement: Any) -> list[Any]:
    return [tuple(row) for row in await store._reader.ask(statement)]


@pytest.fixture
def savepoints(store: Store, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the store's session was asked for one."""
    session, seen = store._committer._session, Counter[str]()
    take = session.savepoint

    def counted() -> None:
        seen["savepoint"] += 1
        take()

    monkeypatch.setattr(session, "savepoint", counted)
    return seen


async def test_what_is_refused_before_it_wrote_costs_nobody_a_savepoint(store: Store, savepoints: Counter[str]) -> None:
    await store.objects.create(body("Thing", "there"), ALICE)
    names = ["a", "there", "b", "there", "c"]
    found = await together(store, *(store.objects.create(body("Thing", name), ALICE) for name in names))
    assert [type(one).__name__ for one in found] == ["Stored", "AlreadyExists", "Stored", "AlreadyExists", "Stored"]
    assert not savepoints
    assert [one.revision for one in found if not isinstance(one, Exception)] == [2, 3, 4]
    assert await store.audit.verify() is None


async def test_what_is_refused_after_it_wrote_leaves_nothing_and_takes_nobody_along(
    store: Store, savepoints: Counter[str]
) -> None:
    """The project has room, its tenant has not: the project's count is taken back."""
    await store.objects.create(body("Tenant", "acme", namespace="", spec={"quota": {"instances": 2}}), ALICE)
    asked = [store.objects.create(body("Instance", f"i{n}", labels={"n": str(n)}), ALICE) for n in range(4)]
    found = await together(store, *asked, store.objects.create(body("Thing", "t"), ALICE))
    assert [type(one) for one in found if isinstance(one, Exception)] == [QuotaExceeded, QuotaExceeded]
    assert savepoints["savepoint"]
    used = {use.meter: use.used for use in await store.capacity.use(f"project/{PROJECT}")}
    assert used["instances"] == 2
    assert len((await store.objects.list(Scope(kind="Instance"))).items) == 2
    revisions = [revision for (revision,) in await rows(store, CHANGES)]
    assert revisions == list(range(1, len(revisions) + 1))
    assert await store.audit.verify() is None


async def test_a_dry_run_among_others_leaves_nothing(store: Store) -> None:
    dry = [store.objects.create(body("Thing", f"d{n}", labels={"dry": "yes"}), ALICE, dry_run=True) for n in range(3)]
    wet = [store.objects.create(body("Thing", f"w{n}", labels={"dry": "no"}), ALICE) for n in range(3)]
    found = await together(store, *(one for pair in zip(dry, wet, strict=True) for one in pair))
    assert not [one for one in found if isinstance(one, Exception)]
    assert sorted({value for _, _, value in await rows(store, LABELS)}) == ["no"]
    assert [item.key.name for item in (await store.objects.list(Scope(kind="Thing"))).items] == ["w0", "w1", "w2"]
    assert await store.audit.verify() is None


async def test_a_row_that_was_put_off_and_cannot_be_fails_alone(store: Store) -> None:
    """As the writes of a defect would: a revision that is there already."""
    await store.objects.create(body("Thing", "first"), ALICE)

    def wrong(tx: Tx) -> None:
        nothing = {"at": 0, "type": 0, "kind": "", "namespace": "", "name": "", "uid": "", "host": "", "labels": ""}
        tx.add(ONE_MORE, revision=1, labels_before="", body=b"{}", **nothing)

    asked = [store.objects.create(body("Thing", name), ALICE) for name in "ab"]
    found = await together(store, asked[0], store._committer.submit(wrong), asked[1])
    assert [isinstance(one, Exception) for one in found] == [False, True, False]
    assert not isinstance(found[1], Unavailable), "the database is well"
    assert (found[0].revision, found[2].revision) == (2, 3)
    assert await store.audit.verify() is None


async def test_text_that_no_database_keeps_fails_alone_though_it_was_put_off(store: Store) -> None:
    def wrong(tx: Tx) -> None:
        nothing = {"at": 0, "type": 0, "namespace": "", "name": "", "uid": "", "host": "", "labels": ""}
        tx.add(ONE_MORE, revision=99, kind="a\0b", labels_before="", body=b"{}", **nothing)

    asked = [store.objects.create(body("Thing", name), ALICE) for name in "ab"]
    found = await together(store, asked[0], store._committer.submit(wrong), asked[1])
    assert [isinstance(one, Invalid) for one in found] == [False, True, False]
    assert (found[0].revision, found[2].revision) == (1, 2)


async def test_a_read_that_fails_fails_alone(store: Store) -> None:
    """A server takes nothing more in that transaction."""

    def wrong(tx: Tx) -> None:
        if tx.one(select(literal_column("1 / 0"))) == (None,):
            raise Conflict("a file divides by nothing, and answers nothing")

    asked = [store.objects.create(body("Thing", name), ALICE) for name in "ab"]
    found = await together(store, asked[0], store._committer.submit(wrong), asked[1])
    assert [isinstance(one, Exception) for one in found] == [False, True, False]
    assert await store.audit.verify() is None


@pytest.mark.parametrize("seed", range(6))
async def test_a_group_leaves_what_one_after_the_other_would(store: Store, seed: int) -> None:
    """Makes, changes of labels and deletions of few names, in groups, beside a model that takes them one by one."""
    draw, model = random.Random(seed), dict[str, dict[str, str]]()
    for _ in range(12):
        asked, expected = [], list[bool]()
        for _ in range(draw.randint(1, 9)):
            name, said = draw.choice("abc"), {draw.choice("xyz"): draw.choice("12")}
            if draw.random() < 0.6:
                asked.append(store.objects.create(body("Thing", name, labels=said), ALICE))
                expected.append(name not in model)
                model.setdefault(name, said)
            else:
                asked.append(store.objects.delete(Key("Thing", PROJECT, name), ALICE))
                expected.append(model.pop(name, None) is not None)
        found = await together(store, *asked)
        assert [not isinstance(one, BessemerError | NotFound) for one in found] == expected
        kept = {(name, label, value) for name, said in model.items() for label, value in said.items()}
        assert set(await rows(store, LABELS)) == kept
    revisions = [revision for (revision,) in await rows(store, CHANGES)]
    assert revisions == list(range(1, len(revisions) + 1))
    assert len(await rows(store, select(audit.c.id))) == len(revisions)
    assert await store.audit.verify() is None
