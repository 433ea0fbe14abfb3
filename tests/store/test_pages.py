"""Lists in pages: of one revision, whoever writes and whichever process is asked; what is held for them, for whom."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Expired, Malformed, Unavailable
from bessemer.core.ports import Asker, Page, Scope
from bessemer.core.resource import Key
from bessemer.store import Store, apart, held, open_store
from bessemer.store.continuing import INCONSISTENT, Seal, Token
from bessemer.store.pool import SLICE
from bessemer.store.reader import NEWER
from tests.store.conftest import KEY, KINDS
from tests.store.make import ALICE, PROJECT, body

THINGS = Scope(kind="Thing")
HOLDERS = """FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'
    AND query LIKE '%pg_export_snapshot%'"""
"""Who holds snapshots: a page's own connection has not said that, and is given back in its time."""
ANN, EVE = Asker("user:ann", "acme"), Asker("user:eve", "other")


async def make(store: Store, *names: str) -> None:
    for name in names:
        await store.objects.create(body("Thing", name), ALICE)


def names(*pages: Page) -> list[str]:
    return [item.key.name for page in pages for item in page.items]


async def rest(store: Store, first: Page, *, asker: Asker = ANN, limit: int = 0) -> list[str]:
    """What follows a page."""
    pages = [first]
    while pages[-1].next:
        pages.append(await store.objects.list(THINGS, limit=limit, after=pages[-1].next, asker=asker))
        assert pages[-1].revision == first.revision
    return names(*pages[1:])


async def began(store: Store, asker: Asker = ANN) -> Page:
    return await store.objects.list(THINGS, limit=1, asker=asker)


async def test_a_list_in_pages_is_of_one_revision(store: Store) -> None:
    await make(store, *(f"t{i}" for i in range(10)))
    seen: list[str] = []
    after = ""
    for expected in (6, 2, 0):
        page = await store.objects.list(THINGS, limit=4, after=after)
        seen += names(page)
        assert (page.revision, page.remaining) == (10, expected)
        after = page.next
        await make(store, f"new{expected}")
        if expected == 6:
            await store.objects.delete(Key("Thing", PROJECT, "t9"), ALICE)
    assert after == ""
    assert seen == [f"t{i}" for i in range(10)]
    assert store.metrics.snapshots == 0


async def test_a_page_that_ends_the_list_says_so(store: Store) -> None:
    await make(store, "a", "b", "c")
    page = await store.objects.list(THINGS, limit=3)
    assert (len(page.items), page.next, page.remaining) == (3, "", 0)


async def test_a_page_may_be_asked_for_again(store: Store) -> None:
    """Its answer was lost on the way, perhaps."""
    await make(store, "a", "b", "c")
    first = await began(store)
    await make(store, "d")
    second, again = [await store.objects.list(THINGS, limit=1, after=first.next, asker=ANN) for _ in range(2)]
    assert names(second) == names(again) == ["b"]
    assert await rest(store, again) == ["c"]


async def test_whoever_comes_back_too_late_may_go_on_at_what_there_is(store: Store, clock: FakeClock) -> None:
    await make(store, "a", "b", "d", "e")
    first = await store.objects.list(THINGS, limit=2, asker=ANN)
    await clock.advance(61)
    await store.tidy()
    assert store.metrics.snapshots == 0
    await make(store, "b2")
    await store.objects.delete(Key("Thing", PROJECT, "d"), ALICE)
    for _ in range(2):
        with pytest.raises(Expired) as expired:
            await store.objects.list(THINGS, limit=2, after=first.next, asker=ANN)
    assert expired.value.message == INCONSISTENT
    with pytest.raises(Malformed):
        await store.objects.list(THINGS, after=expired.value.proceed, asker=EVE)
    page = await store.objects.list(THINGS, limit=1, after=expired.value.proceed, asker=ANN)
    assert (names(page), page.revision, page.remaining) == (["b2"], 6, 1)
    await make(store, "c")
    assert await rest(store, page) == ["e"], "and from there on it is of one revision again"


async def test_a_token_is_one_askers_for_one_kind(store: Store) -> None:
    await make(store, "a", "b")
    token = (await began(store)).next
    for scope, asker, said in (
        (THINGS, EVE, token),
        (Scope(kind="Guarded"), ANN, token),
        (THINGS, ANN, token[:10] + ("A" if token[10] != "A" else "B") + token[11:]),
        (THINGS, ANN, token[:-4]),
        (THINGS, ANN, token[:8]),
        (THINGS, ANN, "é"),
        (THINGS, ANN, "a token"),
        (THINGS, ANN, "zzz"),
    ):
        with pytest.raises(Malformed):
            await store.objects.list(scope, after=said, asker=asker)
    assert names(await store.objects.list(THINGS, after=token, asker=ANN)) == ["b"]


