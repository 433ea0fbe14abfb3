"""Prompts and answers in their tenant's own place: what is there, what is not, and what it costs others."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import orjson
import pytest
from structlog.testing import capture_logs

from bessemer.core.clock import FakeClock, SystemClock, settle
from bessemer.core.errors import BessemerError, Malformed, TooLarge, Unavailable
from bessemer.core.loads import EndpointLog, LoadReport
from bessemer.core.resource import Change, Key
from bessemer.drivers.bucket.fake import FakeBucket, FakeBuckets
from bessemer.drivers.bucket.real import S3Buckets
from bessemer.drivers.fetch.protocol import S3Place
from bessemer.drivers.fetch.reach import Reach
from bessemer.gateway import Logbook, Reporter, entry, logbook, logplace, retention
from bessemer.gateway.entry import Entry, Facts, Room
from bessemer.gateway.logbook import KEYS_MARK, MEMORY_BYTES
from bessemer.gateway.logplace import FLUSH_SECONDS, LogPlace
from bessemer.gateway.tables import Tables
from bessemer.kinds.inference.endpoint import prompts
from tests.drivers.bucket.server import KEYS, Server
from tests.gateway.harness import PROJECT, Rig, api_key, endpoint, rig

ASK = [{"role": "user", "content": "What is a converter?"}]
WITHOUT_KEYS: Mapping[str, str] = {}


@dataclass
class Tenant:
    """What the api keeps of keys, by project."""

    buckets: FakeBuckets = field(default_factory=FakeBuckets)
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    at: dict[str, str] = field(default_factory=dict)
    away: bool = False

    async def fetch(self, key: Key) -> tuple[Mapping[str, str], str]:
        if self.away:
            raise Unavailable("the api is away")
        return self.keys.get(key.namespace, WITHOUT_KEYS), self.at.get(key.namespace, "")

    def bucket(self, name: str, *, project: str = PROJECT) -> FakeBucket:
        """One of a project's, with its keys."""
        place = S3Place(bucket=name)
        self.keys[project] = {"accessKey": f"AKIA{project}", "secretKey": "word"}
        self.at[project] = place.audience
        return self.buckets.make(place, f"AKIA{project}")

    def book(self, clock: FakeClock, **more: Any) -> Logbook:
        return Logbook(self.buckets.open, self.fetch, clock=clock, name="g1", **more)


def logging(bucket: str, **more: Any) -> dict[str, Any]:
    return {"s3": {"bucket": bucket, "prefix": "p"}, **more}


def words(said: dict[str, Any] | None, *, name: str = "words", mark: str = "m1", project: str = PROJECT) -> Change:
    more = {} if said is None else {"logging": said}
    made = endpoint(name, project=project, **more)
    body = orjson.loads(made.body)
    body["metadata"]["annotations"] = {KEYS_MARK: mark} if mark else {}
    return replace(made, body=orjson.dumps(body))


def lines(bucket: FakeBucket) -> list[dict[str, Any]]:
    """All that stands there, in the order in which it was written."""
    texts = [gzip.decompress(bucket.objects[key]).splitlines() for key in sorted(bucket.objects)]
    return [orjson.loads(line) for text in texts for line in text]


@asynccontextmanager
async def logged(tenant: Tenant, **said: Any) -> AsyncIterator[tuple[Rig, Logbook, FakeClock]]:
    """A gateway whose ``words`` is logged; the logbook's clock is a fake one."""
    clock = FakeClock()
    book = tenant.book(clock)
    async with rig(logbook=book) as to:
        to.tables.apply(words(logging("logs", **said)))
        yield to, book, clock
        await book.close()
    assert book.room.held == 0, "whatever became of it, nothing is held any more"


async def ask(
    to: Rig, *, token: str = "bsk_good", path: str = "chat/completions", raw: bytes = b"", **more: Any
) -> Any:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    body = raw or orjson.dumps({"model": "words", "messages": ASK, "max_tokens": 6, **more})
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{to.url}/{path}", data=body, headers=headers) as answer,
    ):
        text = await answer.read()
        return answer.status, text, answer.headers


async def idle(book: Logbook) -> None:
    """Until nothing is under way."""
    async with asyncio.timeout(10):
        while any(place.working is not None for place in book._places.values()):
            await asyncio.sleep(0.002)


