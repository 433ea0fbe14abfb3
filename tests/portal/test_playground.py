"""The playground's keys and words: a key that was deleted is made anew, and what is said of the bill is so."""

from __future__ import annotations

import ast
import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from playwright.async_api import Route, expect

from bessemer.core.clock import FakeClock, SystemClock
from bessemer.core.errors import NotFound, Unavailable
from bessemer.core.ports import Page, Scope, Stored
from bessemer.core.resource import Key
from bessemer.portal import playground
from bessemer.portal.acts import BODY_BYTES_MAX, TURNS_MAX
from bessemer.portal.playground import Keyring, Playground
from tests.api.world import BASE
from tests.portal.test_guard import Caller, caller
from tests.portal.town import ANSWER, CHAT, LAB, Town

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION = {"messages": [{"role": "user", "content": "Why is steel blown with air?"}]}


async def said(session: Caller, question: dict[str, Any] = QUESTION) -> tuple[str, str]:
    """What the model said, and the error at its end."""
    answer = await session.post(f"/in/{LAB}/endpoints/{CHAT.name}/chat", question)
    assert answer.status == 200
    events = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: {")]
    chunks = [orjson.loads(event) for event in events]
    words = [c["choices"][0]["delta"].get("content", "") for c in chunks if c.get("choices")]
    return "".join(words).strip(), "".join(c["error"]["message"] for c in chunks if "error" in c)


async def test_a_key_that_was_deleted_elsewhere_is_made_anew(t: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playground, "_KEY_KNOWN_SECONDS_MAX", 0.2)
    async with caller(t, "ada") as ada:
        assert await said(ada) == (ANSWER, "")
        first = t.gateway.asked[-1]["key"]
        await t.w.call("DELETE", f"{BASE}/namespaces/{LAB}/apikeys/{first}")
        assert await said(ada) == (ANSWER, "")
        second = t.gateway.asked[-1]["key"]
        assert second != first
        assert await said(ada) == (ANSWER, "")
        assert t.gateway.asked[-1]["key"] == second


async def test_an_answer_that_broke_off_is_not_said_to_be_free(t: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = t.gateway.tokens

    async def some(body: Any, key: str) -> AsyncIterator[bytes]:
        async for event in whole(body, key):
            yield event
            raise ConnectionResetError("the engine is gone")

    monkeypatch.setattr(t.gateway, "tokens", some)
    async with caller(t, "ada") as ada:
        words, error = await said(ada)
    assert words == "Air"
    assert error == "The answer broke off. What the model had said by then is billed."


async def test_a_gateway_that_is_not_there_bills_nothing() -> None:
    way = Playground("http://127.0.0.1:9", tls=None, clock=SystemClock())
    with pytest.raises(Unavailable, match="Nothing was billed"):
        async with way.ask("token", QUESTION):
            pass
    await way.close()


class Crowded:
    """An api on which somebody else deletes each old key first."""

    def __init__(self) -> None:
        self.account = self
        self.made: list[str] = []

    async def list(self, scope: Scope) -> Page:
        body = orjson.dumps({"spec": {"expiresAt": "2001-01-01T00:00:00Z"}})
        return Page([Stored(Key("ApiKey", LAB, "playground-old"), "u", 1, 1, "", body)], 1)

    async def delete(self, key: Key) -> None:
        raise NotFound(f"there is no {key.name}")

    async def create(self, body: dict[str, Any]) -> None:
        self.made.append(body["metadata"]["name"])

    async def key_token(self, project: str, name: str) -> str:
        return f"token-of-{name}"


async def test_an_old_key_that_another_session_deletes_first_is_no_failure() -> None:
    api = Crowded()
    token = await Keyring(FakeClock()).token(api, CHAT, user="ada")  # type: ignore[arg-type]
    assert token == f"token-of-{api.made[0]}"


async def test_what_is_asked_has_a_bound(t: Town) -> None:
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": "x"} for i in range(TURNS_MAX + 1)]
    async with caller(t, "ada") as ada:
        answer = await ada.post(f"/in/{LAB}/endpoints/{CHAT.name}/chat", {"messages": turns})
        assert answer.status == 400
        assert (await said(ada, {"messages": turns[1:-1]}))[0] == ANSWER


async def test_what_is_chosen_goes_on_and_what_the_gateway_says_comes_back(
    t: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {"x-bessemer-endpoint": "other", "x-bessemer-waking": "3.250", "x-bessemer-max-tokens": "12"}
    monkeypatch.setattr(t.gateway, "heads", heads)
    path, more = f"/in/{LAB}/endpoints/{CHAT.name}/chat", {"top_p": 0.5, "seed": 7, "stop": ["END", 3, ""]}
    async with caller(t, "ada") as ada:
        answer = await ada.post(path, {**QUESTION, **more, "model": f"{CHAT.name}:tuned"})
        first = answer.text.partition("\n\n")[0]
        said_first = orjson.loads(first.removeprefix("data: "))
        assert said_first == {"bessemer": {"endpoint": "other", "waking": "3.250", "maxTokens": "12"}}
        asked = t.gateway.asked[-1]
        assert (asked["model"], asked["top_p"], asked["seed"], asked["stop"]) == (f"{CHAT.name}:tuned", 0.5, 7, ["END"])
        await ada.post(path, QUESTION)
        assert not {"top_p", "seed", "stop"} & set(t.gateway.asked[-1]), "what nobody chose is not said"
        assert (await ada.post(path, {**QUESTION, "model": "another"})).status == 400


@pytest.mark.real
async def test_the_playground_says_what_it_asked_as_code(t: Town, visitor: Callable[..., Any], tmp_path: Path) -> None:
    t.gateway.heads = {"x-bessemer-endpoint": "other", "x-bessemer-waking": "3.250"}
    async with visitor("ada") as member:
        page = await member.open(f"/in/{LAB}/playground")
        await page.get_by_label("System prompt").fill("You're a metallurgist.")
        await page.get_by_label("Stop at").fill("END, STOP")
        await page.get_by_label("Seed").fill("7")
        await page.get_by_label("Message").fill('Isn\'t it "hot"?')
        code = {name: await page.locator(f"#as-{name}").text_content() for name in ("curl", "python", "javascript")}
        await page.keyboard.press("Enter")
        note = page.locator(".msg:not(.msg--me) .msg__who")
        await expect(note).to_contain_text("answered by other, waited 3.3 s for a replica to wake")
        asked = t.gateway.asked[-1]
        t.gateway.pause = 0.2
        await page.get_by_label("Message").fill("And then?")
        await page.keyboard.press("Enter")
        await expect(page.locator("[aria-busy=true]")).to_contain_text("Air")
        await page.get_by_role("button", name="Stop").click()
        await expect(note.last).to_contain_text("stopped by you")
        await expect(page.get_by_label("Message")).to_be_focused()
        await page.get_by_role("button", name="Begin anew").click()
        await expect(page.locator(".msg")).to_have_count(0)
    t.gateway.pause, t.gateway.heads = 0.002, {}
    want = {name: asked[name] for name in ("model", "messages", "temperature", "max_tokens", "seed", "stop", "stream")}
    stand_in = tmp_path / "curl"
    stand_in.write_text('#!/bin/sh\nfor last; do :; done\nprintf "%s" "$last"\n')
    stand_in.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euc",
        code["curl"] or "",
        env={"PATH": f"{tmp_path}:{os.defpath}", "BESSEMER_API_KEY": "k"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert orjson.loads((await process.communicate())[0]) == want, "a shell reads it as it was asked"
    assert "You're a metallurgist." in (code["javascript"] or "")
    assert spoken(code["python"] or "") == want, "and so does Python"


def spoken(text: str) -> dict[str, Any]:
    """The arguments of the call of ``create`` in a Python text."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    (create,) = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "create"]
    return {word.arg: ast.literal_eval(word.value) for word in create.keywords if word.arg}


@pytest.mark.real
@pytest.mark.parametrize("answer", ["Heat.", "Heat. " * 2500], ids=["many turns", "much text"])
async def test_a_long_conversation_goes_on_without_its_oldest_turns(
    t: Town, visitor: Callable[..., Any], answer: str
) -> None:
    asked: list[list[dict[str, str]]] = []

    async def answers(route: Route) -> None:
        data = route.request.post_data_buffer or b""
        assert len(data) <= BODY_BYTES_MAX
        asked.append(orjson.loads(data)["messages"])
        event = orjson.dumps({"choices": [{"delta": {"content": answer}}]}).decode()
        await route.fulfill(content_type="text/event-stream", body=f"data: {event}\n\n")

    async with visitor("ada") as member:
        page = await member.open(f"/in/{LAB}/endpoints/{CHAT.name}")
        await page.route("**/chat", answers)
        for number in range(TURNS_MAX // 2 + 3):
            await page.fill("#say", f"Question {number}")
            await page.keyboard.press("Enter")
            await expect(page.locator(".msg:not(.msg--me) .msg__who")).to_have_count(number + 1)
            await expect(page.get_by_role("button", name="Send")).to_be_visible()
        await expect(page.locator(".msg--bad")).to_have_count(0)
        await expect(page.locator(".msg:not(.msg--me) .msg__who").last).to_contain_text("without the oldest turns")
    assert len(asked) == TURNS_MAX // 2 + 3
    assert max(map(len, asked)) < TURNS_MAX
    assert all(turns[0]["role"] == "user" and turns[-1]["content"].startswith("Question") for turns in asked)
