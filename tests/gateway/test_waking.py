"""Requests for an endpoint that sleeps: held, bounded, answered when somebody is there; and what a gateway reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Unavailable
from bessemer.core.loads import ALIVE_SECONDS, LoadReport
from bessemer.gateway import Reporter, waking
from bessemer.gateway.people import ASKED_OF_ONE_MAX, FRESH_SECONDS, Vouch
from bessemer.gateway.tables import Tables
from tests.gateway.harness import PROJECT, Rig, api_key, change, endpoint, rig
from tests.gateway.test_people import Api, token
from tests.gateway.test_waiting import Engine, Replicas, ask, until

SCALE = {"min": 0, "max": 2, "wakeSeconds": 60}


class Said:
    """An api that hears of loads; ``away`` it hears nothing."""

    def __init__(self) -> None:
        self.reports: list[LoadReport] = []
        self.last = False
        self.away = False

    async def __call__(self, report: LoadReport, *, last: bool = False) -> None:
        if self.away:
            raise Unavailable("away")
        self.reports.append(report)
        self.last = last


@asynccontextmanager
async def asleep(folder: Path, *, vouch: Vouch | None = None, **spec: Any) -> AsyncIterator[tuple[Rig, Said]]:
    """A gateway with an endpoint that scales and has no replica, and who hears its reports at once."""
    async with rig(doors=folder, vouch=vouch) as to:
        to.tables.apply(endpoint("words", slots=4, scale=SCALE, **spec))
        said = Said()
        reporter = Reporter(lambda: list(to.tables.endpoints.values()), said, holder="g1", clock=to.clock)
        to.gateway.waking.rouse = reporter.soon
        task = asyncio.ensure_future(reporter.run())
        try:
            yield to, said
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def held(to: Rig) -> int:
    return to.tables.endpoints[PROJECT, "words"].pool.gauge.held


async def asked(to: Rig, *, key: str = "bsk_good", **more: Any) -> tuple[int, str, dict[str, Any]]:
    """Status, how long it waited, and the answer."""
    body = orjson.dumps({"model": "words", "messages": [], **more})
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session,
        session.post(f"{to.url}/chat/completions", data=body) as answer,
    ):
        return answer.status, answer.headers.get("x-bessemer-waking", ""), orjson.loads(await answer.read())


async def test_requests_are_held_until_a_replica_is_there_and_all_are_answered(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (to, said):
        waiting = [asyncio.ensure_future(asked(to)) for _ in range(6)]
        await until(lambda: held(to) == 6 and bool(said.reports))
        assert (said.reports[0].asleep, said.reports[0].loads[0].name) == ([0], "words")
        async with Replicas(to, tmp_path, Engine()):
            answers = await asyncio.gather(*waiting)
        assert {status for status, _, _ in answers} == {200}
        assert all(float(waited) >= 0 for _, waited, _ in answers)
        assert held(to) == 0
        assert to.gateway.waking._held == {}
        assert to.gateway.waking._bytes == 0


async def test_one_that_did_not_wait_says_nothing_of_it(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (to, _), Replicas(to, tmp_path, Engine()):
        assert (await asked(to))[:2] == (200, "")


async def test_a_client_that_leaves_is_held_no_more(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (to, _):
        waiting = asyncio.ensure_future(ask(to))
        await until(lambda: held(to) == 1)
        waiting.cancel()
        await until(lambda: held(to) == 0)
        assert to.gateway.waking._bytes == 0
        assert to.spool.waiting == 0


async def test_who_waits_too_long_and_who_finds_no_room_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "HELD_MAX", 1)
    async with asleep(tmp_path) as (to, _):
        first = asyncio.ensure_future(ask(to))
        await until(lambda: held(to) == 1)
        assert await ask(to) == (503, "no_replica_ready", 5)
        hurried = ask(to, headers={"x-request-timeout": "0.05"})
        assert (await hurried)[1] == "no_replica_ready"
        to.clock.skipped = 61.0
        assert await first == (503, "no_replica_ready", 5)
        assert held(to) == 0


async def test_their_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "BYTES_MAX", 10)
    async with asleep(tmp_path) as (to, _):
        assert await ask(to) == (503, "no_replica_ready", 5)
        assert to.gateway.waking._held == {}


async def test_one_tenants_bytes_shut_out_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "SHARE_BYTES_MAX", 150)
    async with asleep(tmp_path) as (to, _):
        to.tables.apply(api_key("rival", "bsk_rival", project="rival--lab"))
        to.tables.apply(endpoint("words", project="rival--lab", slots=4, scale=SCALE))
        theirs = to.tables.endpoints["rival--lab", "words"].pool.gauge
        first = asyncio.ensure_future(asked(to, user="x" * 60))
        await until(lambda: held(to) == 1)
        assert (await asked(to, user="x" * 60))[0] == 503
        other = asyncio.ensure_future(ask(to, "bsk_rival"))
        await until(lambda: theirs.held == 1)
        async with Replicas(to, tmp_path, Engine()):
            assert (await first)[0] == 200
        other.cancel()
        await until(lambda: not theirs.held)
        assert not to.gateway.waking._tenants


@pytest.mark.parametrize("watched", [True, False])
async def test_who_waits_for_an_endpoint_that_is_gone_is_told_and_holds_nothing(tmp_path: Path, watched: bool) -> None:
    async with asleep(tmp_path) as (to, _):
        waiting = asyncio.ensure_future(ask(to))
        await until(lambda: held(to) == 1)
        assert to.spool._promised == 1
        if watched:
            to.tables.apply(endpoint("words", gone=True))
        else:
            to.tables.forget("Endpoint", frozenset())
        assert (await waiting)[:2] == (404, "model_not_found")
        assert (to.spool._promised, to.gateway.waking._held, to.gateway.waking._bytes) == (0, {}, 0)


async def test_a_key_that_is_taken_back_while_it_waits_wakes_up_to_nothing(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (to, _):
        to.tables.apply(api_key("brief", "bsk_brief"))
        waiting, other = (asyncio.ensure_future(ask(to, token)) for token in ("bsk_brief", "bsk_good"))
        await until(lambda: held(to) == 2)
        to.tables.apply(api_key("brief", "bsk_brief", gone=True))
        async with Replicas(to, tmp_path, Engine()):
            assert (await waiting)[:2] == (401, "invalid_api_key")
            assert (await other)[0] == 200
        assert to.spool._promised == 0


async def test_a_deadline_of_its_own_ends_a_wait(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (to, _):
        assert (await ask(to, headers={"x-request-timeout": "0.05"}))[:2] == (504, "deadline_exceeded")
        assert held(to) == 0


async def test_a_key_that_may_not_use_it_wakes_nobody(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (to, said):
        to.tables.apply(api_key("other", "bsk_other", endpoints=["letters"]))
        assert (await ask(to, "bsk_other"))[:2] == (404, "model_not_found")
        assert (await ask(to, "bsk_wrong"))[:2] == (401, "invalid_api_key")
        assert held(to) == 0
        assert not said.reports


async def test_one_that_does_not_scale_holds_nobody(tmp_path: Path) -> None:
    async with rig(doors=tmp_path) as to:
        assert await ask(to) == (503, "no_replica_ready", 5)


async def test_who_stands_in_answers_while_it_is_woken(tmp_path: Path) -> None:
    async with asleep(tmp_path, fallbacks=["other"]) as (to, said):
        to.tables.apply(change("Endpoint", "other", {"spec": {"model": "words", "slots": 4}}))
        async with Replicas(to, tmp_path, Engine(), of="other"):
            assert (await asked(to))[0] == 200
        await until(lambda: any(report.asleep for report in said.reports))


async def test_who_was_held_goes_on_where_the_api_was_away_meanwhile(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (to, said):
        said.away = True
        waiting = asyncio.ensure_future(ask(to))
        await until(lambda: held(to) == 1)
        said.away = False
        await until(lambda: bool(said.reports))
        async with Replicas(to, tmp_path, Engine()):
            assert (await waiting)[0] == 200


async def test_what_is_answered_is_counted_and_judged(tmp_path: Path) -> None:
    scale = {**SCALE, "target": {"ttftMs": 1, "interTokenMs": 60_000}}
    async with asleep(tmp_path) as (to, _):
        to.tables.apply(endpoint("words", slots=4, scale=scale))
        gauge = to.tables.endpoints[PROJECT, "words"].pool.gauge
        async with Replicas(to, tmp_path, Engine()):
            await asked(to)
            assert (gauge.arrived, gauge.answered, gauge.input_tokens, gauge.output_tokens) == (1, 1, 3, 2)
            assert gauge.begun == 0, "of what is no stream nobody knows when it began"
        gauge.ended(reads=10, writes=101, first=0.5, whole=5.5)
        gauge.ended(reads=10, writes=1, first=0.0005, whole=0.001)
        assert (gauge.begun, gauge.late, gauge.paced, gauge.slow) == (2, 1, 1, 0)
        assert (gauge.paced_tokens, gauge.paced_seconds) == (100, 5.0)


async def test_it_reports_while_anything_happens_and_that_it_is_there() -> None:
    clock, said, tables = FakeClock(), Said(), Tables()
    reporter = Reporter(lambda: list(tables.endpoints.values()), said, holder="g1", clock=clock)
    await reporter.say(last=True)
    await reporter.say()
    assert not said.reports, "nothing scales here"
    tables.apply(endpoint("words", scale=SCALE))
    tables.apply(endpoint("letters"))
    await reporter.say()
    assert [load.name for load in said.reports[-1].loads] == ["words"]
    await reporter.say()
    assert len(said.reports) == 1, "nothing has happened"
    await clock.advance(ALIVE_SECONDS)
    await reporter.say()
    assert len(said.reports) == 2
    tables.endpoints[PROJECT, "words"].pool.gauge.arrived += 1
    await reporter.say()
    assert said.reports[-1].loads[0].counted.arrived == 1
    await reporter.say(last=True)
    assert said.last


async def test_a_person_is_asked_about_again_when_it_has_woken(tmp_path: Path) -> None:
    """Their membership may be gone by then, or the api away."""
    many = [f"p{at}" for at in range(2 * ASKED_OF_ONE_MAX)]
    api = Api(mia=[PROJECT], rob=[PROJECT], **{one: [PROJECT] for one in many})
    async with asleep(tmp_path, vouch=api) as (to, _):
        waiting = {}
        for who in ("mia", "rob", *many):
            waiting[who] = asyncio.ensure_future(asked(to, key=token(who)))
            await until(lambda: held(to) == len(waiting))
        api.people[token("rob")] = ("rob", ["other--lab"])
        to.clock.skipped += 2 * FRESH_SECONDS
        api.go.clear()
        engine = Engine()
        async with Replicas(to, tmp_path, engine):
            await until(lambda: api.asked[token("mia")] == 2)
            assert engine.asked == [], "nobody is answered before that is known"
            api.go.set()
            answers = {who: await said for who, said in waiting.items()}
        assert answers["rob"][0] == 401
        assert {said[0] for who, said in answers.items() if who != "rob"} == {200}, "however many come from one network"
        assert set(api.asked.values()) == {2}


async def test_a_person_who_leaves_while_they_are_asked_about_holds_nothing(tmp_path: Path) -> None:
    api = Api(mia=[PROJECT])
    async with asleep(tmp_path, vouch=api) as (to, _):
        waiting = asyncio.ensure_future(asked(to, key=token("mia")))
        await until(lambda: held(to) == 1)
        to.clock.skipped += 2 * FRESH_SECONDS
        api.go.clear()
        engine = Engine()
        async with Replicas(to, tmp_path, engine):
            await until(lambda: api.asked[token("mia")] == 2)
            waiting.cancel()
            await until(lambda: to.front.connections == 0)
            api.go.set()
            await asyncio.sleep(0.05)
            assert engine.asked == []


@pytest.mark.parametrize("named", ["words", "either"])
async def test_who_waits_goes_to_whoever_stands_in_and_is_there_first(tmp_path: Path, named: str) -> None:
    async with asleep(tmp_path, fallbacks=["other"]) as (to, _):
        to.tables.apply(endpoint("other", slots=4, scale=SCALE))
        to.tables.apply(endpoint("alone", slots=4, scale=SCALE))
        to.tables.apply(endpoint("either", backends=[{"endpoint": "words"}]))
        waiting = [asyncio.ensure_future(asked(to, model=named)) for _ in range(3)]
        alone = asyncio.ensure_future(asked(to, model="alone"))
        await until(lambda: held(to) == 3 and to.tables.endpoints[PROJECT, "alone"].pool.gauge.held == 1)
        async with Replicas(to, tmp_path, Engine(), of="other"):
            answers = await asyncio.gather(*waiting)
            assert not alone.done(), "nobody stands in for that"
        alone.cancel()
        assert {status for status, _, _ in answers} == {200}
        assert all(float(waited) > 0 for _, waited, _ in answers)
        assert {one.endpoint for one in to.paid()} == {"other"}
        assert held(to) == 0


async def test_who_has_waited_for_too_long_goes_to_whoever_stands_in(tmp_path: Path) -> None:
    """As where that one rested when it was asked, and is well by then."""
    async with asleep(tmp_path, fallbacks=["other"]) as (to, _):
        to.tables.apply(endpoint("other", slots=4))
        waiting = asyncio.ensure_future(asked(to))
        await until(lambda: held(to) == 1)
        to.gateway.waking.arrived = lambda _: None  # type: ignore[method-assign]
        to.tables.arrived = to.gateway.waking.arrived
        async with Replicas(to, tmp_path, Engine(), of="other"):
            to.clock.skipped += 61.0
            assert (await waiting)[0] == 200


async def test_who_has_waited_for_a_slot_for_too_long_goes_to_whoever_stands_in(tmp_path: Path) -> None:
    busy = Engine(turns=asyncio.Semaphore(0))
    async with rig(doors=tmp_path) as to, Replicas(to, tmp_path, busy):
        to.tables.apply(endpoint("words", slots=1, fallbacks=["other"]))
        (tmp_path / "o").mkdir()
        async with Replicas(to, tmp_path / "o", Engine(), of="other", first=7):
            to.tables.apply(endpoint("other", slots=1))
            first = asyncio.ensure_future(asked(to))
            await until(lambda: len(busy.asked) == 1)
            second = asyncio.ensure_future(asked(to))
            await until(lambda: to.tables.tally.waiting == 1)
            to.clock.skipped += 61.0
            assert (await second)[0] == 200
            busy.turns.release()
            assert (await first)[0] == 200
        assert sorted(one.endpoint for one in to.paid()) == ["other", "words"]
