"""The playground of an endpoint that embeds: no chat, but what texts become and how near they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import orjson
import pytest
import pytest_asyncio
from playwright.async_api import expect

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.drivers.engine.fake_server import EMBED_NUMBERS
from bessemer.portal.embedding import LETTERS_MAX
from tests.api.world import BASE
from tests.portal.conftest import PHONE
from tests.portal.test_guard import Answer, Caller, caller
from tests.portal.test_looks import sideways, violations
from tests.portal.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="module")

APPS = "rival--apps"
VECTORS = Key("Endpoint", APPS, "vectors")
ENDLESS = {"data": [{"index": 0, "embedding": [1.7e308, 1.7e308]}]}
PATH = f"/in/{APPS}/endpoints/{VECTORS.name}"


@pytest_asyncio.fixture(loop_scope="module", autouse=True, scope="module")
async def endpoint(t: Town) -> AsyncIterator[None]:
    spec = {"model": "smollm2-135m", "flavor": "serve-small", "task": "embed"}
    metadata = {"name": VECTORS.name, "namespace": APPS}
    await t.put({"kind": "Endpoint", "metadata": metadata, "spec": spec})
    await t.phase(VECTORS, "Ready", ready=True, readyReplicas=1, wantedReplicas=1)
    yield
    await t.w.store.objects.delete(VECTORS, CONTROLLER)


async def asked(session: Caller, *texts: Any) -> Answer:
    headers = {"Origin": session.origin, "Content-Type": "application/json", "Accept": "application/json"}
    return await session.post(f"{PATH}/embed", orjson.dumps({"texts": texts}), headers=headers)


async def test_texts_become_vectors_that_are_told_in_short(t: Town) -> None:
    async with caller(t, "rita") as rita:
        one = orjson.loads((await asked(rita, "iron ore")).body)
        assert [vector["numbers"] for vector in one["vectors"]] == [EMBED_NUMBERS]
        assert (len(one["vectors"][0]["first"]), one["similarity"], one["tokens"]) == (8, None, 3)
        two = orjson.loads((await asked(rita, "iron ore", "ore iron")).body)
        assert two["similarity"] == pytest.approx(1.0)
        far = orjson.loads((await asked(rita, "iron ore", "a violin in the evening")).body)
        assert 0 < far["similarity"] < 0.9
        assert t.gateway.asked[-1]["input"] == ["iron ore", "a violin in the evening"]


async def test_a_key_that_was_deleted_elsewhere_is_made_anew(t: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bessemer.portal.playground._KEY_KNOWN_SECONDS_MAX", 0.2)
    async with caller(t, "rita") as rita:
        await asked(rita, "iron")
        first = t.gateway.asked[-1]["key"]
        await t.w.call("DELETE", f"{BASE}/namespaces/{APPS}/apikeys/{first}")
        assert (await asked(rita, "iron")).status == 200
        assert t.gateway.asked[-1]["key"] != first


@pytest.mark.parametrize("texts", [(), ("",), (7,), ("a", "b", "c"), ("x" * (LETTERS_MAX + 1),)])
async def test_what_is_no_text_is_refused(t: Town, texts: tuple[Any, ...]) -> None:
    async with caller(t, "rita") as rita:
        assert (await asked(rita, *texts)).status == 400


@pytest.mark.parametrize("said", [{}, {"data": []}, {"data": [{"index": 0, "embedding": []}]}, ENDLESS])
async def test_what_is_no_vector_is_said(t: Town, monkeypatch: pytest.MonkeyPatch, said: Mapping[str, Any]) -> None:
    monkeypatch.setattr(t.gateway, "vectors", lambda _body: said)
    async with caller(t, "rita") as rita:
        answer = await asked(rita, "iron")
    assert (answer.status, orjson.loads(answer.body)["error"]) == (503, "The endpoint answered, and not with vectors.")


async def test_another_tenant_asks_nothing(t: Town) -> None:
    async with caller(t, "ada") as ada:
        assert (await asked(ada, "iron")).status in (403, 404)


async def test_the_playground_offers_no_chat_with_it(t: Town) -> None:
    async with caller(t, "rita") as rita:
        text = (await rita.get(f"/in/{APPS}/playground")).text
        assert f'<option value="{VECTORS.name}"' not in text
        assert f'href="{PATH}"' in text
        page = (await rita.get(PATH)).text
        assert 'id="chat-form"' not in page
        assert "/v1/embeddings" in page
        assert "/v1/chat/completions" not in page
        assert "client.embeddings.create" in page


@pytest.mark.real
async def test_two_texts_are_compared_on_its_page(t: Town, visitor: Callable[..., Any]) -> None:
    async with visitor("rita", PHONE, "dark") as member:
        page = await member.open(PATH)
        await page.get_by_label("Text", exact=True).fill("iron ore")
        await page.get_by_role("button", name="Embed").click()
        await expect(page.locator("#vector-facts")).to_contain_text(f"{EMBED_NUMBERS} numbers")
        await expect(page.locator("#vector-facts")).not_to_contain_text("Similarity")
        await page.get_by_label("Compare with").fill("ore iron")
        await page.get_by_role("button", name="Embed").click()
        await expect(page.locator("#vector-facts")).to_contain_text("1.0000 of 1")
        await page.evaluate("scrollTo(0, 0)")  # what the bar at the foot covers in part is no target there
        assert await violations(page) == []
        assert await sideways(page) <= 0
