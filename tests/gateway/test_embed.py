"""Endpoints that only embed, and those that do not: what is asked of the wrong one is refused, and nobody rests."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from bessemer.gateway.chains import Chain
from tests.gateway.harness import PROJECT, Rig, endpoint, rig
from tests.gateway.test_chains import tables

ASK = [{"role": "user", "content": "What is a converter?"}]


async def ask(to: Rig, model: str, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    headers = {"authorization": "Bearer bsk_good"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{to.url}/{path}", json={"model": model, **body}, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
async def test_who_only_embeds_is_asked_for_no_answer(path: str) -> None:
    async with rig() as to:
        to.tables.apply(endpoint("vectors", task="embed"))
        uid = await to.replica("r-0", of="vectors", intent={"task": "embed"})
        to.engine.models[uid].asked = {}
        said: dict[str, Any] = {"prompt": "x", "input": "x", "messages": ASK, "stream": True}
        status, reply = await ask(to, "vectors", path, **said)
        assert (status, reply["error"]["code"]) == (400, "unsupported_operation")
        assert reply["error"]["message"].endswith("ask it at /v1/embeddings.")
        assert to.engine.models[uid].asked == {}, "its engine has heard nothing of it"
        status, reply = await ask(to, "vectors", "embeddings", input=["iron", "mild steel"])
        assert (status, len(reply["data"])) == (200, 2)
        [record] = to.paid()
        assert (record.input_tokens, record.output_tokens) == (5, 0)


async def test_an_engine_that_embeds_nothing_says_so_and_goes_on() -> None:
    async with rig() as to:
        to.tables.apply(endpoint("words"))
        await to.replica("r-0", of="words")
        for _ in range(8):
            status, reply = await ask(to, "words", "embeddings", input="iron")
            assert (status, reply["error"]["param"]) == (400, "model")
            assert "does not embed" in reply["error"]["message"]
        assert (await ask(to, "words", "chat/completions", messages=ASK, max_tokens=2))[0] == 200
        assert [record.output_tokens for record in to.paid()] == [2], "nobody pays for what was refused"


async def test_who_only_embeds_stands_in_for_nobody_who_writes() -> None:
    of = tables(a={"backends": [{"endpoint": "v"}]}, v={"task": "embed", "fallbacks": ["w"]}, w={})
    chain = Chain(of.endpoints, of.endpoints[PROJECT, "a"], writes=True)
    assert [entry.name if (entry := chain.next(0.0)) else "" for _ in range(2)] == ["w", ""]
    async with rig() as to:
        to.tables.apply(endpoint("v", task="embed"))
        await to.replica("r-0", of="v", intent={"task": "embed"})
        to.tables.apply(endpoint("a", backends=[{"endpoint": "v", "weight": 1}]))
        status, reply = await ask(to, "a", "chat/completions", messages=ASK)
        assert (status, reply["error"]["code"]) == (400, "unsupported_operation")
        assert (await ask(to, "a", "embeddings", input="iron"))[0] == 200
