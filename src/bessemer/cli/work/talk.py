"""A talk with a model, for the command `chat`: through the gateway, as any application has it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import aiohttp
import orjson

from bessemer.cli.connection import Target
from bessemer.cli.work.calling import gateway_of
from bessemer.cli.work.keyboard import lines
from bessemer.client import Client, an_object, read_kubeconfig, tls_context
from bessemer.core.clock import rfc3339
from bessemer.core.errors import BessemerError, Malformed, NotFound, Unavailable
from bessemer.core.resource import Key

KEY_SECONDS = 12 * 3600
"""How long a key lives that was made for a talk, where nobody could delete it at its end."""

_KNOWN_SECONDS = 5.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
"""An answer may take as long as it takes."""

_DONE = b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class Words:
    """What a talk begins with: a message, an ApiKey's token, a gateway's address; "" where none is given."""

    message: str
    key: str
    gateway: str


@dataclass(frozen=True, slots=True)
class _Way:
    """To the gateway at ``url``; the session bears the key."""

    session: aiohttp.ClientSession
    url: str


async def chat(client: Client, target: Target, *, place: Key, words: Words) -> None:
    """One answer to a message, or a talk at the prompt. Raises what the gateway refuses with, Unavailable where an
    answer broke off."""
    url = words.gateway or await gateway_of(client)
    if not url:
        raise Unavailable("the server names no gateway; give its address with --gateway")
    trust = tls_context(read_kubeconfig(target.kubeconfig).ca, None)
    async with (
        _key_for(client, place, given=words.key) as token,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust), headers={"Authorization": f"Bearer {token}"}, timeout=_TIMEOUT
        ) as session,
    ):
        way = _Way(session, url.rstrip("/"))
        if not words.key:
            await _is_known(way)
        if words.message:
            await _turn(way, place.name, history=[], asked=words.message)
        else:
            await _talk(way, place.name)


@contextlib.asynccontextmanager
async def _key_for(client: Client, place: Key, *, given: str) -> AsyncIterator[str]:
    """The given token, or that of a key which lives as long as the talk, and ends by itself where we cannot end it."""
    if given:
        yield given
        return
    key = Key("ApiKey", place.namespace, f"chat-{secrets.token_hex(4)}")
    until = rfc3339(time.time() + KEY_SECONDS)
    await client.create(an_object(key, {"description": "bessemer chat", "endpoints": [place.name], "expiresAt": until}))
    try:
        yield await client.account.key_token(key.namespace, key.name)
    finally:
        with contextlib.suppress(NotFound, Unavailable):
            await client.delete(key)


async def _is_known(way: _Way) -> None:
    """The gateway hears of a key by its watch, a moment after it was made. One that never hears refuses by itself."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        await asyncio.wait_for(_until_known(way), _KNOWN_SECONDS)


async def _until_known(way: _Way) -> None:
    while True:
        async with way.session.get(f"{way.url}/models") as answer:
            if answer.status != 401:
                return
        await asyncio.sleep(0.05)


async def _talk(way: _Way, model: str) -> None:
    """Line by line, until an empty one or the end of what is typed."""
    history: list[dict[str, str]] = []
    async with contextlib.aclosing(lines("> ")) as typed:
        async for line in typed:
            if not (asked := line.strip()):
                return
            await _turn(way, model, history=history, asked=asked)


async def _turn(way: _Way, model: str, *, history: list[dict[str, str]], asked: str) -> None:
    """Ask, print the answer as it comes, and keep both."""
    history.append({"role": "user", "content": asked})
    said: list[str] = []
    try:
        async with contextlib.aclosing(_answer(way, {"model": model, "messages": history, "stream": True})) as pieces:
            async for piece in pieces:
                said.append(piece)
                print(end=piece, flush=True)
    finally:
        if said:
            print()
    history.append({"role": "assistant", "content": "".join(said)})


async def _answer(way: _Way, body: dict[str, object]) -> AsyncGenerator[str, None]:
    """The answer piece by piece. Raises what the gateway refuses with, Unavailable where it breaks off."""
    begun = False
    try:
        async with (
            way.session.post(f"{way.url}/chat/completions", json=body) as answer,
            contextlib.aclosing(_pieces(answer)) as pieces,
        ):
            async for piece in pieces:
                begun = True
                yield piece
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        said = "the answer broke off" if begun else "the gateway cannot be reached"
        raise Unavailable(said, internal=str(error)) from error


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
    """The words in a stream of OpenAI's events. Raises Unavailable for an event that is an error, or without an end."""
    if answer.status != 200:
        raise _refused(await answer.read(), answer.status)
    async for line in answer.content:
        if line.startswith(_DONE):
            return
        if line.startswith(b"data: "):
            yield _words(line[6:])
    raise Unavailable("the answer broke off")


def _words(event: bytes) -> str:
    try:
        said = orjson.loads(event)
        if "error" in said:
            raise Unavailable(str(said["error"]["message"]))
        choices = said.get("choices") or [{}]
        return choices[0].get("delta", {}).get("content") or ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Malformed("the gateway said what cannot be read", internal=repr(event[:200])) from error


def _refused(body: bytes, status: int) -> BessemerError:
    try:
        return Malformed(str(orjson.loads(body)["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return Unavailable(f"the gateway answered {status}")
