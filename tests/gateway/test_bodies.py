"""What a client asks takes nobody's replica away: bodies that break engines, and those that engines answer with 5xx."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from bessemer.gateway.errors import Refused
from bessemer.gateway.request import READ_BYTES_MAX, ROUTES, SEPARATORS_MAX, read
from bessemer.gateway.unsound import GRAMMAR_LENGTH_MAX, GRAMMAR_PARENTHESES_MAX, LOOKED_BACK_MAX, check
from bessemer.gateway.upstream import WHOLE_BYTES_MAX
from tests.drivers.engine.conftest import RealHost, model_path, ready, real_host
from tests.gateway.harness import PROJECT, SECRET, Rig, claim, endpoint, rig
from tests.gateway.test_hostile import engine as answering
from tests.gateway.test_hostile import said, usage
from tests.gateway.test_outer import ask as outer_ask
from tests.gateway.test_outer import outer, outer_rig, upstream

__all__ = ["model_path", "real_host"]

ASK = [{"role": "user", "content": "What is a converter?"}]
DEEP = "root ::= " + "(" * (GRAMMAR_PARENTHESES_MAX + 1)
BAD = said(b'{"error":{"message":"Failed to parse messages"}}', status=b"500 Internal Server Error")
GOOD = usage(prompt_tokens=1, completion_tokens=1)
ENOUGH = 12
"""Errors: more than eject a replica."""


async def ask(to: Rig, path: str = "chat/completions", **body: Any) -> tuple[int, str]:
    headers = {"authorization": "Bearer bsk_good"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{to.url}/{path}", json={"model": "words", **body}, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"grammar": DEEP}),
        ("/v1/completions", {"grammar": DEEP.replace("(", "\\u0028")}),
        ("/v1/completions", {"grammar": "#" * GRAMMAR_LENGTH_MAX}),
        ("/v1/chat/completions", {"repeat_last_n": LOOKED_BACK_MAX + 1}),
        ("/v1/chat/completions", {"dry_penalty_last_n": 1e9}),
        ("/v1/chat/completions", {"top_logprobs": 100_000}),
        ("/v1/completions", {"n_probs": 100_000}),
        ("/v1/chat/completions", {"repeat_last_n": [[]] * 40_000}),
        ("/v1/embeddings", {"content": "steel"}),
        ("/v1/embeddings", {"content": ["steel"], "input": None}),
        ("/v1/embeddings", {"content": ["steel"], "messages": ASK}),
        ("/v1/embeddings", {}),
    ],
)
def test_what_breaks_an_engine_reaches_none(path: str, body: dict[str, Any]) -> None:
    raw = orjson.dumps({"model": "words", **body}).replace(b"\\\\u0028", b"\\u0028")
    wanted = read(raw, ROUTES[path])
    with pytest.raises(Refused) as refused:
        check(wanted.fields or {}, generates=wanted.generates)
    assert refused.value.status == 400
    assert refused.value.words.param in {*body, "input"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            {"grammar": "root ::= (" * 9, "repeat_last_n": -1, "top_logprobs": 20, "logprobs": True},
        ),
        ("/v1/completions", {"repeat_last_n": "x", "grammar": 5, "logprobs": None}),
        ("/v1/embeddings", {"input": "steel", "content": "iron"}),
        ("/v1/embeddings", {"messages": ASK}),
    ],
)
def test_what_an_engine_refuses_itself_is_left_to_it(path: str, body: dict[str, Any]) -> None:
    wanted = read(orjson.dumps({"model": "words", **body}), ROUTES[path])
    check(wanted.fields or {}, generates=wanted.generates)


MANY = b"[" + b"[]," * (READ_BYTES_MAX // 3) + b"[]]"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":%b}' % MANY,
        b'{"model":"m","stream":%b}' % MANY,
        b'{"model":"m","n":%b}' % MANY,
        b'{"model":"m","timings_per_token":%b}' % MANY,
        b'{"model":"m","stream":true,"stream_options":{"a":%b}}' % MANY,
        b'{"model":"m","input":[%b[]]}' % (b"[]," * (SEPARATORS_MAX + 1)),
        b'{"model":"m","prompt":[%b""]}' % (b'"",' * (SEPARATORS_MAX + 1)),
    ],
    ids=["model", "stream", "n", "timings", "options", "input", "prompt"],
)
def test_no_body_is_made_into_more_than_it_is(raw: bytes) -> None:
    """A list of ten million lists is 30 MB, and 700 when it is read."""
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as refused:
            read(raw, ROUTES["/v1/completions"])
        assert tracemalloc.get_traced_memory()[1] < 2 * len(raw) + (1 << 20)
    finally:
        tracemalloc.stop()
    assert str(refused.value.words.param) in raw.decode()


def test_what_was_read_before_is_read_yet() -> None:
    for text, streams in (("[]", False), ("{}", False), ("0", False), ('"false"', True), ("1", True), ("true", True)):
        assert read(b'{"model":"m","stream":%b}' % text.encode(), ROUTES["/v1/completions"]).stream is streams
    texts = orjson.dumps({"model": "m", "input": ["a, b" * 8000] * 64})
    assert read(texts, ROUTES["/v1/embeddings"]).sequences == 64


@asynccontextmanager
async def two(to: Rig, folder: Path, *answers: Any) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for at, answer in enumerate(answers):
            await stack.enter_async_context(answering(to, answer, folder, name=f"r{at}"))
        yield


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_that_every_replica_answers_with_an_error_shuts_nobody_out(tmp_path: Path, stream: bool) -> None:
    async with rig(doors=tmp_path) as to, two(to, tmp_path, BAD, BAD, BAD):
        for _ in range(ENOUGH):
            status, text = await ask(to, messages=ASK, stream=stream)
            assert (status, "Failed to parse messages" in text) == (500, True), "its words are the client's"
        assert to.tables.tally.ejected == 0
        assert all(one.health.errors == 0 for one in to.tables.endpoints[PROJECT, "words"].replicas.values())
        assert to.paid() == []


async def test_one_that_answers_with_an_error_what_another_answers_is_shut_out(tmp_path: Path) -> None:
    async with rig(doors=tmp_path) as to, two(to, tmp_path, BAD, GOOD):
        for _ in range(ENOUGH):
            assert (await ask(to, messages=ASK))[0] == 200, "nothing was sent: another answers"
        assert to.tables.tally.ejected == 1
        assert len(to.paid()) == ENOUGH


async def test_one_that_is_alone_is_not_judged_by_its_errors(tmp_path: Path) -> None:
    async with rig(doors=tmp_path) as to, two(to, tmp_path, BAD):
        for _ in range(ENOUGH):
            assert (await ask(to, messages=ASK))[0] == 500
        assert to.tables.tally.ejected == 0


@pytest.mark.parametrize(
    "answer", [said(b"[1,2]"), said(b'"' + b"x" * WHOLE_BYTES_MAX + b'"')], ids=["another form", "too large"]
)
async def test_what_a_client_may_have_asked_for_shuts_nobody_out(tmp_path: Path, answer: Any) -> None:
    async with rig(doors=tmp_path) as to, two(to, tmp_path, answer):
        status, text = await ask(to, messages=ASK)
        assert (status, orjson.loads(text)["error"]["code"]) == (502, "answer_unfit")
        assert to.tables.tally.ejected == 0
        assert to.paid() == []


@pytest.mark.real
async def test_no_body_takes_the_real_engine_out(real_host: RealHost) -> None:
    """Those that llama.cpp died of, or answered so that it was left alone. There are two doors to it, so that one is
    there to be ejected."""
    doors = real_host.state / "doors"
    async with rig(doors=doors) as to:
        to.tables.apply(endpoint("words"))
        for name in ("r0", "r1"):
            change = claim(name, f"unix:{real_host.engine.door(f'uid-{PROJECT}-{name}')}", of="words")
            secret = hmac.new(SECRET, change.uid.encode(), hashlib.sha256).hexdigest()
            spec = replace(real_host.spec(change.uid), secret=secret, arguments={"pooling": "mean"})
            await real_host.engine.start(spec)
            await ready(real_host, change.uid, secret=secret)
            to.tables.apply(change)
        pixel = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        bodies: list[dict[str, Any]] = [
            {"messages": [{"content": "no role"}]},
            {"messages": [{"role": "user", "content": [pixel]}]},
            {"messages": ASK, "tools": [{}]},
            {"messages": ASK, "reasoning_format": "zorg"},
            {"messages": ASK, "json_schema": {}, "grammar": "x"},
            {"messages": ASK, "grammar": "root ::= " + "(" * 200_000},
            {"messages": ASK, "repeat_last_n": 2**31 - 1},
            {"messages": ASK, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "zorg"}}}},
            {"messages": ASK, "logit_bias": [[-5, 5], ["", 1]]},
            {"messages": ASK, "n": 1000},
            {"messages": [{"role": "user", "content": "\ud800"}]},
        ]
        for body in bodies:
            for _ in range(3):
                status, _ = await ask(to, max_tokens=2, **body)
                assert status in (200, 400, 500), body
        for more in ({"content": "steel"}, {"input": "word " * 3000}, {"input": []}, {"input": {"prompt_string": 5}}):
            for _ in range(3):
                assert (await ask(to, "embeddings", **more))[0] in (400, 500), more
        assert to.tables.tally.ejected == 0
        answers = await asyncio.gather(*(ask(to, messages=ASK, max_tokens=2) for _ in range(4)))
        assert [status for status, _ in answers] == [200] * 4


@pytest.mark.parametrize("status", [403, 500])
async def test_what_a_service_elsewhere_says_of_a_body_shuts_nobody_else_out(status: int) -> None:
    async with upstream() as there, outer_rig() as to:
        await to.replica("r0", of="words")
        to.tables.apply(outer("big", there.url, fallbacks=["words"]))
        there.status = status
        for _ in range(2):
            assert (await outer_ask(to, "big"))[0] == 200, "somebody stands in"
        assert to.tables.tally.ejected == 0
        for _ in range(ENOUGH):
            assert (await outer_ask(to, "big"))[0] == 200
        assert to.tables.tally.ejected == 1, "it errs, and is asked after the others"
        assert len(there.bodies) == 5
