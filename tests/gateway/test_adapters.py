"""``ENDPOINT:ADAPTER``: who has it answers, told which in its own way, and nobody reaches one that he did not name."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from bessemer.drivers.engine.protocol import Adapter
from bessemer.drivers.llamacpp.protocol import choosing
from bessemer.gateway.onward import OURS, carried, carrying
from tests.drivers.engine import tiny
from tests.drivers.engine.conftest import RealHost, model_path, ready, real_host
from tests.gateway.harness import PROJECT, SECRET, Rig, api_key, claim, endpoint, rig

__all__ = ["model_path", "real_host"]

ASK = [{"role": "user", "content": "What is a converter?"}]
LLAMACPP = {"engine": "llamacpp", "adapters": [{"name": "poems", "digest": "a"}, {"name": "prose", "digest": "b"}]}
VLLM = {**LLAMACPP, "engine": "vllm"}
CLAIMED = {"lora": [{"id": 1, "scale": 1.0}], "cache_prompt": True, "cache_salt": "rival--lab"}
"""What a client would write who wants what is not his."""


async def asked(to: Rig, uid: str, model: str, **words: Any) -> dict[str, Any]:
    """What the replica was asked when a client asked that."""
    headers = {"authorization": "Bearer bsk_good"}
    body = {"model": model, "messages": ASK, "max_tokens": 2, **words}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{to.url}/chat/completions", json=body, headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()
        await answer.read()
    return to.engine.models[uid].asked


def test_what_a_body_carries_is_in_it_once() -> None:
    ours = {"lora": b"[]", "cache_salt": b'"x"'}
    for raw in (b'{"model":"m"}', b'{"model":"m" , "n":1 } \n', b'{"lor\\u0061":[{"id":0}],"model":"m"}'):
        said = OURS.intersection(orjson.loads(raw))
        made = carrying(raw, ours, said=said)
        assert orjson.loads(made) == {**orjson.loads(raw), "lora": [], "cache_salt": "x"}
        assert made.count(b'"cache_salt"') == made.count(b'"lora"') == 1
        assert b"lor\\u0061" not in made
    assert orjson.loads(carrying(b'{"model":"a","n":1}', {"model": b'"b"'}, said=frozenset())) == {"model": "b", "n": 1}


def test_what_engines_are_told() -> None:
    assert carried("llamacpp", project="p", adapters=()) == {}, "there is none to reach"
    assert carried("another", project="p", adapters=("a",)) == {}
    of = carried("llamacpp", project="p", adapters=("a", "b"))
    said = {name: {field: orjson.loads(value) for field, value in ours.items()} for name, ours in of.items()}
    assert said == {"": choosing(None), "a": choosing(0), "b": choosing(1)}
    assert carried("vllm", project="p", adapters=("a",)) == {name: {"cache_salt": b'"p"'} for name in ("", "a")}


async def test_a_numbered_adapter_is_the_one_that_was_named() -> None:
    async with rig() as to:
        to.tables.apply(endpoint("words", adapters=["poems", "prose"]))
        uid = await to.replica("r0", of="words", intent=LLAMACPP)
        for model, number in (("words", None), ("words:poems", 0), ("words:prose", 1)):
            for words in ({}, CLAIMED, {"stream": True}, {"stream": True, **CLAIMED}):
                body = await asked(to, uid, model, **words)
                assert {name: body[name] for name in choosing(None)} == choosing(number)
                assert body["messages"] == ASK


async def test_an_adapter_by_its_name_and_whose_prompts_are_found() -> None:
    async with rig() as to:
        to.tables.apply(endpoint("words", adapters=["poems", "prose"]))
        uid = await to.replica("r0", of="words", intent=VLLM)
        for model in ("words", "words:poems"):
            for words in ({}, CLAIMED):
                body = await asked(to, uid, model, **words)
                assert (body["model"], body["cache_salt"]) == (model, PROJECT)


async def test_only_who_has_it_is_asked() -> None:
    async with rig() as to:
        to.tables.apply(endpoint("words", adapters=["poems", "late"]))
        plain = await to.replica("r0", of="words")
        uid = await to.replica("r1", of="words", intent={"adapters": [{"name": "poems", "digest": "a"}]})
        for _ in range(4):
            await asked(to, uid, "words:poems")
        assert to.engine.models[uid].counters.requests == 4
        assert to.engine.models[plain].counters.requests == 0
        async with openai.AsyncOpenAI(base_url=to.url, api_key="bsk_good", max_retries=0) as ai:
            with pytest.raises(openai.InternalServerError) as refused:
                await ai.chat.completions.create(model="words:late", messages=ASK)  # type: ignore[arg-type]
        assert refused.value.code == "no_replica_ready"


async def test_adapters_are_listed_and_one_that_is_none_is_no_model() -> None:
    async with rig() as to:
        to.tables.apply(endpoint("words", adapters=["prose", "poems"]))
        to.tables.apply(endpoint("other", adapters=["maps"]))
        to.tables.apply(api_key("narrow", "bsk_narrow", endpoints=["other"]))
        to.tables.apply(api_key("rival", "bsk_rival", project="rival--lab"))
        lists = {}
        for key in ("bsk_good", "bsk_narrow", "bsk_rival"):
            async with openai.AsyncOpenAI(base_url=to.url, api_key=key, max_retries=0) as ai:
                lists[key] = [model.id async for model in ai.models.list()]
                wrong = ["words:nothing", "words:", ":poems", "nothing:poems", "words:poems:prose", "words:ｐoems"]
                if key != "bsk_good":
                    wrong += ["words:poems", "words:prose"]
                words = set()
                for name in wrong:
                    with pytest.raises(openai.NotFoundError) as refused:
                        await ai.chat.completions.create(model=name, messages=ASK)  # type: ignore[arg-type]
                    assert refused.value.code == "model_not_found"
                    words.add(str(refused.value.body).replace(name, "NAME"))
                assert len(words) == 1, "nothing tells them apart"
        assert lists["bsk_good"] == ["other", "other:maps", "words", "words:poems", "words:prose"]
        assert lists["bsk_narrow"] == ["other", "other:maps"]
        assert lists["bsk_rival"] == []
        async with openai.AsyncOpenAI(base_url=to.url, api_key="bsk_good", max_retries=0) as ai:
            assert (await ai.models.retrieve("words:poems")).id == "words:poems"
            with pytest.raises(openai.NotFoundError):
                await ai.models.retrieve("words:nothing")


async def test_a_key_for_one_adapter_opens_no_other_and_not_the_base() -> None:
    async with rig() as to:
        to.tables.apply(endpoint("words", adapters=["poems", "prose"]))
        to.tables.apply(endpoint("words2", adapters=["poems"]))
        to.tables.apply(endpoint("stand", adapters=["poems"], fallbacks=["words"]))
        to.tables.apply(api_key("one", "bsk_one", endpoints=["words:poems"]))
        uid = await to.replica("r0", of="words", intent=LLAMACPP)
        async with openai.AsyncOpenAI(base_url=to.url, api_key="bsk_one", max_retries=0) as ai:
            assert [model.id async for model in ai.models.list()] == ["words:poems"]
            for name in ("words:poems", f"{PROJECT}/words:poems"):
                extra = {"lora": [{"id": 1, "scale": 1.0}], "cache_prompt": True}
                await ai.chat.completions.create(model=name, messages=ASK, extra_body=extra)  # type: ignore[arg-type]
                assert to.engine.models[uid].asked["lora"] == choosing(0)["lora"], "whatever else is asked for"
            asked = to.engine.models[uid].counters.requests
            closed = ("words", f"{PROJECT}/words", "words:", "words:prose", "words2:poems", "stand:poems", "stand")
            for name in (*closed, "words:poems:prose", "words:poems/words", "Words:poems", "words:poems "):
                with pytest.raises(openai.NotFoundError) as refused:
                    await ai.chat.completions.create(model=name, messages=ASK)  # type: ignore[arg-type]
                assert refused.value.code == "model_not_found", name
                with pytest.raises(openai.NotFoundError):
                    await ai.embeddings.create(model=name, input="steel")
            for name in ("words", "words:prose"):
                with pytest.raises(openai.NotFoundError):
                    await ai.models.retrieve(name)
            assert to.engine.models[uid].counters.requests == asked


@pytest.mark.real
async def test_the_real_engine_answers_with_the_adapter_that_was_named(real_host: RealHost, tmp_path: Path) -> None:
    adapters = tuple(Adapter(f"lora-{seed}", tiny.gguf(tmp_path / f"{seed}.gguf", seed=seed)) for seed in (1, 2))
    intent = {"adapters": [{"name": one.name, "digest": one.name} for one in adapters]}
    doors = real_host.state / "doors"
    async with rig(doors=doors) as to:
        to.tables.apply(endpoint("words", adapters=[one.name for one in adapters]))
        change = claim("r0", f"unix:{real_host.engine.door(f'uid-{PROJECT}-r0')}", of="words", intent=intent)
        secret = hmac.new(SECRET, change.uid.encode(), hashlib.sha256).hexdigest()
        await real_host.engine.start(replace(real_host.spec(change.uid), secret=secret, adapters=adapters))
        await ready(real_host, change.uid, secret=secret)
        to.tables.apply(change)
        async with openai.AsyncOpenAI(base_url=to.url, api_key="bsk_good", max_retries=0) as ai:

            async def text(model: str, **extra: Any) -> str:
                answer = await ai.chat.completions.create(
                    model=model,
                    messages=ASK,  # type: ignore[arg-type]
                    max_tokens=12,
                    temperature=0,
                    seed=1,
                    extra_body=extra,
                )
                return str(answer.choices[0].message.content)

            names = ("words", "words:lora-1", "words:lora-2")
            said = {name: await text(name) for name in names}
            assert len(set(said.values())) == 3
            for name in (*reversed(names), *names):
                assert await text(name, lora=[{"id": 1, "scale": 1.0}], cache_prompt=True) == said[name]
