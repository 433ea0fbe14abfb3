"""The playground: talks to the gateway as any application does, with a key made for this session alone.

A key is for one endpoint, good for an hour, held in memory only and deleted at sign-out, so that every token of a
playground is metered and billed like any other. Nothing of a conversation is kept here.
"""

from __future__ import annotations

import re
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from bessemer.client import Client
from bessemer.core.clock import Clock, epoch, rfc3339
from bessemer.core.errors import BessemerError, NotFound, Unavailable
from bessemer.core.ports import Scope
from bessemer.core.resource import API_VERSION, Key

KEY_SECONDS = 3600
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
PLAYGROUND = "playground-"
"""How the names of these keys begin."""
_LABEL = "bessemer.dev/made-by"
_PORTAL = "portal"
_KEY_MARGIN_SECONDS = 120
_KEY_KNOWN_SECONDS_MAX = 5.0
"""How long a new key may take to reach the gateway's table."""
_REPLY_SECONDS_MAX = 600.0
_HEADS = {"x-bessemer-endpoint": "endpoint", "x-bessemer-waking": "waking", "x-bessemer-max-tokens": "maxTokens"}
"""Of an answer: who gave it, how long a replica was waited for, and how many tokens there was room for."""


class KeyRefused(Unavailable):
    """The gateway does not take the key: it was deleted, or ended, elsewhere."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: ``said`` is what the gateway told in its heads, in the names of the page; ``parts`` are its bytes."""

    said: Mapping[str, str]
    parts: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class _Made:
    key: Key
    token: str
    until: float


class Keyring:
    """The keys of one session, by (project, endpoint)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made: dict[tuple[str, str], _Made] = {}

    async def token(self, client: Client, endpoint: Key, *, user: str) -> str:
        """A token that opens this endpoint; a key is made where there is none. Raises Forbidden for readers."""
        made = self._made.get((endpoint.namespace, endpoint.name))
        if made is None or made.until - _KEY_MARGIN_SECONDS < self._clock.now():
            made = await self._make(client, endpoint, user=user)
            self._made[endpoint.namespace, endpoint.name] = made
        return made.token

    def drop(self, endpoint: Key, token: str) -> None:
        """Forget a token that opens nothing any more, so that the next is a new one."""
        made = self._made.get((endpoint.namespace, endpoint.name))
        if made is not None and made.token == token:
            del self._made[endpoint.namespace, endpoint.name]

    async def revoke(self, client: Client) -> None:
        """Delete them all, as far as the api can be reached; what is left over ends within the hour."""
        made, self._made = self._made, {}
        for one in made.values():
            try:
                await client.delete(one.key)
            except BessemerError:
                continue

    async def _make(self, client: Client, endpoint: Key, *, user: str) -> _Made:
        who = re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")[:40]
        key = Key("ApiKey", endpoint.namespace, f"{PLAYGROUND}{who}-{secrets.token_hex(3)}")
        await self._sweep(client, endpoint.namespace)
        until = self._clock.now() + KEY_SECONDS
        spec = {
            "description": f"Playground of {user}",
            "endpoints": [endpoint.name],
            "expiresAt": rfc3339(until),
        }
        metadata = {"name": key.name, "namespace": key.namespace, "labels": {_LABEL: _PORTAL}}
        await client.create({"apiVersion": API_VERSION, "kind": "ApiKey", "metadata": metadata, "spec": spec})
        return _Made(key, await client.account.key_token(key.namespace, key.name), until)

    async def _sweep(self, client: Client, project: str) -> None:
        """Delete what a portal that died before its sessions left behind: keys of ours that have ended."""
        page = await client.list(Scope(kind="ApiKey", namespace=project, labels={_LABEL: _PORTAL}))
        for stored in page.items:
            ended = orjson.loads(stored.body)["spec"].get("expiresAt")
            if ended and epoch(ended) < self._clock.now():
                with suppress(NotFound):  # another session of theirs sweeps too
                    await client.delete(stored.key)


class Playground:
    """The way to the gateway. ``close`` it at the end; use on one loop."""

    def __init__(self, url: str, *, tls: ssl.SSLContext | None, clock: Clock) -> None:
        self._url = url.rstrip("/")
        self._tls = tls
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def ask(self, token: str, body: Mapping[str, Any], *, path: str = CHAT) -> AsyncIterator[Reply]:
        """The answer as it comes: OpenAI's events, of a chat. Raises KeyRefused, Unavailable with the gateway's own
        words, or with what is known of the bill where it has none."""
        try:
            response = await self._answer(token, body, path=path)
            try:
                if response.status >= 400:
                    refusal = KeyRefused if response.status == 401 else Unavailable
                    raise refusal(_words(await response.read(), response.status))
                said = {name: response.headers[head] for head, name in _HEADS.items() if head in response.headers}
                yield Reply(said, response.content.iter_any())
            finally:
                response.close()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unavailable("The gateway cannot be reached. Nothing was billed.", internal=str(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = "The answer broke off. What the model had said by then is billed."
            raise Unavailable(text, internal=str(error)) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _answer(self, token: str, body: Mapping[str, Any], *, path: str) -> aiohttp.ClientResponse:
        """The first answer that is not the gateway's not yet knowing a new key."""
        give_up = self._clock.monotonic() + _KEY_KNOWN_SECONDS_MAX
        while True:
            response = await self._post(token, body, path=path)
            if response.status != 401 or self._clock.monotonic() >= give_up:
                return response
            response.release()
            await self._clock.sleep(0.1)

    async def _post(self, token: str, body: Mapping[str, Any], *, path: str) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return await self._session.post(
            f"{self._url}{path}",
            data=orjson.dumps(body),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=_REPLY_SECONDS_MAX, sock_connect=5.0),
            ssl=self._tls or True,
        )


def _words(body: bytes, status: int) -> str:
    """The message of an OpenAI error body."""
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"The gateway answered {status}."
