"""A ledger of any length is read a few rows at a time, once, and no further than a page needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
import pytest
from playwright.async_api import expect

from bessemer.client import Ask, Client
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Unavailable
from bessemer.portal.ledger import HOUR, ROWS_AT_ONCE, WEEK, Row, Spent, chosen, rows
from bessemer.portal.pages.drill import ROWS_SHOWN, first_of, in_ranges
from tests.api.world import BASE
from tests.portal.test_guard import caller
from tests.portal.town import CHAT, LAB, Town

NOW = 1_763_000_000
UID = "u1"


def spent_row(number: int, at: int, *, out: int = 10, **more: Any) -> Row:
    about = {"tenant": "acme", "project": LAB, "workloadKind": "Endpoint", "workloadName": "smol", "workloadUid": UID}
    return {
        "id": number,
        "at": at,
        "kind": "tokens",
        **about,
        "requests": 1,
        "inputTokens": 1,
        "outputTokens": out,
        **more,
    }


class Book:
    """A ledger's rows, and which windows of it were asked for."""

    def __init__(self, *kept: Row) -> None:
        self.rows = list(kept)
        self.asked: list[tuple[int, int]] = []
        self.waits: asyncio.Event | None = None

    async def read(self, since: int, until: int) -> AsyncGenerator[Row, None]:
        self.asked.append((since, until))
        if self.waits is not None and until - since > 2 * HOUR:
            await self.waits.wait()
        for row in sorted(self.rows, key=lambda row: row["kind"] != "correction"):
            if row["kind"] == "correction" or since <= row["at"] < until:
                yield row


def total(spent: Spent, length: int, *, name: str = "out") -> int:
    here = NOW // 60 * 60
    return sum(spent.points(start=here - length, end=here + HOUR, step=60)[name])


