"""What one can do: start, stop, delete, cordon, and talk. Every act is a POST from our own pages (`guard`), is done
with the session's bearer and leads back to the page, where its effect shows by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import orjson
from starlette.responses import RedirectResponse, Response

from bessemer.core.cordons import cordoned
from bessemer.core.errors import BessemerError, Malformed, NotFound
from bessemer.core.resource import Key
from bessemer.portal.playground import KeyRefused
from bessemer.portal.stream import EventStream, told
from bessemer.portal.visit import Visit, body_of

BODY_BYTES_MAX = 256 << 10
TURNS_MAX = 64
TOKENS_MAX = 4096


async def instance_act(visit: Visit) -> Response:
    """start, stop or delete an Instance."""
    key = Key("Instance", visit.part("scope"), visit.part("name"))
    act = visit.part("act")
    if act == "delete":
        await visit.desk.client.delete(key)
        return RedirectResponse(f"/in/{key.namespace}/instances", 303)
    if act not in {"start", "stop"}:
        raise NotFound("there is no such act")
    await visit.desk.client.patch(key, {"spec": {"running": act == "start"}})
    return RedirectResponse(f"/in/{key.namespace}/instances/{key.name}", 303)


async def endpoint_act(visit: Visit) -> Response:
    """delete an Endpoint."""
    key = Key("Endpoint", visit.part("scope"), visit.part("name"))
    if visit.part("act") != "delete":
        raise NotFound("there is no such act")
    await visit.desk.client.delete(key)
    return RedirectResponse(f"/in/{key.namespace}/endpoints", 303)


async def host_act(visit: Visit) -> Response:
    """cordon or uncordon a Host."""
    name, act = visit.part("name"), visit.part("act")
    if act not in {"cordon", "uncordon"}:
        raise NotFound("there is no such act")
    await visit.desk.client.patch(Key("Host", "", name), cordoned(shut=act == "cordon"))
    return RedirectResponse(f"/hosts/{name}", 303)


async def chat(visit: Visit) -> Response:
    """Ask an endpoint's model: ``{"messages", "temperature", "max_tokens"}`` in, OpenAI's events out."""
    body = await _json(visit)
    key = Key("Endpoint", visit.part("scope"), visit.part("name"))
    question = {
        "model": key.name,
        "messages": _turns(body.get("messages")),
        "temperature": _number(body.get("temperature"), low=0.0, high=2.0, default=0.7),
        "max_tokens": int(_number(body.get("max_tokens"), low=1, high=TOKENS_MAX, default=512)),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    token = await visit.desk.keys.token(visit.desk.client, key, user=visit.desk.me.name)
    return EventStream(_answer(visit, key, token=token, question=question))


async def _answer(visit: Visit, endpoint: Key, *, token: str, question: dict[str, Any]) -> AsyncIterator[bytes]:
    """The answer; with a new key where the one at hand is taken no more."""
    desk, ask = visit.desk, visit.site.playground.ask
    try:
        async with AsyncExitStack() as stack:
            try:
                parts = await stack.enter_async_context(ask(token, question))
            except KeyRefused:
                desk.keys.drop(endpoint, token)
                token = await desk.keys.token(desk.client, endpoint, user=desk.me.name)
                parts = await stack.enter_async_context(ask(token, question))
            async for part in parts:
                yield part
    except BessemerError as error:
        yield told(orjson.dumps({"error": {"message": error.message}}))


async def _json(visit: Visit) -> dict[str, Any]:
    data = await body_of(visit.request, limit=BODY_BYTES_MAX)
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Malformed("the request is not JSON") from error
    if not isinstance(body, dict):
        raise Malformed("the request is not an object")
    return body


def _turns(value: object) -> list[dict[str, str]]:
    """The turns of a conversation, as OpenAI has them. Raises Malformed."""
    if not isinstance(value, list) or not 0 < len(value) <= TURNS_MAX:
        raise Malformed(f"a conversation has 1 to {TURNS_MAX} turns")
    turns = []
    for turn in value:
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        if role not in {"system", "user", "assistant"} or not isinstance(content, str):
            raise Malformed("a turn has a role and a content")
        turns.append({"role": role, "content": content})
    return turns


def _number(value: object, *, low: float, high: float, default: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return min(high, max(low, float(value)))
