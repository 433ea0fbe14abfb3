"""The unchanged official client against the gateway: answers, streams, and the error bodies that it knows."""

from __future__ import annotations

import asyncio

import aiohttp
import openai
import pytest

from tests.gateway.harness import Rig, api_key, endpoint, rig

ASK = [{"role": "user", "content": "What is a converter?"}]


def client(to: Rig, key: str = "bsk_good") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=to.url, api_key=key, max_retries=0)


def settled(to: Rig) -> list[tuple[int, int]]:
    pending = to.spool.pending()
    return [(r.input_tokens, r.output_tokens) for r in pending.records] if pending else []


async def test_an_answer_and_its_usage_are_the_engines() -> None:
    async with rig() as to, client(to) as ai:
        uid = await to.replica("r0", of="words")
        answer = await ai.chat.completions.create(model="words", messages=ASK, max_tokens=5)  # type: ignore[arg-type]
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.model == "words"
        assert settled(to) == [(answer.usage.prompt_tokens, answer.usage.completion_tokens)]
        assert to.engine.models[uid].counters.tokens_predicted == answer.usage.completion_tokens


async def test_a_stream_is_metered_without_showing_usage() -> None:
    async with rig() as to, client(to) as ai:
        uid = await to.replica("r0", of="words")
        stream = await ai.chat.completions.create(model="words", messages=ASK, max_tokens=6, stream=True)  # type: ignore[call-overload]
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert all(c.usage is None for c in chunks)
        assert all("timings" not in (c.model_extra or {}) for c in chunks)
        assert settled(to)[0][1] == to.engine.models[uid].counters.tokens_predicted == 6


@pytest.mark.parametrize("asked", [False, True])
async def test_timings_are_shown_to_who_asks_for_them(asked: bool) -> None:
    async with rig() as to, client(to) as ai:
        await to.replica("r0", of="words")
        extra = {"timings_per_token": asked}
        for stream in (False, True):
            answer = await ai.chat.completions.create(  # type: ignore[call-overload]
                model="words", messages=ASK, max_tokens=4, stream=stream, extra_body=extra
            )
            parts = [part async for part in answer] if stream else [answer]
            assert any("timings" in (part.model_extra or {}) for part in parts) is asked


async def test_usage_is_shown_to_who_asks_for_it() -> None:
    async with rig() as to, client(to) as ai:
        await to.replica("r0", of="words")
        stream = await ai.chat.completions.create(  # type: ignore[call-overload]
            model="words", messages=ASK, max_tokens=4, stream=True, stream_options={"include_usage": True}
        )
        usage = [c.usage async for c in stream if c.usage is not None]
        assert len(usage) == 1
        assert settled(to) == [(usage[0].prompt_tokens, usage[0].completion_tokens)]


@pytest.mark.parametrize("key", ["bsk_wrong", "bsk_expired", "bsk_revoked", "bsk_off"])
async def test_a_key_that_is_worth_nothing(key: str) -> None:
    async with rig() as to, client(to, key) as ai:
        to.tables.apply(api_key("expired", "bsk_expired", expiresAt="2020-01-01T00:00:00Z"))
        to.tables.apply(api_key("revoked", "bsk_revoked"))
        to.tables.apply(api_key("revoked", "bsk_revoked", gone=True))
        to.tables.apply(api_key("off", "bsk_off", disabled=True))
        with pytest.raises(openai.AuthenticationError) as refused:
            await ai.chat.completions.create(model="words", messages=ASK)  # type: ignore[arg-type]
        assert refused.value.code == "invalid_api_key"
        assert key not in str(refused.value.body)


async def test_no_key_at_all() -> None:
    async with rig() as to, aiohttp.ClientSession() as session, session.get(f"{to.url}/models") as answer:
        assert answer.status == 401
        assert (await answer.json())["error"]["type"] == "invalid_request_error"


async def test_an_unknown_model_and_another_tenants_are_the_same() -> None:
    async with rig() as to, client(to, "bsk_rival") as rival, client(to) as ours:
        to.tables.apply(api_key("rival", "bsk_rival", project="rival--lab"))
        refusals = []
        for ai, name in ((rival, "words"), (ours, "nothing")):
            with pytest.raises(openai.NotFoundError) as refused:
                await ai.chat.completions.create(model=name, messages=ASK)  # type: ignore[arg-type]
            assert refused.value.code == "model_not_found"
            refusals.append(str(refused.value.body).replace(name, "NAME"))
        assert refusals[0] == refusals[1]
        assert [m.id async for m in rival.models.list()] == []
        assert [m.id async for m in ours.models.list()] == ["words"]


