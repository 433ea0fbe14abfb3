"""Streams whose replica or gateway is stopped before they are over: told why, in words that clients know, and paid."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from structlog.testing import capture_logs

from bessemer.gateway import Tables
from bessemer.gateway.route import Pool
from tests.gateway.harness import PROJECT, Rig, rig

ASK = [{"role": "user", "content": "What is a converter?"}]


def pool(of: Tables) -> Pool:
    return of.endpoints[PROJECT, "words"].pool


async def begun(to: Rig, ai: openai.AsyncOpenAI) -> tuple[str, Any]:
    """A stream of which some has come, and its replica."""
    uid = await to.replica("r0", of="words")
    to.engine.models[uid].behaviour.seconds_per_token = 0.02
    stream = await ai.chat.completions.create(model="words", messages=ASK, max_tokens=900, stream=True,  # type: ignore[call-overload]
                                              extra_body={"ignore_eos": True})  # fmt: skip
    count = 0
    async for chunk in stream:
        count += bool(chunk.choices and chunk.choices[0].delta.content)
        if count == 3:
            return uid, stream
    raise AssertionError("it has ended")


@pytest.mark.parametrize("told", [True, False])
async def test_a_stream_whose_replica_is_stopped_says_so_and_pays_for_what_was_sent(told: bool) -> None:
    async with rig() as to, openai.AsyncOpenAI(base_url=to.url, api_key="bsk_good", max_retries=0) as ai:
        uid, stream = await begun(to, ai)
        if told:
            pool(to.tables).replicas[uid].leaving = True
            pool(to.tables).changed()
        else:
            to.tables.forget("Claim", frozenset())
        with capture_logs() as logs:
            await to.engine.stop(uid)
            with pytest.raises(openai.APIError, match="was stopped") as error:
                async for _ in stream:
                    pass
        assert error.value.code == "replica_stopped"
        assert to.tables.tally.ejected == 0
        assert not [line for line in logs if line["event"] == "stream cut"], "nothing has failed"
        [record] = to.paid()
        assert (record.ended, record.output_tokens >= 3) == ("cut", True)


async def test_one_that_failed_says_that() -> None:
    async with rig() as to, openai.AsyncOpenAI(base_url=to.url, api_key="bsk_good", max_retries=0) as ai:
        uid, stream = await begun(to, ai)
        await to.engine.stop(uid)
        with pytest.raises(openai.APIError) as error:
            async for _ in stream:
                pass
        assert error.value.code == "answer_cut"


async def test_what_was_not_begun_is_asked_of_another() -> None:
    async with rig() as to:
        for name in ("r0", "r1"):
            uid = await to.replica(name, of="words")
            to.engine.models[uid].behaviour.mute = name == "r0"
        pool(to.tables).replicas[f"uid-{PROJECT}-r1"].busy = 3
        async with aiohttp.ClientSession(headers={"authorization": "Bearer bsk_good"}) as session:
            body = {"model": "words", "messages": ASK, "max_tokens": 2}
            asked = asyncio.ensure_future(session.post(f"{to.url}/chat/completions", json=body))
            async with asyncio.timeout(10):
                while not pool(to.tables).replicas[f"uid-{PROJECT}-r0"].busy:
                    await asyncio.sleep(0.01)
            pool(to.tables).replicas[f"uid-{PROJECT}-r1"].busy = 0
            to.tables.forget("Claim", frozenset([f"uid-{PROJECT}-r1"]))
            await to.engine.stop(f"uid-{PROJECT}-r0")
            assert (await asked).status == 200


async def test_a_gateway_that_is_stopped_says_so_to_whoever_is_not_done() -> None:
    async with rig() as to, openai.AsyncOpenAI(base_url=to.url, api_key="bsk_good", max_retries=0) as ai:
        uid, stream = await begun(to, ai)
        async with aiohttp.ClientSession(headers={"authorization": "Bearer bsk_good"}) as session:
            to.engine.models[uid].behaviour.mute = True
            body = {"model": "words", "messages": ASK, "max_tokens": 2}
            asked = asyncio.ensure_future(session.post(f"{to.url}/chat/completions", json=body))
            async with asyncio.timeout(10):
                while to.tables.endpoints[PROJECT, "words"].replicas[uid].busy < 2:
                    await asyncio.sleep(0.01)
            await to.front.close(0.1)
            with pytest.raises(openai.APIError) as error:
                async for _ in stream:
                    pass
            assert error.value.code == "gateway_stopped"
            answer = await asked
            assert (answer.status, orjson.loads(await answer.read())["error"]["code"]) == (503, "gateway_stopped")
        [record] = to.paid()
        assert record.output_tokens >= 3
