"""Groups on a server: how often it is asked, and what becomes of a group whose road is cut."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import AlreadyExists, NotFound, Unavailable
from bessemer.core.ports import Scope, Stored
from bessemer.core.resource import Key
from bessemer.store import Store, open_store
from bessemer.store.exchange import Exchange
from bessemer.store.links import Link
from bessemer.store.runner import CAREFUL_SECONDS
from bessemer.store.transaction import COUNTER, Tx
from tests.store.conftest import KEY, KINDS
from tests.store.make import ALICE, PROJECT, SYSTEM, body

pytestmark = pytest.mark.real
MANY = 32


@pytest.fixture
async def store(database: str, clock: FakeClock) -> AsyncIterator[Store]:
    opened = open_store(database, clock=clock, kinds=KINDS, seal_key=KEY)
    await opened.objects.create(body("Project", PROJECT, namespace=""), SYSTEM)
    yield opened
    opened.close()


@pytest.fixture
def trips(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each time that the writing connection waits for the server."""
    link: Any = store._committer._session._link
    seen: list[str] = []
    for of, name in ((Link, "say"), (Link, "run"), (Exchange, "__init__")):
        ask = getattr(of, name)

        def noted(self: Any, *said: Any, ask: Any = ask, name: str = name, **more: Any) -> Any:
            if link in (self, *said[:1]):
                seen.append(name)
            return ask(self, *said, **more)

        monkeypatch.setattr(of, name, noted)
    return seen


async def gathered(*asked: Any) -> list[Any]:
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize("kind", ["Thing", "Instance", "Host"])
@pytest.mark.parametrize("count", [1, MANY])
async def test_a_group_of_any_size_is_two_round_trips(store: Store, trips: list[str], kind: str, count: int) -> None:
    space = "" if kind == "Host" else PROJECT
    names = [f"x{number}" for number in range(count)]
    made = [body(kind, name, namespace=space, labels={"n": name}) for name in names]
    for asked in (
        [store.objects.create(one, SYSTEM) for one in made],
        [store.objects.replace(one | {"status": {"phase": "Up"}}, SYSTEM, part="status") for one in made],
        [store.objects.replace(one | {"spec": {"size": 2}}, SYSTEM) for one in made],
        [store.objects.delete(Key(kind, space, name), SYSTEM) for name in names],
    ):
        del trips[:]
        found = await gathered(*asked)
        assert [one for one in found if isinstance(one, Exception)] == []
        assert trips == ["__init__"] * 2
    assert await store.audit.verify() is None


async def test_what_was_not_foreseen_comes_again_by_itself(store: Store, trips: list[str]) -> None:
    runs: list[bool] = []

    def asks(tx: Tx) -> int:
        runs.append(tx.mute)
        number: int = tx.one(COUNTER, of_name="revision")[0]
        return number

    asked = [store.objects.create(body("Thing", name), ALICE) for name in "ab"]
    before = store.revision
    found = await gathered(asked[0], store._committer.submit(asks, looks=()), asked[1])
    assert runs == [True, False]
    assert [found[0].revision, found[1], found[2].revision] == [before + 1, before + 1, before + 2]


async def test_a_name_is_one_objects_within_a_group(store: Store, trips: list[str]) -> None:
    key = Key("Thing", PROJECT, "a")
    found = await gathered(
        store.objects.create(body("Thing", "a"), ALICE),
        store.objects.create(body("Thing", "a"), ALICE),
        store.objects.replace(body("Thing", "a", spec={"size": 3}), ALICE),
        store.objects.replace(body("Thing", "b"), ALICE),
    )
    assert [type(one).__name__ for one in found] == ["Stored", "AlreadyExists", "Stored", "NotFound"]
    assert trips == ["__init__"] * 2
    found = await gathered(
        store.objects.delete(key, ALICE),
        store.objects.delete(key, ALICE),
        store.objects.create(body("Thing", "a"), ALICE),
    )
    assert [type(one).__name__ for one in found] == ["Stored", "NotFound", "Stored"]
    assert trips == ["__init__"] * 4
    assert b'"size":1' in (await store.objects.get(key)).body


async def test_a_text_that_no_database_takes_is_refused_to_whoever_says_it(store: Store) -> None:
    found = await gathered(
        store.objects.create(body("Thing", "a"), ALICE),
        store.objects.create(body("Thing", "b", labels={"x": "\ud800"}), ALICE),
        store.objects.create(body("Thing", "c"), ALICE),
    )
    assert [isinstance(one, Exception) for one in found] == [False, True, False]
    assert not isinstance(found[1], Unavailable)


async def test_a_connection_that_was_lost_between_two_groups_is_made_anew(store: Store) -> None:
    store._committer._session._link.cut()  # type: ignore[attr-defined]
    found = await gathered(*(store.objects.create(body("Thing", name), ALICE) for name in "abc"))
    assert [type(one).__name__ for one in found] == ["Stored"] * 3


