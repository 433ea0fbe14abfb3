"""LoRA adapters and what else requests may ask of llama.cpp, on the real engine: chosen by request, embeddings beside
answers, structured output, and a cache of prompts that can be had or not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.adapters import HostAdapters
from bessemer.drivers.engine.asking import Asking
from bessemer.drivers.engine.fake import FakeAdapters
from bessemer.drivers.engine.loaded import Loaded
from bessemer.drivers.engine.protocol import Adapter
from bessemer.drivers.engine.sense import judge_vector
from bessemer.drivers.llamacpp.protocol import choosing
from bessemer.drivers.vllm.real import Vllm
from tests.drivers.engine import tiny
from tests.drivers.engine.conftest import ALIAS, SECRET, FakeHost, RealHost, ready, talk

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


async def post(door: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=door)) as session,
        session.post(f"http://engine{path}", json=body, headers={"Authorization": f"Bearer {SECRET}"}) as response,
    ):
        return response.status, await response.json()


async def text(door: str, **words: Any) -> str:
    return (await talk(door, temperature=0, seed=1, **words)).text


@pytest.mark.real
async def test_a_request_chooses_its_adapter(real_host: RealHost, tmp_path: Path) -> None:
    one, two = (Adapter(f"lora-{seed}", tiny.gguf(tmp_path / f"{seed}.gguf", seed=seed)) for seed in (1, 2))
    await real_host.engine.start(replace(real_host.spec(), adapters=(one, two)))
    await ready(real_host)
    door = real_host.engine.door("a")
    assert await real_host.engine.adapters.names("a", SECRET) == ("lora-1", "lora-2")
    plain, first, second = [await text(door, **choosing(number)) for number in (None, 0, 1)]
    assert len({plain, first, second}) == 3
    for number, said in ((0, first), (None, plain), (1, second), (None, plain), (1, second)):
        assert await text(door, **choosing(number)) == said
    assert await text(door) == plain, "one that nobody asked for does nothing"
    with pytest.raises(DriverError) as refusal:
        await real_host.engine.adapters.load("a", SECRET, adapter=Adapter("three", one.path))
    assert refusal.value.reason == "AdaptersFixed"


@pytest.mark.real
async def test_an_adapter_that_is_none_is_told(real_host: RealHost, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\xff" * 4096)
    await real_host.engine.start(replace(real_host.spec(), adapters=(Adapter("bad", bad),)))
    with pytest.raises(DriverError) as refusal:
        await ready(real_host)
    assert refusal.value.reason == "EngineExited"
    with pytest.raises(DriverError) as missing:
        await real_host.engine.start(replace(real_host.spec("b"), adapters=(Adapter("gone", tmp_path / "gone"),)))
    assert missing.value.reason == "ContentMissing"


@pytest.mark.real
async def test_a_model_of_several_files_is_served(real_host: RealHost, tmp_path: Path) -> None:
    (tmp_path / "licence").write_text("as it is")
    adapter = Adapter("lora", tmp_path, files={"a.gguf": tiny.gguf(tmp_path / "a.gguf")})
    files = {"licence": tmp_path / "licence", "weights/model.gguf": real_host.model}
    await real_host.engine.start(replace(real_host.spec(), files=files, model_path=tmp_path, adapters=(adapter,)))
    await ready(real_host)
    assert await real_host.engine.adapters.names("a", SECRET) == ("lora",)
    for names, words in ((("licence",), "is .gguf"), (("m.gguf", "../m.gguf"), "outside"), (("/m.gguf",), "outside")):
        with pytest.raises(DriverError, match=words) as refusal:
            await real_host.engine.start(replace(real_host.spec("b"), files=dict.fromkeys(names, real_host.model)))
        assert refusal.value.reason == "ContentMissing"


@pytest.mark.real
async def test_it_embeds_and_answers(real_host: RealHost) -> None:
    await real_host.engine.start(replace(real_host.spec(), arguments={"pooling": "mean"}))
    await ready(real_host)
    door = real_host.engine.door("a")
    status, reply = await post(door, "/v1/embeddings", {"model": ALIAS, "input": ["iron", "steel", "Tuesday"]})
    assert status == 200
    assert [len(one["embedding"]) for one in reply["data"]] == [tiny.HIDDEN] * 3
    assert reply["usage"]["prompt_tokens"] > 0
    assert await text(door)
    await real_host.engine.start(real_host.spec("b"))
    await ready(real_host, "b")
    status, _ = await post(real_host.engine.door("b"), "/v1/embeddings", {"model": ALIAS, "input": "iron"})
    assert status == 501, "without pooling there are none"


@pytest.mark.real
async def test_one_that_only_embeds_is_proved_by_a_vector(real_host: RealHost) -> None:
    """The small model stands in for one that is made to embed: how its tokens become a vector has to be said."""
    embeds = replace(real_host.spec(), task="embed", slots=1, context_tokens=2048, memory_bytes=3 << 30)
    await real_host.engine.start(replace(embeds, arguments={"pooling": "mean"}))
    found = await ready(real_host, task="embed")
    assert (found.model, found.text, found.completion_tokens) == (ALIAS, "", 0)
    assert found.prompt_tokens > 0
    long = "iron " * 1200
    status, reply = await post(real_host.engine.door("a"), "/v1/embeddings", {"model": ALIAS, "input": long})
    assert (status, len(reply["data"][0]["embedding"])) == (200, tiny.HIDDEN), "as much at once as its memory bears"
    assert reply["usage"]["prompt_tokens"] > 1024
    await real_host.engine.start(replace(embeds, uid="b"))
    with pytest.raises(DriverError) as refusal:
        await ready(real_host, "b", task="embed")
    assert refusal.value.reason == "ProbeFailed", "this model says nothing of itself"


async def test_a_fake_that_only_embeds_is_proved_alike(fake_host: FakeHost) -> None:
    await fake_host.engine.start(replace(fake_host.spec(), task="embed"))
    found = await ready(fake_host, task="embed")
    assert (found.text, found.prompt_tokens, found.completion_tokens) == ("", 3, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": []},
        {"data": [{"embedding": [0.0, 0.0]}]},
        {"data": [{"embedding": [float("nan"), 1.0]}]},
        {"data": [{"embedding": []}]},
        {"model": "other"},
        {"usage": {"prompt_tokens": 0, "total_tokens": 0}},
        {"usage": {"prompt_tokens": 2, "total_tokens": 3}},
    ],
)
def test_a_vector_that_says_nothing_is_no_success(wrong: dict[str, Any]) -> None:
    good = {
        "model": ALIAS,
        "data": [{"embedding": [0.5, 0.0]}],
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    assert judge_vector(good, alias=ALIAS, seconds=0.1).prompt_tokens == 2
    with pytest.raises(DriverError) as refusal:
        judge_vector(good | wrong, alias=ALIAS, seconds=0.1)
    assert refusal.value.reason == "ProbeFailed"


@pytest.mark.real
async def test_prompts_are_cached_or_not(real_host: RealHost) -> None:
    for uid, kept in (("a", True), ("b", False)):
        await real_host.engine.start(replace(real_host.spec(uid), arguments={"cache-prompt": kept}))
        await ready(real_host, uid)
        first, again = [(await talk(real_host.engine.door(uid))).timings for _ in range(2)]
        assert (again["cache_n"] > 0) == kept
        assert first["prompt_n"] + first["cache_n"] == again["prompt_n"] + again["cache_n"]


@pytest.mark.real
async def test_it_keeps_to_a_schema(real_host: RealHost) -> None:
    await real_host.engine.start(real_host.spec())
    await ready(real_host)
    door = real_host.engine.door("a")
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    said = json.loads(await text(door, response_format=wanted, max_tokens=80))
    assert sorted(said) == ["age", "name"]
    assert isinstance(said["age"], int)


@pytest.mark.real
async def test_each_event_counts(real_host: RealHost) -> None:
    await real_host.engine.start(real_host.spec())
    await ready(real_host)
    reply = await talk(real_host.engine.door("a"), stream=True, timings_per_token=True)
    counts = [event["timings"]["predicted_n"] for event in reply.events if "timings" in event]
    assert counts == sorted(counts)
    assert len(counts) > 2


@pytest.mark.parametrize(
    "entries",
    [
        [{"id": "m:../../kept", "parent": "m"}],
        [{"id": "m:{kept}", "parent": "m"}],
        [{"id": "m:", "parent": "m"}],
        [{"id": "m:.", "parent": "m"}],
        ["m:late"],
    ],
    ids=lambda entries: str(entries[0]),
)
async def test_an_engine_names_no_folder_to_be_removed(tmp_path: Path, entries: list[Any]) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    said = json.dumps({"data": [{"id": "m"}, *entries]}).replace("{kept}", str(kept)).encode()
    loaded, asked = Loaded(tmp_path / "state"), list[str]()
    loaded.folder("a").mkdir(parents=True)

    class Hostile:
        async def recipe(self, uid: str) -> Vllm:
            return Vllm(tmp_path)

        async def ask(self, uid: str, path: str, *, secret: str, body: dict[str, Any] | None = None) -> bytes:
            asked.append(path)
            return said

    adapters = HostAdapters(cast(Asking, Hostile()), loaded)
    with pytest.raises(DriverError) as refusal:
        await adapters.names("a", SECRET)
    assert refusal.value.reason == "ProbeFailed"
    for name in (str(kept), "../../kept", ""):
        with pytest.raises((DriverError, ValueError)):
            await adapters.unload("a", SECRET, name=name)
        with pytest.raises(ValueError, match="no name"):
            loaded.drop("a", name)
    assert (kept.is_dir(), loaded.folder("a").is_dir(), set(asked)) == (True, True, {"/v1/models"})


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
async def test_adapters_of_a_fake_come_and_go_as_its_sort_does(fake_host: FakeHost, engine: str) -> None:
    adapters, late = FakeAdapters(fake_host.engine), Adapter("late", Path("/fake/late"))
    spec = replace(fake_host.spec(), engine=engine, adapters=(Adapter("early", Path("/fake/early")),))
    fake_host.engine.sorts = ("llamacpp", "vllm")
    await fake_host.engine.start(spec)
    await ready(fake_host)
    assert await adapters.names("a", SECRET) == ("early",)
    if engine == "llamacpp":
        with pytest.raises(DriverError) as refusal:
            await adapters.load("a", SECRET, adapter=late)
        assert refusal.value.reason == "AdaptersFixed"
        return
    for _ in range(2):
        await adapters.load("a", SECRET, adapter=late)
    assert await adapters.names("a", SECRET) == ("early", "late")
    for _ in range(2):
        await adapters.unload("a", SECRET, name="early")
    assert await adapters.names("a", SECRET) == ("late",)