async def written(book: Logbook, clock: FakeClock) -> None:
    """What waits is due, and is written."""
    await clock.advance(FLUSH_SECONDS + 1)
    book.look()
    await idle(book)


async def goes_on(book: Logbook, clock: FakeClock, seconds: float) -> None:
    """Time passes, and what is due meanwhile is done."""
    await clock.advance(seconds)
    book.look()
    await idle(book)


async def test_what_is_asked_and_answered_stands_in_its_place() -> None:
    tenant = Tenant()
    bucket = tenant.bucket("logs")
    async with logged(tenant) as (to, book, clock):
        await to.replica("r", of="words")
        raw = b'{ "model": "words",\n "messages": [{"role": "user", "content": "a\\u00e9"}], "max_tokens": 3}'
        status, text, headers = await ask(to, raw=raw)
        assert (status, headers["x-bessemer-logged"]) == (200, "1")
        line = b'{"model": "words", "stream": true, "temperature": 0.50, "messages": [], "max_tokens": 6}'
        status, events, headers = await ask(to, raw=line)
        assert (status, headers["x-bessemer-logged"]) == (200, "1")
        assert b"timings" not in events
        await written(book, clock)
        one, two = lines(bucket)
        (key,) = bucket.objects
        assert key == "p/acme--lab/words/2025/06/15/15/g1-000001.jsonl.gz"
        assert one["request"] == orjson.loads(raw)
        assert one["answer"] == orjson.loads(text)
        assert (one["project"], one["endpoint"], one["apiKey"], one["model"]) == (PROJECT, "words", "good", "words")
        assert (one["status"], one["stream"], one["ended"], one["path"]) == (
            200,
            False,
            "whole",
            "/v1/chat/completions",
        )
        assert one["time"].startswith("2025-06-15T15:06:4")
        assert two["stream"]
        assert two["firstTokenMs"] >= 1
        assert two["outputTokens"] == 6
        message = two["answer"]["choices"][0]["message"]
        said = [orjson.loads(line[6:]) for line in events.split(b"\n") if line.startswith(b"data: {")]
        assert message["content"] == "".join(
            e["choices"][0]["delta"].get("content") or "" for e in said if e["choices"]
        )
        assert two["answer"]["choices"][0]["finish_reason"] == "length"
        assert two["answer"]["object"] == "chat.completion"
        records = to.paid()
        assert [one["requestId"], two["requestId"]] == [record.request_id for record in records]
        assert [one["inputTokens"], two["inputTokens"]] == [record.input_tokens for record in records]
        assert "stream_options" not in two["request"], "as its client sent it, and not as engines are asked"
        assert b'"request":' + line in gzip.decompress(bucket.objects[key]), "to the letter"
        assert b"bsk_" not in gzip.decompress(bucket.objects[key])
        assert book.tally.written == 2


async def test_nothing_is_logged_where_nobody_says_so() -> None:
    tenant = Tenant()
    bucket = tenant.bucket("logs")
    async with logged(tenant) as (to, book, clock):
        await to.replica("r", of="words")
        to.tables.apply(words(None))
        _, _, headers = await ask(to)
        assert "x-bessemer-logged" not in headers
        await written(book, clock)
        assert bucket.objects == {}
        assert book.room.held == 0


async def test_each_part_alone_and_a_sample() -> None:
    tenant = Tenant()
    bucket = tenant.bucket("logs")
    chances = [0.5, 0.05, 0.1]
    async with logged(tenant) as (to, book, clock):
        object.__setattr__(book._means, "chance", lambda: chances.pop(0))
        await to.replica("r", of="words")
        for include in ("prompts", "answers"):
            to.tables.apply(words(logging("logs", include=include)))
            await ask(to, stream=include == "prompts")
        to.tables.apply(words(logging("logs", sample=0.1)))
        shown = ["x-bessemer-logged" in (await ask(to))[2] for _ in range(3)]
        assert shown == [False, True, False]
        await written(book, clock)
        one, two, three = lines(bucket)
        assert ("request" in one, "answer" in one) == (True, False)
        assert ("request" in two, "answer" in two) == (False, True)
        assert {"request", "answer"} <= three.keys()


