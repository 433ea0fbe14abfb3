"""The playground of an endpoint that embeds: what one or two texts become, and how near they are to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.responses import JSONResponse, Response

from bessemer.core.errors import Malformed, TooLarge, Unavailable
from bessemer.core.resource import Key
from bessemer.kinds.inference.vetting.embedding import Vector, cosine, request, vectors_in
from bessemer.portal.acts import json_of
from bessemer.portal.playground import EMBEDDINGS, KeyRefused
from bessemer.portal.visit import Visit

TEXTS_MAX = 2
LETTERS_MAX = 8000
ANSWER_BYTES_MAX = 4 << 20
NUMBERS_SHOWN = 8


async def embed(visit: Visit) -> Response:
    """``{"texts": [one, or two]}`` in; of each how many numbers, the first of them and its length out, and of two their
    cosine. What is not shown is not sent."""
    texts = _texts((await json_of(visit)).get("texts"))
    key = Key("Endpoint", visit.part("scope"), visit.part("name"))
    began = visit.site.clock.monotonic()
    answer = await _asked(visit, key, texts=texts)
    seconds = visit.site.clock.monotonic() - began
    vectors = vectors_in(answer, len(texts))
    if not vectors or not all(math.isfinite(math.hypot(*vector)) for vector in vectors):
        raise Unavailable("The endpoint answered, and not with vectors.")
    alike = cosine(*vectors) if len(vectors) == TEXTS_MAX else None
    found = {"vectors": [_shown(vector) for vector in vectors], "similarity": alike, "ms": round(1000 * seconds)}
    return JSONResponse({**found, "tokens": _tokens(answer)}, headers={"Cache-Control": "no-store"})


async def _asked(visit: Visit, endpoint: Key, *, texts: Sequence[str]) -> bytes:
    """The gateway's answer; with a new key where the one at hand is taken no more."""
    desk, question = visit.desk, request(endpoint.name, *texts)
    token = await desk.keys.token(desk.client, endpoint, user=desk.me.name)
    try:
        return await _whole(visit, token, question=question)
    except KeyRefused:
        desk.keys.drop(endpoint, token)
        token = await desk.keys.token(desk.client, endpoint, user=desk.me.name)
        return await _whole(visit, token, question=question)


async def _whole(visit: Visit, token: str, *, question: Any) -> bytes:
    data = bytearray()
    async with visit.site.playground.ask(token, question, path=EMBEDDINGS) as reply:
        async for part in reply.parts:
            data += part
            if len(data) > ANSWER_BYTES_MAX:
                raise TooLarge("the answer is larger than anything that is shown here")
    return bytes(data)


def _texts(value: object) -> Sequence[str]:
    """Raises Malformed."""
    texts = [text for text in value if isinstance(text, str) and text.strip()] if isinstance(value, list) else []
    if not 0 < len(texts) <= TEXTS_MAX or any(len(text) > LETTERS_MAX for text in texts):
        raise Malformed(f"one or two texts of at most {LETTERS_MAX:,} letters are compared")
    return texts


def _shown(vector: Vector) -> dict[str, Any]:
    first = [round(number, 4) for number in vector[:NUMBERS_SHOWN]]
    return {"numbers": len(vector), "first": first, "length": round(math.hypot(*vector), 4)}


def _tokens(answer: bytes) -> int:
    usage = orjson.loads(answer).get("usage")
    count = usage.get("prompt_tokens", 0) if isinstance(usage, dict) else 0
    return count if isinstance(count, int) else 0
