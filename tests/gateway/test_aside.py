"""A replica that was asked and lost before it answered has a record of its own, whoever answers in its place."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from bessemer.core.errors import DriverError
from bessemer.core.values import UsageRecord
from tests.gateway.harness import Rig, claim, rig
from tests.gateway.test_underway import BODY, HEADERS

SHORT = BODY | {"max_tokens": 3}


async def ask(to: Rig) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{to.url}/chat/completions", json=SHORT, headers=HEADERS) as got,
    ):
        await got.read()
        return got.status


def records(to: Rig) -> list[UsageRecord]:
    pending = to.spool.pending()
    return list(pending.records) if pending is not None else []


async def until_lost(to: Rig) -> None:
    """Ask until a replica was."""
    for _ in range(8):
        assert await ask(to) == 200
        if any(one.ended for one in records(to)):
            return
    raise AssertionError("it was never asked")


async def test_both_are_recorded_the_one_that_was_lost_and_the_one_that_answered() -> None:
    async with rig() as to:
        lost, good = [await to.replica(name, of="words") for name in ("r0", "r1")]
        to.engine.models[lost].behaviour.status = 503
        await until_lost(to)
        unpaid, paid = records(to)[-2:]
        assert (unpaid.replica, unpaid.ended, unpaid.input_tokens, unpaid.output_tokens) == (lost, "unpaid", 0, 0)
        assert (paid.replica, paid.ended, paid.output_tokens) == (good, None, 3)
        assert paid.request_id == f"{unpaid.request_id}/2", "each is settled by itself"
        assert len({one.request_id for one in records(to)}) == len(records(to))


async def test_of_two_that_are_lost_each_is_recorded_once() -> None:
    async with rig() as to:
        uids = [await to.replica(name, of="words") for name in ("r0", "r1")]
        for uid in uids:
            to.engine.models[uid].behaviour.status = 401
        assert await ask(to) == 502
        assert sorted((one.replica, one.ended) for one in records(to)) == [(uid, "unpaid") for uid in sorted(uids)]


async def test_whom_nothing_was_sent_has_none() -> None:
    """Nobody listens at its door."""
    async with rig() as to:
        good = await to.replica("r1", of="words")
        door = Path(to.engine.door(good))
        to.tables.apply(claim("r0", f"unix:{door.parent.parent / 'nobody' / door.name}", of="words"))
        for _ in range(4):
            assert await ask(to) == 200
        assert {(one.replica, one.ended) for one in records(to)} == {(good, None)}


async def test_where_there_is_no_room_for_both_the_answer_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as to:
        lost, good = [await to.replica(name, of="words") for name in ("r0", "r1")]
        to.engine.models[lost].behaviour.status = 503
        reserve, held = to.spool.reserve, list[int]()

        def once() -> None:
            """There is room for whoever is let in, and no more."""
            if to.spool._promised:
                held.append(1)
                raise DriverError("DiskFull", "usage cannot be recorded")
            reserve()

        monkeypatch.setattr(to.spool, "reserve", once)
        for _ in range(8):
            assert await ask(to) == 200
            if held:
                break
        assert held
        assert {(one.replica, one.ended) for one in records(to)} == {(good, None)}


async def test_who_could_not_be_reached_counts_for_no_try() -> None:
    """Two are gone, and nobody was told yet: the third answers; where there is none, it may be tried again."""
    async with rig() as to:
        good = await to.replica("r2", of="words")
        door = Path(to.engine.door(good))
        for name in ("r0", "r1"):
            to.tables.apply(claim(name, f"unix:{door.parent.parent / name / door.name}", of="words"))
        assert [await ask(to) for _ in range(6)] == [200] * 6
        to.tables.apply(claim("r2", "", of="words", gone=True))
        assert await ask(to) == 503
        assert {(one.replica, one.ended) for one in records(to)} == {(good, None)}