async def test_a_key_of_one_endpoint_knows_no_other() -> None:
    async with rig() as to, client(to, "bsk_narrow") as ai:
        to.tables.apply(endpoint("other"))
        to.tables.apply(api_key("narrow", "bsk_narrow", endpoints=["other"]))
        with pytest.raises(openai.NotFoundError):
            await ai.chat.completions.create(model="words", messages=ASK)  # type: ignore[arg-type]
        assert [m.id async for m in ai.models.list()] == ["other"]


async def test_no_replica_says_when_to_come_back() -> None:
    async with rig() as to, client(to) as ai:
        with pytest.raises(openai.InternalServerError) as refused:
            await ai.chat.completions.create(model="words", messages=ASK)  # type: ignore[arg-type]
        assert refused.value.status_code == 503
        assert refused.value.response.headers["retry-after"] == "5"


async def test_a_lost_replica_is_left_for_another() -> None:
    async with rig() as to, client(to) as ai:
        await to.replica("r0", of="words")
        uid = await to.replica("r1", of="words")
        await to.engine.stop("uid-acme--lab-r0")
        for _ in range(3):
            answer = await ai.chat.completions.create(model="words", messages=ASK, max_tokens=2)  # type: ignore[arg-type]
            assert answer.choices[0].message.content
        assert to.engine.models[uid].counters.requests == 3


async def test_a_cut_stream_is_metered_as_far_as_it_came() -> None:
    async with rig() as to:
        uid = await to.replica("r0", of="words")
        to.engine.models[uid].behaviour.cut_after_tokens = 3
        body = {"model": "words", "messages": ASK, "stream": True, "max_tokens": 9}
        headers = {"Authorization": "Bearer bsk_good"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{to.url}/chat/completions", json=body, headers=headers) as got,
        ):
            text = (await got.read()).decode()
        assert "answer_cut" in text
        assert "lost in the middle of its answer" in text
        assert settled(to)[0][1] == 3


async def test_a_client_that_leaves_is_metered_and_frees_the_replica() -> None:
    async with rig() as to:
        uid = await to.replica("r0", of="words")
        to.engine.models[uid].behaviour.seconds_per_token = 0.02
        body = {"model": "words", "messages": ASK, "stream": True, "max_tokens": 200}
        headers = {"Authorization": "Bearer bsk_good"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{to.url}/chat/completions", json=body, headers=headers) as got,
        ):
            for _ in range(6):
                await got.content.readany()
            got.close()
        async with asyncio.timeout(30):
            while to.spool.waiting == 0:
                await asyncio.sleep(0.01)
        assert 0 < settled(to)[0][1] < 200
        assert all(r.busy == 0 for e in to.tables.endpoints.values() for r in e.replicas.values())


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"model": 7}', b'{"model": ""}', b"[" * 100_000])
async def test_a_body_that_means_nothing(body: bytes) -> None:
    async with rig() as to, aiohttp.ClientSession() as session:
        headers = {"Authorization": "Bearer bsk_good"}
        async with session.post(f"{to.url}/chat/completions", data=body, headers=headers) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["type"] == "invalid_request_error"


async def test_too_large_a_body_is_refused_by_its_head() -> None:
    async with rig() as to:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(to.url.split(":")[2].split("/")[0]))
        words = [
            "POST /v1/chat/completions HTTP/1.1",
            "host: x",
            "authorization: Bearer bsk_good",
            "content-length: 99999999",
        ]
        head = "\r\n".join([*words, "", ""])
        writer.write(head.encode())
        assert b"413" in await reader.readline()
        writer.close()


async def test_it_serves_nothing_that_it_cannot_record(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as to, client(to) as ai:
        uid = await to.replica("r0", of="words")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.posix_fallocate", full)
        with pytest.raises(openai.InternalServerError) as refused:
            await ai.chat.completions.create(model="words", messages=ASK)  # type: ignore[arg-type]
        assert refused.value.code == "usage_not_recordable"
        assert uid not in to.engine.models or to.engine.models[uid].counters.requests == 0