async def test_a_token_of_another_key_or_release_has_its_client_list_anew(store: Store) -> None:
    """client-go's pager does so at 410, and gives up at 400."""
    await make(store, "a", "b")
    of_before = base64.urlsafe_b64encode(f"{'0' * 16}/{PROJECT}/a".encode()).decode()
    of_another = Seal(bytes(32)).write(Token(2, "", "0", 1 << 40, (PROJECT, "a")), "Thing", asker=ANN)
    for said in (of_before, of_another, "A" * 100_000):
        with pytest.raises(Expired) as expired:
            await store.objects.list(THINGS, after=said, asker=ANN)
        assert expired.value.proceed == ""


async def test_no_list_goes_on_for_ever(store: Store, clock: FakeClock) -> None:
    await make(store, "a", "b", "c")
    after = (await began(store)).next
    await make(store, "d")
    for _ in range(17):
        await clock.advance(50)
        page = await store.objects.list(THINGS, limit=1, after=after, asker=ANN)
        assert names(page) == ["b"]
    await clock.advance(50)
    for said in (after, page.next):
        with pytest.raises(Expired) as expired:
            await store.objects.list(THINGS, limit=1, after=said, asker=ANN)
    assert await rest(store, await store.objects.list(THINGS, after=expired.value.proceed, limit=1, asker=ANN)) == ["d"]
    await clock.advance(11)
    await store.tidy()
    assert store.metrics.snapshots == 0


async def test_lists_of_one_revision_share_a_snapshot(store: Store) -> None:
    await make(store, "a", "b", "c")
    pages = [await began(store) for _ in range(20)]
    assert store.metrics.snapshots == 1
    await make(store, "d")
    for page in pages:
        assert store.metrics.snapshots == 1
        assert await rest(store, page) == ["b", "c"]
    assert store.metrics.snapshots == 0


async def test_lists_that_share_a_snapshot_are_read_beside_each_other(store: Store) -> None:
    """In slices, turn by turn: none ends another's."""
    made = [f"t{number:04}" for number in range(2 * SLICE + 5)]
    await make(store, *made)
    begun = [await began(store) for _ in range(5)]
    assert store.metrics.snapshots == 1
    found = await asyncio.gather(*(rest(store, first) for first in begun))
    assert found == [made[1:]] * 5


async def test_a_tenant_that_holds_many_loses_its_own(store: Store) -> None:
    """And keeps those that it used last."""
    await make(store, "a", "z")
    most = store._reader._held._most
    quiet, loud = await began(store, EVE), []
    for i in range(most + 3):
        await make(store, f"t{i:02}")
        loud.append(await began(store))
    assert store.metrics.snapshots == most
    assert await rest(store, quiet, asker=EVE) == ["z"]
    assert await rest(store, loud[-1]) == [*(f"t{i:02}" for i in range(most + 3)), "z"]
    with pytest.raises(Expired):
        await store.objects.list(THINGS, after=loud[0].next, asker=ANN)


