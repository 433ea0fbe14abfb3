"""Operations of one group: each stands or falls alone, whether the group ran once or again with savepoints."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, literal_column, select

from bessemer.core.errors import BessemerError, Conflict, Invalid, NotFound, QuotaExceeded, Unavailable
from bessemer.core.ports import Scope
from bessemer.core.resource import Change, Key
from bessemer.store import Store
from bessemer.store.feed import Entry
from bessemer.store.schema import audit, changes, counters, labels
from bessemer.store.transaction import Tx
from tests.store.make import ALICE, PROJECT, SYSTEM, body

LABELS = select(labels.c.name, labels.c.label, labels.c.value).where(labels.c.kind == "Thing")
CHANGES = select(changes.c.revision).order_by(changes.c.revision)
ONE_MORE = insert(changes)
NOTED = insert(counters)


async def together(store: Store, *asked: Any) -> list[Any]:
    """In one group: they are asked for while another is on its way."""
    return await asyncio.gather(*asked, return_exceptions=True)


def wrong_row(tx: Tx) -> None:
    """Put off a change of the first revision, which is there already."""
    nothing = {"at": 0, "type": 0, "kind": "", "namespace": "", "name": "", "uid": "", "host": "", "labels": ""}
    tx.add(ONE_MORE, revision=1, labels_before="", body=b"{}", **nothing)


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
    """The project has room, its tenant has not: the project's count is taken back, which was only put off."""
    await store.objects.create(body("Tenant", "acme", namespace="", spec={"quota": {"instances": 2}}), ALICE)
    asked = [store.objects.create(body("Instance", f"i{n}", labels={"n": str(n)}), ALICE) for n in range(4)]
    found = await together(store, *asked, store.objects.create(body("Thing", "t"), ALICE))
    assert [type(one) for one in found if isinstance(one, Exception)] == [QuotaExceeded, QuotaExceeded]
    assert not savepoints
    used = {use.meter: use.used for use in await store.capacity.use(f"project/{PROJECT}")}
    assert used["instances"] == 2
    assert len((await store.objects.list(Scope(kind="Instance"))).items) == 2
    revisions = [revision for (revision,) in await rows(store, CHANGES)]
    assert revisions == list(range(1, len(revisions) + 1))
    assert await store.audit.verify() is None


async def test_what_is_refused_after_it_wrote_at_once_makes_the_group_careful(
    store: Store, savepoints: Counter[str]
) -> None:
    def note(name: str, *, well: bool) -> Callable[[Tx], None]:
        def write(tx: Tx) -> None:
            tx.run(NOTED, name=f"note/{name}", value=1)
            if not well:
                raise Conflict("too late")

        return write

    found = await together(
        store, *(store._committer.submit(note(name, well=well)) for name, well in [("a", 1), ("b", 0), ("c", 1)])
    )
    assert [type(one).__name__ for one in found] == ["NoneType", "Conflict", "NoneType"]
    assert savepoints["savepoint"]
    left = select(counters.c.name).where(counters.c.name.like("note/%")).order_by(counters.c.name)
    assert await rows(store, left) == [("note/a",), ("note/c",)]


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

    asked = [store.objects.create(body("Thing", name), ALICE) for name in "ab"]
    found = await together(store, asked[0], store._committer.submit(wrong_row, looks=()), asked[1])
    assert [isinstance(one, Exception) for one in found] == [False, True, False]
    assert not isinstance(found[1], Unavailable), "the database is well"
    assert (found[0].revision, found[2].revision) == (2, 3)
    assert await store.audit.verify() is None