class Pipe:
    """A transport that has one answer, sent as one part: as fast as it can be."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.taken = 0

    @asynccontextmanager
    async def stream(self, ask: Ask, *, silence: float | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        async def parts() -> AsyncIterator[bytes]:
            for start in range(0, len(self.answer), 4096):
                self.taken += 1
                yield self.answer[start : start + 4096]

        yield parts()


def answer(count: int, *, ended: bool = True) -> bytes:
    """As the api writes it."""
    body = b",\n".join(orjson.dumps(spent_row(number, NOW - count + number)) for number in range(1, count + 1))
    return b'{"project":"acme--lab","rows":[\n' + body + (b"\n]}\n" if ended else b"")


def client(pipe: Pipe) -> Client:
    return Client(pipe, plurals={"Project": "projects"})  # type: ignore[arg-type]


async def test_others_have_their_turn_while_a_long_ledger_is_read() -> None:
    count, turns = 20 * ROWS_AT_ONCE, 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(neighbour())
    async with aclosing(rows(client(Pipe(answer(count))), LAB, since=0, until=NOW)) as found:
        read = [row["id"] async for row in found]
    beside.cancel()
    assert read == list(range(1, count + 1))
    assert turns >= count // ROWS_AT_ONCE - 1


async def test_a_ledger_that_broke_off_is_not_taken_for_the_whole() -> None:
    with pytest.raises(Unavailable):
        [row async for row in rows(client(Pipe(answer(3, ended=False))), LAB, since=0, until=NOW)]


async def test_rows_that_are_named_are_read_no_further_than_they_stand() -> None:
    pipe = Pipe(answer(5000))
    found = await chosen(rows(client(pipe), LAB, since=0, until=NOW), {3, 7})
    assert [entry.id for entry in found] == [3, 7]
    assert pipe.taken == 1


async def test_what_was_added_up_is_not_read_again() -> None:
    clock = FakeClock(NOW)
    book = Book(*(spent_row(i, NOW - 7 * 24 * HOUR + 600 * i) for i in range(1, 1009)))
    spent = Spent(book.read, clock=clock)
    assert await spent.look(WEEK)
    assert (total(spent, WEEK), total(spent, WEEK, name="requests")) == (10_080, 1008)
    before = len(book.asked)
    book.rows.append(spent_row(2000, NOW + 3, out=7))
    await clock.advance(10)
    assert await spent.look(WEEK)
    assert book.asked[before:] == [(NOW + 1 - 60, NOW + 11)]
    assert total(spent, WEEK) == 10_087
    assert spent.newest == 2000


async def test_a_plot_need_not_wait_for_a_week_to_be_added_up() -> None:
    clock = FakeClock(NOW)
    book = Book(spent_row(1, NOW - 3 * 24 * HOUR), spent_row(2, NOW - 60))
    book.waits = asyncio.Event()
    spent = Spent(book.read, clock=clock)
    assert not await spent.look(WEEK, patience=0.01)
    assert total(spent, WEEK) == 10
    await clock.advance(1)
    book.rows.append(spent_row(3, NOW))
    assert not await spent.look(WEEK, patience=0.01)
    assert total(spent, WEEK) == 20, "what is new is told of meanwhile"
    assert len([window for window in book.asked if window[1] - window[0] > 2 * HOUR]) == 1
    book.waits.set()
    assert await spent.look(WEEK)
    assert total(spent, WEEK) == 30
    spent.close()


async def test_a_correction_counts_in_place_of_its_row() -> None:
    clock = FakeClock(NOW)
    book = Book(spent_row(1, NOW - 24 * HOUR), spent_row(2, NOW - 60))
    spent = Spent(book.read, clock=clock)
    assert await spent.look(WEEK)
    assert total(spent, WEEK) == 20
    book.rows.append(spent_row(3, NOW + 1, out=1, kind="correction", corrects=1))
    await clock.advance(10)
    assert await spent.look(WEEK)
    assert total(spent, WEEK) == 11


def test_a_line_names_its_first_rows_and_counts_the_rest() -> None:
    assert first_of("3-5,9") == ("3-5,9", 0)
    text, more = first_of("1-60,100-180,9000")
    assert (text, more) == ("1-60,100-139", 42)
    assert len(in_ranges(text)) == ROWS_SHOWN


@pytest.mark.asyncio(loop_scope="module")
async def test_the_api_writes_a_row_a_line_and_those_of_one_workload_alone(t: Town) -> None:
    owner = await t.w.store.objects.get(CHAT)
    where = f"{BASE}/projects/{LAB}/ledger?from=0"
    everything, own = await t.w.call("GET", where), await t.w.call("GET", f"{where}&workload={owner.uid}")
    uids = {row["workloadUid"] for row in everything.json["rows"]}
    assert owner.uid in uids
    assert len(uids) > 1
    assert own.json["rows"] == [row for row in everything.json["rows"] if row["workloadUid"] == owner.uid]
    lines = own.body.split(b"\n")
    assert [orjson.loads(line.removesuffix(b",")) for line in lines[1:-2]] == own.json["rows"]


@pytest.mark.real
@pytest.mark.asyncio(loop_scope="module")
async def test_a_plot_says_that_it_is_not_whole_and_goes_on(
    t: Town, visitor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    look, slow = Spent.look, True

    async def looks(self: Spent, length: int) -> bool:
        whole = await look(self, length)
        return whole and not (slow and length == WEEK)

    monkeypatch.setattr(Spent, "look", looks)
    async with visitor("ada") as member:
        page = await member.open(f"/in/{LAB}/endpoints/{CHAT.name}")
        note = page.locator("#stat-requests .note")
        await expect(note).to_have_text("in the last hour")
        await page.get_by_role("button", name="Week").click()
        await expect(note).to_have_text("still adding up")
        slow = False
        await expect(note).to_have_text("in the last week")


@pytest.mark.asyncio(loop_scope="module")
async def test_usage_and_rows_come_from_the_api_line_by_line(t: Town) -> None:
    owner = await t.w.store.objects.get(CHAT)
    entries = [entry for entry in await t.w.store.ledger.entries() if entry.kind == "tokens"]
    wanted = ",".join(str(entry.id) for entry in entries[:3])
    async with caller(t, "ada") as ada:
        for window in ("hour", "day", "week"):
            where = f"/in/{LAB}/endpoints/{CHAT.name}/usage?window={window}"
            async with asyncio.timeout(30):
                # Where adding up takes longer than an answer waits for it, the next one has more.
                while not (usage := orjson.loads((await ada.get(where)).body))["whole"]:
                    pass
            assert sum(usage["out"]) == sum(entry.output_tokens for entry in entries)
        query = f"from=0&of={owner.uid}&rows="
        shown = (await ada.get(f"/in/{LAB}/invoice/rows?{query}{wanted}")).text
        assert shown.count("<tr>") == 1 + 3
        assert (await ada.get(f"/in/{LAB}/invoice/rows?{query}1-9999")).status == 400
