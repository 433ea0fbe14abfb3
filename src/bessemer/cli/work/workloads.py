"""Logs, consoles and talks, for the commands of `cli.workloads`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import aiohttp
import orjson

from bessemer.cli.connection import Target
from bessemer.client import Ask, Client, Socket, read_kubeconfig, tls_context
from bessemer.core.errors import BessemerError, Malformed, Unavailable
from bessemer.core.resource import API_VERSION, Key

_DETACH = b"\x1d"  # Ctrl-], as telnet and virsh have it


async def print_log(client: Client, key: Key, *, follow: bool, replica: int) -> None:
    """Copy a log to standard output."""
    async with client.workloads.log(key, follow=follow, replica=replica) as parts:
        async for part in parts:
            _out(part)


def _out(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


async def console(client: Client, key: Key) -> None:
    """Join this terminal (or pipe) to a serial console until Ctrl-] or the end of either."""
    async with client.workloads.console(key) as socket:
        print(f"Connected to {key.name}. Ctrl-] lets go.", file=sys.stderr)
        with _raw_terminal():
            await _both_ways(socket)
    print("\nLet go.", file=sys.stderr)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """The terminal passes keys on unread while this holds; a pipe is left as it is."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


async def _both_ways(socket: Socket) -> None:
    typing = asyncio.create_task(_type(socket))
    showing = asyncio.create_task(_show(socket))
    try:
        await asyncio.wait({typing, showing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (typing, showing):
            task.cancel()
        await asyncio.gather(typing, showing, return_exceptions=True)


async def _type(socket: Socket) -> None:
    async for keys in _keys():
        if _DETACH in keys:
            return
        await socket.send(keys)
    await asyncio.sleep(2)  # piped input has ended: leave the guest a moment to answer


async def _show(socket: Socket) -> None:
    async for data in socket:
        _out(data)


async def _keys() -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[bytes] = asyncio.Queue()
    descriptor = sys.stdin.fileno()
    try:
        loop.add_reader(descriptor, lambda: ready.put_nowait(os.read(descriptor, 4096)))
    except PermissionError:  # a regular file is always ready
        yield sys.stdin.buffer.read()
        return
    try:
        while keys := await ready.get():
            yield keys
    finally:
        loop.remove_reader(descriptor)


@dataclass(frozen=True, slots=True)
class Words:
    """What a talk begins with: a message, an ApiKey's token, a gateway's address; "" where none is given."""

    message: str
    key: str
    gateway: str


@dataclass(frozen=True, slots=True)
class _Way:
    url: str
    trust: ssl.SSLContext
    key: str


async def chat(client: Client, target: Target, *, place: Key, words: Words) -> None:
    """One answer to a message, or a talk at the prompt. Raises what the gateway refuses with."""
    async with _key_for(client, place, given=words.key) as token:
        address = words.gateway or await _gateway_of(client)
        trust = tls_context(read_kubeconfig(target.kubeconfig).ca, None)
        way = _Way(address, trust, token)
        await _talk(way, place.name, message=words.message)


async def _gateway_of(client: Client) -> str:
    answer = orjson.loads(await client.transport.request(Ask(method="GET", path="/version")))
    if not answer.get("gateway"):
        raise Unavailable("the server names no gateway; give its address with --gateway")
    return str(answer["gateway"])


@contextlib.asynccontextmanager
async def _key_for(client: Client, place: Key, *, given: str) -> AsyncIterator[str]:
    """The given token, or that of a key which lives as long as the talk."""
    if given:
        yield given
        return
    name = f"chat-{os.getpid()}"
    metadata = {"name": name, "namespace": place.namespace}
    spec = {"description": "bessemer chat", "endpoints": [place.name]}
    await client.create({"apiVersion": API_VERSION, "kind": "ApiKey", "metadata": metadata, "spec": spec})
    try:
        token = await client.account.key_token(place.namespace, name)
        await asyncio.sleep(0.5)  # the gateway hears of a key by its watch
        yield token
    finally:
        await client.delete(Key("ApiKey", place.namespace, name))


async def _talk(way: _Way, model: str, *, message: str) -> None:
    history: list[dict[str, str]] = []
    while asked := message or await asyncio.to_thread(_ask_person):
        history.append({"role": "user", "content": asked})
        said: list[str] = []
        async for piece in _answer(way, model, history=history):
            said.append(piece)
            print(piece, end="", flush=True)
        print()
        if message:
            return
        history.append({"role": "assistant", "content": "".join(said)})


def _ask_person() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""


async def _answer(way: _Way, model: str, *, history: list[dict[str, str]]) -> AsyncIterator[str]:
    body = {"model": model, "messages": history, "stream": True}
    headers = {"Authorization": f"Bearer {way.key}"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=way.trust)) as session,
        session.post(f"{way.url}/chat/completions", json=body, headers=headers) as answer,
    ):
        if answer.status != 200:
            raise _refused(await answer.read(), answer.status)
        async for line in answer.content:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                choices = orjson.loads(line[6:]).get("choices") or [{}]
                yield choices[0].get("delta", {}).get("content") or ""


def _refused(body: bytes, status: int) -> BessemerError:
    try:
        return Malformed(str(orjson.loads(body)["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return Unavailable(f"the gateway answered {status}")