async def test_of_what_was_refused_with_the_commit_nobody_who_watches_hears(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One alone, so that nothing stands once it has run again."""
    await store.objects.create(body("Thing", "first"), ALICE)
    session: Any = store._committer._session
    published, commit = list[int](), session.commit
    publish = store._committer._publish
    monkeypatch.setattr(store._committer, "_publish", lambda found, to: (published.append(to), publish(found, to)))
    tries: list[Tx] = []

    def twice(tx: Tx) -> None:
        tries.append(tx)
        if len(tries) > 1:
            raise Conflict("not again")
        number = tx.next_revision()
        tx.entries.append(Entry(Change(number, "ADDED", Key("Thing", PROJECT, "x"), "u", "", b"{}", None), ""))
        if store._committer.foresees:  # a server refuses it with the commit, and a file is made to
            wrong_row(tx)

    def refused(*said: Any) -> None:
        monkeypatch.setattr(session, "commit", commit)
        raise session.refusals[0]("refused with the commit")

    if not store._committer.foresees:
        monkeypatch.setattr(session, "commit", refused)
    (found,) = await together(store, store._committer.submit(twice, looks=()))
    assert isinstance(found, Conflict)
    assert len(tries) == 2
    assert (published, store.revision) == ([], 1)
    watch = store.objects.watch(Scope(kind="Thing"), since=1)
    made = await store.objects.create(body("Thing", "a"), ALICE)
    assert made.revision == 2
    assert (await asyncio.wait_for(anext(watch), 60)).revision == 2
    await watch.aclose()


async def test_text_that_no_database_keeps_fails_alone_though_it_was_put_off(store: Store) -> None:
    def wrong(tx: Tx) -> None:
        nothing = {"at": 0, "type": 0, "namespace": "", "name": "", "uid": "", "host": "", "labels": ""}
        tx.add(ONE_MORE, revision=99, kind="a\0b", labels_before="", body=b"{}", **nothing)

    asked = [store.objects.create(body("Thing", name), ALICE) for name in "ab"]
    found = await together(store, asked[0], store._committer.submit(wrong, looks=()), asked[1])
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


@pytest.mark.parametrize("seed", range(5))
async def test_what_is_foreseen_in_part_or_not_leaves_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Writes of few names, with all, some or none of their looks, among them dry runs and
    operations that read the tables: each sees what those before it in the group wrote."""
    draw, model = random.Random(seed), dict[str, dict[str, str]]()
    submit = store._committer.submit

    async def forgetful(operation: Any, *, looks: Any = None, **how: Any) -> Any:
        kept = [look for look in looks if draw.random() < 0.9] if looks and draw.random() < 0.8 else None
        return await submit(operation, looks=kept, **how)

    monkeypatch.setattr(store._committer, "submit", forgetful)

    def sees(tx: Tx) -> set[Any]:
        return {tuple(row) for row in tx.all(LABELS)}

    def kept() -> set[Any]:
        return {(name, label, value) for name, said in model.items() for label, value in said.items()}

    for _ in range(14):
        asked, expected = [], list[Any]()
        for _ in range(draw.randint(1, 9)):
            name, said, chance = draw.choice("abcd"), {draw.choice("xyz"): draw.choice("12")}, draw.random()
            if chance < 0.4:
                dry = draw.random() < 0.2
                asked.append(store.objects.create(body("Thing", name, labels=said), ALICE, dry_run=dry))
                expected.append(name not in model)
                if not dry:
                    model.setdefault(name, said)
            elif chance < 0.6:
                asked.append(store.objects.replace(body("Thing", name, labels=said), ALICE))
                expected.append(name in model)
                if name in model:
                    model[name] = said
            elif chance < 0.85:
                asked.append(store.objects.delete(Key("Thing", PROJECT, name), ALICE))
                expected.append(model.pop(name, None) is not None)
            else:
                asked.append(submit(sees, looks=() if draw.random() < 0.5 else None))
                expected.append(kept())
        found = await together(store, *asked)
        seen = [one if isinstance(one, set) else not isinstance(one, BessemerError) for one in found]
        assert seen == expected
        assert set(await rows(store, LABELS)) == kept()
    revisions = [revision for (revision,) in await rows(store, CHANGES)]
    assert revisions == list(range(1, len(revisions) + 1))
    assert await store.audit.verify() is None


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_counted_within_groups_is_what_stands(store: Store, seed: int) -> None:
    """Instances against a bound, as many at once as may be."""
    draw, bound = random.Random(seed), 6
    await store.objects.create(body("Tenant", "acme", namespace="", spec={"quota": {"instances": bound}}), ALICE)
    for _ in range(10):
        asked = []
        for _ in range(draw.randint(1, 8)):
            name = draw.choice("abcdefghij")
            make = draw.random() < 0.6
            asked.append(store.objects.create(body("Instance", name), SYSTEM) if make else gone(store, name))
        found = await together(store, *asked)
        made = {item.key.name for item in (await store.objects.list(Scope(kind="Instance"))).items}
        used = {use.meter: use.used for use in await store.capacity.use("tenant/acme")}
        assert used["instances"] == len(made) <= bound
        assert not [one for one in found if isinstance(one, Unavailable)]
    assert await store.audit.verify() is None


async def gone(store: Store, name: str) -> None:
    """Deleted, and let go by its controller."""
    await store.objects.delete(Key("Instance", PROJECT, name), SYSTEM)
    await store.objects.replace(body("Instance", name, finalizers=[]), SYSTEM)