async def test_streams_that_are_cut_and_clients_that_leave() -> None:
    tenant = Tenant()
    bucket = tenant.bucket("logs")
    async with logged(tenant) as (to, book, clock):
        uid = await to.replica("r", of="words")
        to.engine.models[uid].behaviour.cut_after_tokens = 3
        assert b"answer_cut" in (await ask(to, stream=True))[1]
        to.engine.models[uid].behaviour.cut_after_tokens = None
        to.engine.models[uid].behaviour.seconds_per_token = 0.05
        headers = {"authorization": "Bearer bsk_good"}
        body = {"model": "words", "messages": ASK, "stream": True, "max_tokens": 500}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{to.url}/chat/completions", json=body, headers=headers) as answer,
        ):
            await answer.content.readexactly(900)
            answer.close()
        async with asyncio.timeout(5):
            while to.gateway._metrics.busy:
                await asyncio.sleep(0.01)
        to.engine.models[uid].behaviour.status = 400
        await ask(to)
        await written(book, clock)
        cut, left, wrong = lines(bucket)
        assert (cut["ended"], cut["status"], cut["outputTokens"]) == ("cut", 200, 3)
        assert len(cut["answer"]["choices"][0]["message"]["content"].split()) == 3
        assert left["ended"] == "cancelled"
        assert left["answer"]["choices"][0]["message"]["content"]
        assert (wrong["status"], wrong["ended"], "error" in wrong["answer"]) == (400, "whole", True)


async def test_what_the_gateway_refuses_is_logged_once_it_was_let_in() -> None:
    tenant = Tenant()
    bucket = tenant.bucket("logs")
    async with logged(tenant) as (to, book, clock):
        status, _, headers = await ask(to)
        assert (status, headers["x-bessemer-logged"]) == (503, "1")
        for token, raw in (("bsk_bad", b""), ("bsk_good", b'{"model": "none"}'), ("bsk_good", b"{")):
            assert "x-bessemer-logged" not in (await ask(to, token=token, raw=raw))[2]
        await written(book, clock)
        (one,) = lines(bucket)
        assert (one["status"], one["ended"], one["answer"]["error"]["code"]) == (503, "refused", "no_replica_ready")
        assert one["request"]["messages"] == ASK


async def test_whoever_stands_in_is_named_and_it_goes_where_it_was_asked() -> None:
    tenant = Tenant()
    bucket, other = tenant.bucket("logs"), tenant.bucket("others", project="acme--other")
    async with logged(tenant) as (to, book, clock):
        said = orjson.loads(words(logging("logs")).body)
        said["spec"]["fallbacks"] = ["second"]
        to.tables.apply(replace(words(None), body=orjson.dumps(said)))
        to.tables.apply(endpoint("second"))
        await to.replica("r", of="second")
        assert (await ask(to))[0] == 200
        assert "x-bessemer-logged" not in (await ask(to, model="second"))[2], "asked itself it is not logged"
        await written(book, clock)
        (one,) = lines(bucket)
        assert (one["endpoint"], one["answeredBy"]) == ("words", "second")
        assert other.objects == {}


async def test_of_two_tenants_each_has_its_own() -> None:
    tenant = Tenant()
    there = "zeta--lab"
    mine, theirs = tenant.bucket("logs"), tenant.bucket("logs2", project=there)
    async with logged(tenant) as (to, book, clock):
        to.tables.apply(api_key("good", "bsk_theirs", project=there))
        to.tables.apply(words(logging("logs2"), project=there))
        await ask(to)
        await ask(to, token="bsk_theirs", messages=[{"role": "user", "content": "of zeta"}])
        # They say that it goes to another's bucket; its keys they have not.
        to.tables.apply(words(logging("logs"), project=there, mark="m2"))
        await ask(to, token="bsk_theirs", messages=[{"role": "user", "content": "of zeta, too"}])
        await written(book, clock)
        assert [line["request"]["messages"] for line in lines(mine)] == [ASK]
        assert {line["project"] for line in lines(theirs)} <= {there}
        (said,) = [one for one in book.said() if one.project == there]
        assert said.reason == "KeysOfAnother"