@pytest.mark.parametrize("times", [1, 2])
async def test_a_connection_that_is_lost_amid_a_group_has_it_run_once_more(store: Store, times: int) -> None:
    """Of which nothing was done: where that is lost, too, it fails whole."""
    session: Any = store._committer._session
    closing, left = session.closing, list(range(times))

    def lost(batches: Any) -> Any:
        if left:
            left.pop()
            session._link.cut()
        return closing(batches)

    session.closing = lost
    found = await gathered(*(store.objects.create(body("Thing", name), ALICE) for name in "ab"))
    assert [type(one) for one in found] == [Stored if times == 1 else Unavailable] * 2
    there = [item.key.name for item in (await store.objects.list(Scope(kind="Thing"))).items]
    assert there == (["a", "b"] if times == 1 else [])
    await store.objects.create(body("Thing", "c"), ALICE)
    assert await store.audit.verify() is None


async def test_a_loop_that_keeps_the_database_waiting_costs_nobody_his_write(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends a transaction in which nothing is said for long."""
    session: Any = store._committer._session
    session._link.say(b"SET idle_in_transaction_session_timeout = 50")
    opened = session.opened

    def busy(exchange: Any) -> None:
        monkeypatch.setattr(session, "opened", opened)
        opened(exchange)
        time.sleep(0.3)

    monkeypatch.setattr(session, "opened", busy)
    links = session.links
    found = await gathered(*(store.objects.create(body("Thing", name), ALICE) for name in "ab"))
    assert [type(one) for one in found] == [Stored] * 2
    assert session.links == links + 1
    assert await store.audit.verify() is None


@pytest.mark.parametrize("step", ["opening", "opened", "closing", "closed", "leaving"])
@pytest.mark.parametrize("error", [struct.error("a double"), KeyError("x")])
async def test_what_nobody_expects_holds_nobody_up(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    session: Any = store._committer._session
    works, broken = getattr(session, step), [True]

    def breaks(*said: Any) -> Any:
        if broken and (broken[0] is True or broken.pop()):
            raise error
        return works(*said)

    async def made(name: str) -> Any:
        asked = store.objects.delete(Key("Thing", "", name), ALICE) if step == "leaving" else None
        return (await asyncio.wait_for(gathered(asked or store.objects.create(body("Thing", name), ALICE)), 60))[0]

    monkeypatch.setattr(session, step, breaks)
    assert isinstance(await made("a"), NotFound if step == "leaving" else Unavailable)
    await clock.advance(2 * CAREFUL_SECONDS)
    broken[:] = ["once"]
    assert isinstance(await made("b"), NotFound if step == "leaving" else Stored)
    assert isinstance(await made("c"), NotFound if step == "leaving" else Stored)


async def test_a_database_without_its_counter_is_said_to_be_unavailable(store: Store, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        asked = "DELETE FROM counters WHERE name = 'revision' RETURNING value"
        (revision,) = connection.execute(asked).fetchone() or (0,)
        found = await asyncio.wait_for(gathered(store.objects.create(body("Thing", "a"), ALICE)), 60)
        assert [type(one) for one in found] == [Unavailable]
        connection.execute("INSERT INTO counters (name, value) VALUES ('revision', %s)", [revision])
    await store.objects.create(body("Thing", "a"), ALICE)


async def test_the_closing_of_the_store_waits_for_a_group_in_the_air(store: Store, database: str) -> None:
    asked = [asyncio.ensure_future(store.objects.create(body("Thing", name), ALICE)) for name in "ab"]
    while store._committer._flying is None:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    late = asyncio.ensure_future(store.objects.create(body("Thing", "a"), ALICE))
    await asyncio.sleep(0)
    store.close()
    found = await gathered(*asked, late)
    assert [type(one) for one in found[2:]] == [AlreadyExists]
    assert [one.key.name for one in found[:2]] == ["a", "b"]


def test_a_store_is_closed_after_its_loop_with_a_group_in_the_air(database: str, clock: FakeClock) -> None:
    opened = open_store(database, clock=clock, kinds=KINDS, seal_key=KEY)

    async def leave() -> None:
        await opened.objects.create(body("Project", PROJECT, namespace=""), SYSTEM)
        left = asyncio.ensure_future(opened.objects.create(body("Thing", "a"), ALICE))
        while opened._committer._flying is None:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        left.cancel()

    asyncio.run(leave())
    closing = threading.Thread(target=opened.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT name FROM objects WHERE kind = 'Thing'").fetchall() == [("a",)]


async def test_an_answer_larger_than_a_socket_holds_is_taken_and_given(store: Store) -> None:
    text = "x" * 200_000
    found = await gathered(
        *(store.objects.create(body("Thing", f"t{n}", spec={"text": text}), ALICE) for n in range(40))
    )
    assert [type(one).__name__ for one in found] == ["Stored"] * 40
    again = await gathered(*(store.objects.replace(body("Thing", f"t{n}"), ALICE) for n in range(40)))
    assert [type(one).__name__ for one in again] == ["Stored"] * 40


async def test_what_is_not_there_is_told_without_a_commit(store: Store, trips: list[str]) -> None:
    found = await gathered(*(store.objects.delete(Key("Thing", PROJECT, name), ALICE) for name in "ab"))
    assert [type(one) for one in found] == [NotFound] * 2
    assert trips == ["__init__"] * 2
    assert not store._committer._session.alive  # type: ignore[attr-defined]
