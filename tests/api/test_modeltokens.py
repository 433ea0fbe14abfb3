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


# --- a project's ----------------------------------------------------------------------------------------------------

PATH = f"{BASE}/namespaces/acme--lab/projectmodels"


async def test_a_projects_is_set_by_its_administrators_and_used_by_its_members(w: World) -> None:
    made = await w.create(PATH, {**named("tuned"), "spec": HUB}, token=await w.login("mia"))
    for who, code in (("eve", 404), ("rob", 403), ("mia", 403), ("ann", 200)):
        said = await w.call("POST", f"{PATH}/tuned/token", {"token": TOKEN}, token=await w.login(who))
        assert said.code == code, who
    assert await kept(w, made["metadata"]["uid"]) == {"token": TOKEN, "audience": "hub:tiny/llama"}
    for who in ("ann", "mia", "rob"):
        said = await w.call("GET", f"{PATH}/tuned", token=await w.login(who))
        assert (said.code, TOKEN in said.body.decode()) == (200, False)


async def test_another_tenant_learns_nothing_of_it(w: World) -> None:
    await w.create(PATH, {**named("tuned"), "spec": {**HUB, "shared": True}}, token=await w.login("ann"))
    eve = await w.login("eve")
    none, there = f"{PATH}/none", f"{PATH}/tuned"
    for method in ("GET", "DELETE"):
        said, blank = await w.call(method, there, token=eve), await w.call(method, none, token=eve)
        assert said.code == blank.code == 404
        assert said.json["message"].replace("tuned", "none") == blank.json["message"]
    everywhere = await w.call("GET", f"{BASE}/projectmodels", token=eve)
    assert everywhere.json["items"] == []
    # What she may name in an endpoint is no matter of who else has such a name.
    wall = {"spec": {"models": {"names": ["public"]}}}
    await w.call("PATCH", f"{BASE}/tenants/other", wall, headers={"content-type": MERGE}, peer=ADMIN)
    answers = []
    for name in ("tuned", "nowhere"):
        body = {**named("chat"), "spec": {"model": name, "flavor": "small"}}
        said = await w.call("POST", f"{BASE}/namespaces/other--lab/endpoints", body, token=eve)
        answers.append((said.code, said.json["message"].replace(name, "X")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 422


async def test_a_wall_of_models_is_none_against_ones_own(w: World) -> None:
    path = f"{BASE}/tenants/acme"
    headers = {"content-type": MERGE}
    wall = {"spec": {"models": {"names": ["public"]}}}
    assert (await w.call("PATCH", path, wall, headers=headers, peer=ADMIN)).code == 200
    ann = await w.login("ann")
    await w.create(f"{BASE}/projects", named("acme--two"), peer=ADMIN)
    await w.create(PATH, {**named("tuned"), "spec": {**HUB, "shared": True}}, token=ann)
    await w.create(PATH, {**named("mine"), "spec": HUB}, token=ann)

    async def serve(project: str, model: str) -> int:
        body = {**named(f"chat-{model}"), "spec": {"model": model, "flavor": "small"}}
        return (await w.call("POST", f"{BASE}/namespaces/{project}/endpoints", body, token=ann)).code

    assert [await serve("acme--lab", name) for name in ("public", "tuned", "mine", "hidden")] == [201, 201, 201, 422]
    assert [await serve("acme--two", name) for name in ("public", "tuned", "mine")] == [201, 201, 422]


async def test_terms_of_a_projects_model_are_accepted_in_ones_own_name(w: World) -> None:
    spec = {**HUB, "accepted": {"licence": "llama3.1", "by": "ann", "at": "2001-01-01T00:00:00Z"}}
    made = await w.create(PATH, {**named("tuned"), "spec": spec}, token=await w.login("mia"))
    assert made["spec"]["accepted"]["by"] == "mia"