async def test_a_place_that_hangs_costs_nobody_else_and_not_more_than_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logbook, "CLOSE_SECONDS", 0.1)
    tenant = Tenant()
    slow, fine = tenant.bucket("logs"), tenant.bucket("fine", project="zeta--lab")
    slow.hangs = True
    clock = FakeClock()
    book = tenant.book(clock, most=1_000_000)
    first = book.follow("u1", body_of("acme--lab", "logs"))
    second = book.follow("u2", body_of("zeta--lab", "fine"))
    assert first is not None
    assert second is not None
    for _ in range(60):
        done(first, b'{"x":"%b"}' % (b"y" * 20_000))
    assert first.said().dropped > 30
    assert book.room.held <= 500_000, "half of what there is, as long as nobody else wants any"
    await clock.advance(FLUSH_SECONDS)
    for _ in range(3):
        done(second, b'{"x":1}')
    await clock.advance(FLUSH_SECONDS)
    book.look()
    async with asyncio.timeout(5):
        while not fine.objects:
            await asyncio.sleep(0.005)
    assert slow.objects == {}
    await settle()
    assert second.said().written == 3
    await book.close()
    assert book.room.held == 0
    assert book.tally.dropped >= 60


def body_of(project: str, bucket: str, *, mark: str = "m", **more: Any) -> dict[str, Any]:
    metadata = {"name": "chat", "namespace": project, "annotations": {KEYS_MARK: mark}}
    return {"metadata": metadata, "spec": {"logging": logging(bucket, **more)}}


FACTS = Facts("id", "", "p", "chat", "", "key", "", "m", "", "/v1", 200, False, "whole", 1, 0, 1, 5, 0)


def done(place: LogPlace, asked: bytes) -> Entry:
    made = place.entry(asked)
    assert made is not None
    made.begin()
    made.answered(b'{"ok":true}')
    made.end(FACTS)
    return made


async def test_what_fails_is_tried_again_under_the_same_name_and_told() -> None:
    tenant = Tenant()
    bucket = tenant.bucket("logs")
    clock = FakeClock()
    book = tenant.book(clock)
    running = asyncio.ensure_future(book.run())
    place = book.follow("u1", body_of("acme--lab", "logs"))
    assert place is not None
    await goes_on(book, clock, 2)
    assert place.said() == EndpointLog(project="acme--lab", name="chat", uid="u1", written=0, dropped=0, expires=True)
    bucket.away = True
    with capture_logs() as said:
        done(place, b'{"secret words": 1}')
        for _ in range(100):
            await goes_on(book, clock, 10)
    assert place.said().reason == "PlaceUnreachable"
    assert [one["event"] for one in said] == ["prompts are not logged"]
    assert "secret words" not in str(said)
    bucket.away = False
    await goes_on(book, clock, 301)
    assert (place.said().reason, place.said().written, place.said().dropped) == ("", 1, 0)
    assert len(bucket.objects) == 1
    for reason, change in (
        ("NoKeys", {"mark": ""}),
        ("KeysOfAnother", {"mark": "m2"}),
        ("ApiAway", {"mark": "m3"}),
    ):
        tenant.at["acme--lab"] = "elsewhere"
        tenant.away = reason == "ApiAway"
        assert book.follow("u1", body_of("acme--lab", "logs", **change)) is place
        await goes_on(book, clock, 2)
        assert place.said().reason == reason
    running.cancel()
    await book.close()


async def test_a_batch_that_is_full_is_written_at_once() -> None:
    tenant = Tenant()
    bucket = tenant.bucket("logs")
    clock = FakeClock()
    book = tenant.book(clock)
    place = book.follow("u1", body_of("acme--lab", "logs"))
    assert place is not None
    for _ in range(20):
        done(place, b'{"x":"%b"}' % (b"y" * 500_000))
    book.look()
    await idle(book)
    assert len(bucket.objects) >= 2
    assert book.room.held < 5 << 20
    await book.close()
    assert len(lines(bucket)) == 20, "who ends in order writes what waits"


