"""What is no text is held as all that there is room for, and makes no answer shorter."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson
import pytest

from bessemer.core.money import Prices
from bessemer.gateway import request
from bessemer.gateway.admission import Room, _smaller
from bessemer.gateway.books import Books
from bessemer.gateway.need import most
from bessemer.gateway.request import Route, Wanted
from bessemer.gateway.route import Pool, Replica
from bessemer.gateway.tables import KeyEntry
from bessemer.gateway.unmeasured import unmeasured
from tests.gateway.harness import PROJECT, rig

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
CHAT, COMPLETIONS = request.ROUTES["/v1/chat/completions"], request.ROUTES["/v1/completions"]
RESPONSES = request.ROUTES["/v1/responses"]


def _parts(**part: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (CHAT, {"messages": _parts(type="image_url", image_url={"url": PIXEL})}),
        (CHAT, {"messages": _parts(image_url=PIXEL)}),
        (CHAT, {"messages": _parts(type="input_audio", input_audio={"data": "UklGRg==", "format": "wav"})}),
        (CHAT, {"messages": _parts(type="video_url", video_url={"url": "data:video/mp4;base64,AAAA"})}),
        (CHAT, {"messages": _parts(type="file", file={"file_id": "f1"})}),
        (CHAT, {"messages": _parts(type="image_embeds", image_embeds="AAAA")}),
        (RESPONSES, {"input": _parts(type="input_image", file_id="f1")}),
        (RESPONSES, {"input": "x", "previous_response_id": "r1"}),
        (RESPONSES, {"prompt": {"id": "p1"}}),
        (COMPLETIONS, {"prompt": {"prompt_string": "x", "multimodal_data": ["AAAA"]}}),
    ],
)
def test_what_is_no_text_is_held_as_all_that_there_is_room_for(route: Route, body: dict[str, object]) -> None:
    """One pixel in 94 characters is hundreds of tokens to some models."""
    bound = "max_output_tokens" if route is RESPONSES else "max_tokens"
    said = request.read(orjson.dumps({"model": "m", bound: 5, **body}), route)
    assert unmeasured(said.fields or {})
    said.unmeasured = True
    need = most(said, 8192)
    assert (need.tokens, need.writes) == (8192, 5)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": 'Say "image_url": and type "file".'}]},
        {"messages": [{"role": "user", "content": "audio"}, {"role": "assistant", "content": "an image"}]},
        {
            "messages": [],
            "tools": [{"type": "function", "function": {"name": "read", "parameters": {"file_path": {}}}}],
        },
        {"prompt": ["file", "image", "audio"]},
        {"input": [{"type": "message", "role": "user", "content": "video"}], "metadata": {"image_url": "x"}},
    ],
)
def test_words_of_what_is_no_text_are_text(body: dict[str, object]) -> None:
    assert not unmeasured(request.read(orjson.dumps({"model": "m", **body}), CHAT).fields or {})


def test_an_answer_is_not_made_shorter_for_the_bytes_of_an_image() -> None:
    """What it may be is what is left of money, not of the context beside 3 MB."""
    image = _parts(type="image_url", image_url={"url": "data:image/png;base64," + "A" * 3_000_000})
    said = request.read(orjson.dumps({"model": "m", "messages": image}), CHAT)
    said.unmeasured = unmeasured(said.fields or {})
    prices = Prices(input=1_000_000, cached=1_000_000, output=100_000_000)
    room = Room(None, ((prices.most(8192, writes=3000), prices),))
    smaller = _smaller(room, said, context=8192, below=most(said, 8192))
    assert smaller is not None
    assert (smaller.tokens, smaller.writes) == (8192, 3000)
    small = request.read(orjson.dumps({"model": "m", "messages": _parts(image_url=PIXEL * 60)}), CHAT)
    small.unmeasured = unmeasured(small.fields or {})
    assert _smaller(room, small, context=8192, below=most(small, 8192)) == smaller


@pytest.mark.parametrize("name", ["image_url", "image\\u005furl", "input\\u005faudio"])
async def test_it_is_seen_however_its_name_is_written(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Wanted] = []
    enter = Books.enter

    def watched(self: Books, key: KeyEntry, wanted: Wanted, **more: Any) -> Any:
        seen.append(wanted)
        return enter(self, key, wanted, **more)

    monkeypatch.setattr(Books, "enter", watched)
    async with rig() as to:
        uid = await to.replica("r0", of="words")
        part = f'{{"type":"x","{name}":{{"data":"{"A" * 100_000}"}}}}'
        raw = f'{{"model":"words","max_tokens":2,"messages":[{{"role":"user","content":[{part}]}}]}}'
        headers = {"authorization": "Bearer bsk_good"}
        busy: list[int] = []
        monkeypatch.setattr(type(to.tables.endpoints[PROJECT, "words"].pool), "began", _began(busy))
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{to.url}/chat/completions", data=raw) as answer,
        ):
            assert answer.status == 200, await answer.text()
        assert [one.unmeasured for one in seen] == [True]
        assert uid in to.engine.models
        assert busy == [to.tables.endpoints[PROJECT, "words"].context_tokens], "to whoever shares out the work, too"


def _began(costs: list[int]) -> Any:
    began = Pool.began

    def watched(self: Pool, replica: Replica, cost: int) -> bool:
        costs.append(cost)
        return began(self, replica, cost)

    return watched