async def test_lists_past_those_that_are_told_apart_go_on_as_well(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a tenant begins, what is kept of them is bounded, and none of them is lost."""
    monkeypatch.setattr(held, "LISTS_MAX", 4)
    await make(store, "a", "b", "c")
    pages = [await began(store) for _ in range(20)]
    (look,) = store._reader._held._looks.values()
    assert {group: len(lists._until) for group, lists in look.lists.items()} == {ANN.group: 4}
    await make(store, "d")
    for page in pages:
        assert await rest(store, page) == ["b", "c"]
    await clock.advance(61)
    await store.tidy()
    assert store.metrics.snapshots == 0


async def test_of_a_file_few_connections_are_left_and_those_are_lean(file_store: Store) -> None:
    await make(file_store, "a", "b")
    reader, pages = file_store._reader, []
    for i in range(20):
        await make(file_store, f"t{i:02}")
        pages.append(await began(file_store))
    found = [view.session._connection for view in reader._held.views]  # type: ignore[attr-defined]
    assert len(found) == 20
    assert {one.execute("PRAGMA cache_size").fetchone()[0] for one in found} == {-1024}
    for page in pages:
        await rest(file_store, page)
    assert (len(reader._held), len(reader.pool.idle)) == (0, 4)


async def test_of_a_file_what_was_read_in_part_is_not_seen_again(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite keeps what a connection sees while any statement of it is not at its end, also past ROLLBACK."""
    await make(file_store, *(f"t{i:03}" for i in range(SLICE + 5)))
    reader = file_store._reader
    await began(file_store)
    remaining = reader._remaining

    async def amid(*args: Any, **named: Any) -> int:
        await make(file_store, "new")
        return await remaining(*args, **named)

    monkeypatch.setattr(reader, "_remaining", amid)
    await began(file_store)
    view = reader.pool._open("")  # by whoever has this turn of the loop
    assert view.revision == file_store.revision
    rows = view.session.stream(NEWER, {"since": 0, "most": 1_000})
    assert len(rows.fetchmany(SLICE)) == SLICE
    reader.pool.end(view)  # by one that was cancelled: its error still holds the rows
    await make(file_store, "newer")
    assert reader.pool._open("").revision == file_store.revision


async def test_whoever_is_cancelled_while_snapshots_end_leaves_none_open(file_store: Store, clock: FakeClock) -> None:
    reader = file_store._reader
    await make(file_store, "a", "b")
    for name in "cdef":
        await began(file_store)
        await make(file_store, name)
    sessions: list[Any] = [view.session for view in reader._held.views]
    await clock.advance(61)
    trimming = asyncio.create_task(reader.trim())
    await asyncio.sleep(0)
    trimming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trimming
    await reader.trim()
    assert len(reader._held) == 0
    assert [one.alive for one in sessions if one.sound] == [False] * 4


@pytest.mark.parametrize("turns", range(8))
async def test_a_list_amid_which_the_store_is_closed_is_told_so(turns: int, tmp_path: Path, clock: FakeClock) -> None:
    store = open_store(tmp_path / "store.db", clock=clock, kinds=KINDS, seal_key=KEY)
    await make(store, "a", "b", "c")
    first = await began(store)
    going, new = asyncio.create_task(store_page(store, first.next)), asyncio.create_task(began(store))
    for _ in range(turns):
        await asyncio.sleep(0)
    store.close()
    for found in await asyncio.gather(going, new, return_exceptions=True):
        assert isinstance(found, (Page, Unavailable)), repr(found)
    assert store._reader.pool.idle == []
    with pytest.raises(Unavailable):
        await began(store)
    with pytest.raises(Unavailable):
        await store._reader.revision()


# --- several processes ------------------------------------------------------------------------------------------


@pytest.fixture
def pair(database: str, clock: FakeClock, by_the_tests_clock: None) -> Iterator[tuple[Store, Store]]:
    """Two stores of one database, as two processes have them."""
    here, there = (open_store(database, clock=clock, kinds=KINDS, seal_key=KEY) for _ in range(2))
    yield here, there
    here.close()
    there.close()


@pytest.mark.real
async def test_pages_of_two_processes_are_of_one_revision(pair: tuple[Store, Store]) -> None:
    here, there = pair
    await make(here, *(f"t{i}" for i in range(6)))
    page = await store_page(here, "")
    seen, revision = names(page), page.revision
    for turn in range(5):
        store = pair[turn % 2 == 0]
        await make(store, f"new{turn}")
        await here.objects.delete(Key("Thing", PROJECT, f"t{5 - turn}"), ALICE)
        page = await store_page(store, page.next)
        seen += names(page)
        assert (page.revision, page.remaining) == (revision, 4 - turn)
    assert seen == [f"t{i}" for i in range(6)]
    assert (page.next, there.metrics.snapshots) == ("", 0)


async def store_page(store: Store, after: str) -> Page:
    return await store.objects.list(THINGS, limit=1, after=after, asker=ANN)


@pytest.mark.real
async def test_a_list_outlives_the_process_where_it_began_once_another_has_taken_part(
    pair: tuple[Store, Store],
) -> None:
    here, there = pair
    await make(here, *"abcd")
    first, other = await began(here), await began(here, EVE)
    second = await store_page(there, first.next)
    here.close()
    await make(there, "e")
    assert await rest(there, second) == ["c", "d"]
    with pytest.raises(Expired) as expired:
        await there.objects.list(THINGS, after=other.next, asker=EVE)
    page = await there.objects.list(THINGS, after=expired.value.proceed, asker=EVE)
    assert names(page) == ["b", "c", "d", "e"]


@pytest.mark.real
async def test_a_list_whose_connection_is_lost_may_go_on_at_what_there_is(
    pair: tuple[Store, Store], database: str
) -> None:
    here, there = pair
    await make(here, *"abc")
    first = await began(here)
    with psycopg.connect(database, autocommit=True) as admin:
        assert len(admin.execute(f"SELECT pg_terminate_backend(pid, 60000) {HOLDERS}").fetchall()) == 1
    for store in (there, here):
        with pytest.raises(Expired) as expired:
            await store_page(store, first.next)
        assert names(await store_page(store, expired.value.proceed)) == ["b"]


@pytest.mark.real
async def test_a_snapshot_that_is_read_for_long_is_not_taken_for_left(
    pair: tuple[Store, Store], database: str, clock: FakeClock
) -> None:
    """Its pages are read by others: the server would end who holds it for saying nothing."""
    here, _ = pair
    await make(here, *"abcdef")
    page = await began(here)
    spoke = []
    for _ in range(3):
        await clock.advance(31)
        page = await store_page(here, page.next)
        with psycopg.connect(database) as admin:
            spoke.append(admin.execute(f"SELECT state_change {HOLDERS}").fetchall())
    assert [len(one) for one in spoke] == [1, 1, 1]
    assert spoke[0] != spoke[1] != spoke[2]


@pytest.mark.real
async def test_a_snapshot_is_not_given_up_where_its_holder_had_no_turn(
    pair: tuple[Store, Store], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = pair
    await make(here, "a", "b")
    first = await began(here)
    await clock.advance(31)
    await here._reader.trim()
    with monkeypatch.context() as patch:
        patch.setattr(apart, "PENDING_MAX", 0)
        with pytest.raises(Unavailable):
            await store_page(here, first.next)
    assert names(await store_page(here, first.next)) == ["b"]