async def test_what_is_too_old_goes_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(retention, "REMOVED_MAX", 15)
    tenant = Tenant()
    bucket = tenant.bucket("logs")
    bucket.page = 3
    base = "p/acme--lab/chat/"
    ours = [f"{base}2025/06/{day:02}/{hour:02}/g9-000001.jsonl.gz" for day in range(1, 16) for hour in (0, 23)]
    others = [
        "p/acme--lab/chat/README",
        "p/acme--lab/chat/2024/01/01/00/mine.txt",
        "p/acme--lab/chat/2024/01/01/00/x/g9-000001.jsonl.gz",
        "p/acme--lab/chat/2024/99/01/00/g9-000001.jsonl.gz",
        "p/acme--lab/chat2/2024/01/01/00/g9-000001.jsonl.gz",
        "p/acme--other/chat/2024/01/01/00/g9-000001.jsonl.gz",
        "2024/01/01/00/g9-000001.jsonl.gz",
    ]
    for key in (*ours, *others):
        bucket.objects[key] = b""
    clock = FakeClock()  # 2025-06-15 15:06
    book = tenant.book(clock)
    place = book.follow("u1", body_of("acme--lab", "logs", retentionDays=5))
    assert place is not None
    await goes_on(book, clock, 2)
    assert sum(key in bucket.objects for key in ours) == len(ours) - 15, "so many at once, and no more"
    await goes_on(book, clock, 61)
    left = [key for key in ours if key in bucket.objects]
    assert left == [key for key in ours if key >= f"{base}2025/06/10/15"]
    assert set(others) < set(bucket.objects)
    assert bucket.expiring == {base: 5}
    await goes_on(book, clock, 8 * 3600)
    assert f"{base}2025/06/10/23/g9-000001.jsonl.gz" in bucket.objects, "not a moment too early"
    for _ in range(3):
        await goes_on(book, clock, 3600)
    assert f"{base}2025/06/10/23/g9-000001.jsonl.gz" not in bucket.objects
    bucket.expires = False
    book.follow("u1", body_of("acme--lab", "logs", retentionDays=1))
    await goes_on(book, clock, 2)
    assert [key for key in ours if key in bucket.objects] == ours[-1:]
    assert not place.said().expires
    await book.close()


async def test_of_an_endpoint_that_was_made_anew_unheard_nothing_of_before_is_kept_to() -> None:
    tenant, clock = Tenant(), FakeClock()
    tenant.bucket("logs")
    book = tenant.book(clock)
    tables = Tables(logbook=book)
    for uid, days in (("u1", 1), ("u2", 90)):
        tables.apply(replace(words(logging("logs", retentionDays=days)), uid=uid))
        tables.forget("Endpoint", frozenset([uid]))
    assert [(place.uid, place.wish.days) for place in book._places.values()] == [("u2", 90)]
    await book.close()


async def test_a_place_that_may_be_written_only_is_written_and_that_is_told() -> None:
    tenant = Tenant()
    bucket = tenant.bucket("logs")
    clock = FakeClock()
    book = tenant.book(clock)
    opened = book._means.open(S3Place(bucket="logs"), tenant.keys["acme--lab"])

    class Writes:
        put = staticmethod(opened.put)

        async def expire(self, prefix: str, *, days: int) -> bool:
            raise logplace.DriverError("PlaceRefused", "that is not allowed")

    object.__setattr__(book._means, "open", lambda *_: Writes())
    place = book.follow("u1", body_of("acme--lab", "logs"))
    assert place is not None
    done(place, b"{}")
    book.look()
    await clock.advance(FLUSH_SECONDS + 1)
    book.look()
    await idle(book)
    assert place.said().reason == "RetentionFails"
    assert place.said().written == 1
    assert len(bucket.objects) == 1
    await book.close()


def test_what_is_long_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "BYTES_MAX", 1000)
    tenant = Tenant()
    book = tenant.book(FakeClock())
    place = book.follow("u1", body_of("acme--lab", "logs"))
    assert place is not None
    made = place.entry(b'{"x":"' + b"\xc3\xa9" * 1000 + b'"}')
    assert made is not None
    made.begin()
    made.answered(b"z" * 1001)
    made.end(FACTS)
    line = orjson.loads(made.line())
    assert (line["requestCut"], line["answerCut"]) == (True, True)
    assert (len(line["request"]), line["answer"]) == (503, "z" * 1000)
    made = place.entry(b'{"x":1}')
    assert made is not None
    made.begin()
    for _ in range(100):
        made.heard(b'data: {"choices":[{"index":0,"delta":{"content":"' + b"a" * 300 + b'"}}]}\n\n')
    made.end(FACTS)
    line = orjson.loads(made.line())
    assert (line["requestCut"], line["answerCut"]) == (False, True)
    assert 300 <= len(line["answer"]["choices"][0]["message"]["content"]) <= 1000


