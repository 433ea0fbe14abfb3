"""What a model's source is shown: sealed for that source, by who may, and never shown again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tests.api.world import ADMIN, BASE, World, named, world

HUB: dict[str, Any] = {"source": {"hub": {"repository": "tiny/llama"}}}
WHEEL: dict[str, Any] = {
    "source": {"wheel": {"package": "m", "version": "1.0", "member": "m/m.gguf"}},
    "sha256": "ab" * 32,
}
MERGE = "application/merge-patch+json"
TOKEN = "hf_sesame"


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def kept(w: World, uid: str) -> dict[str, str]:
    said = await w.store.sealed.get(uid, "source")
    found: dict[str, str] = orjson.loads(said) if said else {}
    return found


async def test_it_is_sealed_for_the_source_that_the_model_has(w: World) -> None:
    made = await w.create(f"{BASE}/models", {**named("llama"), "spec": HUB}, peer=ADMIN)
    uid = made["metadata"]["uid"]
    said = await w.call("POST", f"{BASE}/models/llama/token", {"token": TOKEN}, peer=ADMIN)
    assert (said.code, said.json) == (200, {})
    assert await kept(w, uid) == {"token": TOKEN, "audience": "hub:tiny/llama"}
    moved = {"spec": {"source": {"hub": None, "http": {"url": "https://mine.example/m.gguf"}}}}
    headers = {"content-type": MERGE}
    reply = await w.call("PATCH", f"{BASE}/models/llama", moved, headers=headers, peer=ADMIN)
    assert reply.code == 200, reply.body
    assert TOKEN not in reply.body.decode()
    assert (await kept(w, uid))["audience"] == "hub:tiny/llama"  # the new one is not told
    await w.call("POST", f"{BASE}/models/llama/token", {"token": TOKEN}, peer=ADMIN)
    assert (await kept(w, uid))["audience"] == "https://mine.example"
    await w.call("POST", f"{BASE}/models/llama/token", {}, peer=ADMIN)
    assert await kept(w, uid) == {}


async def test_nobody_says_whom_it_is_for(w: World) -> None:
    await w.create(f"{BASE}/models", {**named("llama"), "spec": HUB}, peer=ADMIN)
    body = {"token": TOKEN, "audience": "https://mine.example"}
    assert (await w.call("POST", f"{BASE}/models/llama/token", body, peer=ADMIN)).code == 400


async def test_what_a_wheel_or_a_folder_would_be_shown_is_refused(w: World) -> None:
    await w.create(f"{BASE}/models", {**named("m"), "spec": WHEEL}, peer=ADMIN)
    said = await w.call("POST", f"{BASE}/models/m/token", {"token": TOKEN}, peer=ADMIN)
    assert said.code == 400
    assert "comes from elsewhere" in said.json["message"]


async def test_the_platforms_are_its_administrators_alone(w: World) -> None:
    await w.create(f"{BASE}/models", {**named("llama"), "spec": HUB}, peer=ADMIN)
    for who in ("ann", "mia", "rob"):
        said = await w.call("POST", f"{BASE}/models/llama/token", {"token": TOKEN}, token=await w.login(who))
        assert said.code == 403


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example/m.gguf?token=abc",
        "https://files.example/m.gguf?X-Amz-Signature=abc&X-Amz-Date=1",
        "https://files.example/m.gguf?sv=2022&sig=abc",
        "https://files.example/m.gguf?x=" + "a1B2" * 10,
        "https://me:word@files.example/m.gguf",
    ],
)
async def test_an_address_that_tells_a_secret_is_refused(w: World, url: str) -> None:
    said = await w.call(
        "POST", f"{BASE}/models", {**named("llama"), "spec": {"source": {"http": {"url": url}}}}, peer=ADMIN
    )
    assert said.code == 422
    assert "have it sealed" in said.json["message"]
    fine = "https://files.example/m.gguf?download=true&author=me"
    await w.create(f"{BASE}/models", {**named("llama"), "spec": {"source": {"http": {"url": fine}}}}, peer=ADMIN)
