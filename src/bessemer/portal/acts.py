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
NAME_MAX = 253
SEED_MAX = (1 << 32) - 1
STOPS_MAX, STOP_LETTERS_MAX = 4, 200


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
    """Ask an endpoint's model or one of its adapters: ``{"model", "messages", "temperature", "top_p", "max_tokens",
    "seed", "stop"}`` in, OpenAI's events out, before them ``{"bessemer": …}`` with what the gateway said of its own."""
    body = await json_of(visit)
    key = Key("Endpoint", visit.part("scope"), visit.part("name"))
    question = {
        "model": _model(body.get("model"), key.name),
        "messages": _turns(body.get("messages")),
        "temperature": _number(body.get("temperature"), low=0.0, high=2.0, default=0.7),
        "max_tokens": int(_number(body.get("max_tokens"), low=1, high=TOKENS_MAX, default=512)),
        **_chosen(body),
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
                reply = await stack.enter_async_context(ask(token, question))
            except KeyRefused:
                desk.keys.drop(endpoint, token)
                token = await desk.keys.token(desk.client, endpoint, user=desk.me.name)
                reply = await stack.enter_async_context(ask(token, question))
            if reply.said:
                yield told(orjson.dumps({"bessemer": reply.said}))
            async for part in reply.parts:
                yield part
    except BessemerError as error:
        yield told(orjson.dumps({"error": {"message": error.message}}))


async def json_of(visit: Visit) -> dict[str, Any]:
    """A request's body. Raises Malformed for one that is no object."""
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


def _model(value: object, endpoint: str) -> str:
    """The endpoint, or ENDPOINT:ADAPTER. Raises Malformed for another's."""
    if value is None or value == endpoint:
        return endpoint
    if not isinstance(value, str) or not value.startswith(f"{endpoint}:") or len(value) > NAME_MAX:
        raise Malformed(f"the model is {endpoint}, or one of its adapters")
    return value


def _chosen(body: dict[str, Any]) -> dict[str, Any]:
    """What is said only where it was chosen."""
    found: dict[str, Any] = {}
    if body.get("top_p") is not None:
        found["top_p"] = _number(body["top_p"], low=0.0, high=1.0, default=1.0)
    if body.get("seed") is not None:
        found["seed"] = int(_number(body["seed"], low=0, high=SEED_MAX, default=0))
    stops = body.get("stop")
    if isinstance(stops, list) and stops:
        found["stop"] = [stop[:STOP_LETTERS_MAX] for stop in stops[:STOPS_MAX] if isinstance(stop, str) and stop]
    return found


def _number(value: object, *, low: float, high: float, default: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return min(high, max(low, float(value)))