def test_room_is_left_for_others() -> None:
    room = Room(1000)
    taken = sum(room.take("a", 10) for _ in range(100))
    assert taken == 50
    assert sum(room.take("b", 10) for _ in range(100)) == 25
    assert room.take("c", 10)
    room.give("a", 500)
    room.give("b", 250)
    room.give("c", 10)
    assert (room.held, room._by) == (0, {})


def test_gateway_and_api_mean_the_same_mark_and_bound() -> None:
    assert prompts.KEYS_MARK == KEYS_MARK
    assert prompts.DAYS == logplace.DAYS
    assert MEMORY_BYTES == 64 << 20


@pytest.mark.parametrize("error", [Malformed, TooLarge])
async def test_how_it_stands_is_reported_also_to_an_api_that_takes_nothing_of_it(error: type[BessemerError]) -> None:
    tenant = Tenant()
    clock, sent = FakeClock(), list[LoadReport]()
    book = tenant.book(clock)
    knows = [True]

    async def send(report: LoadReport, *, last: bool) -> None:
        if report.logs and not knows[0]:
            raise error("a report is of a gateway's endpoints")
        sent.append(report)

    reporter = Reporter(list, send, holder="g1", clock=clock, logs=book.said)
    await reporter.say()
    assert sent == [], "there is nothing to be said"
    book.follow("u1", body_of("acme--lab", "logs"))
    for knows[0], said in ((True, ["u1"]), (False, [])):
        await clock.advance(20)
        await reporter.say()
        assert [log.uid for log in sent[-1].logs] == said
        LoadReport.model_validate_json(orjson.dumps(sent[-1].dump()))
    assert "logs" not in sent[-1].dump(), "what an older one does not know is not said where there is none"
    await book.close()


async def test_a_tenant_with_many_places_is_worked_for_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook, "CLOSE_SECONDS", 0.1)
    tenant = Tenant()
    tenant.bucket("logs").hangs = True
    fine = tenant.bucket("fine", project="zeta--lab")
    book = tenant.book(FakeClock())
    for number in range(50):
        book.follow(f"u{number}", body_of("acme--lab", "logs"))
    book.follow("other", body_of("zeta--lab", "fine"))
    for _ in range(3):
        book.look()
    working = [place.whose for place in book._places.values() if place.working is not None]
    assert (working.count("acme"), working.count("zeta")) == (logbook.AT_ONCE_MAX, 1)
    async with asyncio.timeout(5):
        while not fine.expiring:
            await asyncio.sleep(0.002)
    await book.close()


async def test_a_server_of_s3_is_written_to_and_nothing_of_it_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Server("logs") as server:
        place = S3Place(bucket="logs", endpoint=server.url)

        async def fetch(_key: Key) -> tuple[Mapping[str, str], str]:
            return KEYS, place.audience

        opens = S3Buckets(Reach.of("127.0.0.1"), ssl.create_default_context()).open
        book = Logbook(opens, fetch, clock=SystemClock(), name="g1")
        async with rig(logbook=book) as to:
            said = {"s3": {"bucket": "logs", "prefix": "/p/", "endpoint": server.url}}
            to.tables.apply(words(said))
            await to.replica("r", of="words")
            with capture_logs() as told:
                await ask(to, messages=[{"role": "user", "content": "a secret prompt"}])
                server.status = 403
                book.look()
                await idle(book)
                (log,) = book.said()
                assert log.reason == "PlaceRefused"
                server.status = 0
                await book.close()
        assert "secret" not in str(told) + str(log) + caplog.text
        ((key, data),) = server.objects.items()
        assert key.startswith("p/acme--lab/words/20")
        assert b"a secret prompt" in gzip.decompress(data)
        assert server.rules is None, "who was refused had not come to that"
