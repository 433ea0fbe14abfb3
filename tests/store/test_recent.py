"""What is known of objects that were just read: it is what the database says, whoever writes meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import Any

import pytest

from bessemer.core.errors import AlreadyExists, NotFound, Unavailable
from bessemer.core.ports import CONTROLLER, Scope, Stored
from bessemer.core.resource import Change, Key
from bessemer.store import Store
from bessemer.store.feed import Entry
from bessemer.store.recent import BYTES_MAX, MOST, Recent
from bessemer.store.sqlite import ReadSession
from tests.store.make import ALICE, body, read


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The names of the objects that were asked of the database, as they are asked for."""
    asked: list[Any] = []
    execute = ReadSession.execute

    def counted(session: ReadSession, statement: Any, values: Any) -> Any:
        asked.append(values.get("of_name"))
        return execute(session, statement, values)

    monkeypatch.setattr(ReadSession, "execute", counted)
    return asked


async def made(store: Store, kind: str = "Host", name: str = "a", **metadata: Any) -> Stored:
    return await store.objects.create(body(kind, name, namespace="", **metadata), ALICE)


def forget(store: Store) -> None:
    """As if it had been long ago."""
    recent = store._reader._recent
    assert recent is not None
    recent._kept.clear()


async def test_what_was_read_is_not_asked_for_again(file_store: Store, reads: list[Any]) -> None:
    stored = await made(file_store)
    forget(file_store)
    assert [await file_store.objects.get(stored.key) for _ in range(3)] == [stored] * 3
    assert reads == ["a"]


async def test_what_belongs_to_a_project_is_asked_for_each_time(file_store: Store, reads: list[Any]) -> None:
    stored = await file_store.objects.create(body("Thing", "a"), ALICE)
    forget(file_store)
    for _ in range(2):
        await file_store.objects.get(stored.key)
    assert reads == ["a", "a"]


async def test_what_was_just_written_is_not_asked_for(file_store: Store, reads: list[Any]) -> None:
    objects = file_store.objects
    stored = await objects.create(body("Thing", "a"), ALICE)
    assert await objects.get(stored.key) == stored
    written = await objects.replace(read(stored) | {"spec": {"size": 2}}, ALICE)
    assert await objects.get(stored.key) == written
    told = await objects.replace(read(written) | {"status": {"phase": "x"}}, CONTROLLER, part="status")
    assert await objects.get(stored.key) == told
    assert reads == []
    forget(file_store)
    assert await objects.get(stored.key) == told
    assert reads == ["a"]
    await objects.delete(stored.key, ALICE)
    with pytest.raises(NotFound):
        await objects.get(stored.key)


async def test_what_was_refused_is_not_known(file_store: Store) -> None:
    objects = file_store.objects
    stored = await objects.create(body("Thing", "a"), ALICE)
    with pytest.raises(AlreadyExists):
        await objects.create(body("Thing", "a") | {"spec": {"size": 9}}, ALICE)
    await objects.create(body("Thing", "b"), ALICE, dry_run=True)
    with pytest.raises(NotFound):
        await objects.get(Key("Thing", stored.key.namespace, "b"))
    assert await objects.get(stored.key) == stored


async def test_what_a_commit_that_fails_wrote_is_not_known(file_store: Store) -> None:
    objects, session = file_store.objects, file_store._committer._session
    stored = await objects.create(body("Thing", "a"), ALICE)
    commit = session.commit

    def broken(*left: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    session.commit = broken  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await objects.replace(read(stored) | {"spec": {"size": 2}}, ALICE)
    session.commit = commit  # type: ignore[method-assign]
    assert await objects.get(stored.key) == stored


async def test_a_write_is_seen_once_it_was_answered(file_store: Store) -> None:
    objects = file_store.objects
    stored = await made(file_store)
    for size in range(3):
        document = read(await objects.get(stored.key)) | {"spec": {"size": size}}
        written = await objects.replace(document, ALICE)
        assert await objects.get(stored.key) == written
    await objects.delete(stored.key, ALICE)
    with pytest.raises(NotFound):
        await objects.get(stored.key)
    again = await made(file_store)
    assert (await objects.get(stored.key)).uid == again.uid


async def test_while_a_commit_goes_on_the_database_is_asked(file_store: Store, reads: list[Any]) -> None:
    objects, session = file_store.objects, file_store._committer._session
    stored, other = await made(file_store), await made(file_store, name="b")
    forget(file_store)
    for one in (stored, other):
        await objects.get(one.key)
    reads.clear()
    begun, gate, commit = threading.Event(), threading.Event(), session.commit

    def held(*left: Any) -> None:
        begun.set()
        gate.wait(10)
        commit(*left)

    session.commit = held  # type: ignore[method-assign]
    writing = asyncio.ensure_future(objects.replace(read(stored) | {"spec": {"size": 2}}, ALICE))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    assert await objects.get(stored.key) == await objects.get(stored.key) == stored
    assert await objects.get(other.key) == other
    assert reads == ["a", "a"], "what it changes is asked for, and kept by nobody"
    gate.set()
    while (await objects.list(Scope(kind="Host"))).items[0].revision == stored.revision:
        pass  # committed, and not told yet
    assert read(await objects.get(stored.key))["spec"] == {"size": 2}
    assert await objects.get(stored.key) == await writing


async def test_while_nobody_knows_what_is_written_all_is_asked_for(file_store: Store, reads: list[Any]) -> None:
    stored = await made(file_store)
    await file_store.objects.get(stored.key)
    gate = threading.Event()
    going = asyncio.ensure_future(file_store._committer.submit(lambda tx: gate.wait(10), apart=True))
    await asyncio.sleep(0.01)
    reads.clear()
    for _ in range(2):
        await file_store.objects.get(stored.key)
    assert reads == ["a", "a"]
    gate.set()
    await going
    for _ in range(2):
        await file_store.objects.get(stored.key)
    assert reads == ["a", "a", "a"]


async def test_a_closed_store_knows_nothing(file_store: Store) -> None:
    stored = await made(file_store)
    await file_store.objects.get(stored.key)
    file_store.close()
    with pytest.raises(Unavailable):
        await file_store.objects.get(stored.key)


def test_few_are_kept_those_that_were_asked_for_last_and_none_that_is_large() -> None:
    recent = Recent({"Host"})
    every = [Stored(Key("Host", "", f"h{n}"), "u", n, 1, "", b"{}") for n in range(MOST + 1)]
    for one in every[:-1]:
        recent.keep(one)
    assert recent.get(every[0].key) == every[0]
    recent.keep(every[-1])
    assert recent.get(every[1].key) is None
    assert recent.get(every[0].key) == every[0]
    large = Stored(Key("Host", "", "large"), "u", 1, 1, "", b" " * (BYTES_MAX + 1))
    recent.keep(large)
    assert recent.get(large.key) is None
    change = Change(9, "MODIFIED", every[0].key, "u", "", b"{}", None)
    recent.move([Entry(change, "")])
    assert recent.get(every[0].key) is None
