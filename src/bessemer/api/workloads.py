"""A workload's bytes: log and console, relayed through the socket of the host that runs it, and content by digest.

A log and a console end when who reads them may not any more; a log begins although nothing stands in it yet. A console
that ends for a reason tells it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import orjson
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope
from starlette.websockets import WebSocket, WebSocketDisconnect

from bessemer.api.access import intent_names
from bessemer.api.errors import not_found
from bessemer.api.query import flag, number
from bessemer.api.relay import Reader
from bessemer.api.relayed import open_stream
from bessemer.api.resources import load
from bessemer.api.state import Call, answer
from bessemer.core.errors import Forbidden, NotFound, Unavailable
from bessemer.core.frames import Stream
from bessemer.core.ports import Scope, Stored
from bessemer.core.resource import Key, tenant_of
from bessemer.core.tasks import first_error, first_of, until_first
from bessemer.kinds.jobs.job.spec import Job, output_of

FIRST_SECONDS = 1.0
"""How long a host may take to refuse a log, before the answer begins."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


async def log(call: Call) -> Response:
    """GET …/NAME/log?follow=&replica=: text, as it comes."""
    follow, replica = flag(call.query, "follow"), number(call.query, "replica")
    about = await load(call, call.about)
    host, what = await _output(call, about, replica=replica)
    await call.note(about)
    async with AsyncExitStack() as leaving:
        stream = await _open(call, host, request={"verb": "log", "follow": follow, **what})
        leaving.push_async_callback(stream.close)
        reading = asyncio.ensure_future(stream.read())
        await first_of(asyncio.wait({reading}), call.state.context.clock.sleep(FIRST_SECONDS))
        if reading.done() and isinstance(error := reading.exception(), Unavailable):
            raise Unavailable(f"the host cannot show the log: {error.message}") from error
        return _Log(_text(call, stream, reading=reading), leaving.pop_all())


async def console(call: Call) -> None:
    """WebSocket …/instances/NAME/console: bytes both ways until either side ends it; an end for a reason is a close
    under a code of its own, with that reason."""
    socket = call.connection
    if not isinstance(socket, WebSocket):
        raise not_found(call.about.subject)
    about = await load(call, call.about)
    claim = await _claim(call, 0)
    await call.note(about)
    stream = await _open(call, claim.host, request={"verb": "console", "claim": claim.uid})
    try:
        await socket.accept()  # fails where the client has left already
        call.linger()
        await _converse(call, socket, stream=stream)
    finally:
        await stream.close()


class _Log(StreamingResponse):
    """Lets go of the host's stream also where the client has left before the answer began, so that nobody reads it."""

    def __init__(self, parts: AsyncIterator[bytes], leaving: AsyncExitStack) -> None:
        super().__init__(parts, media_type="text/plain; charset=utf-8")
        self._leaving = leaving

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        async with self._leaving:
            await super().__call__(scope, receive, send)


async def _converse(call: Call, socket: WebSocket, *, stream: Stream) -> None:
    """Bytes both ways until one side ends it. Raises what who is still there is to be told: Unavailable where the host
    gives a reason or the server stops, Forbidden where who types may not any more."""
    access, here = call.state.access, call.about
    typed, shown = asyncio.ensure_future(_typed(socket, stream)), asyncio.ensure_future(_shown(socket, stream))
    lapsed = asyncio.ensure_future(call.lapsed(lambda who: access.may(who, "create", on=here)))
    closing: asyncio.Future[Any] = asyncio.ensure_future(call.state.closing.wait())
    done = await until_first([typed, shown, lapsed, closing])
    if typed in done:  # who has left is told nothing
        typed.result()
        return
    if error := first_error(done, but=WebSocketDisconnect):
        raise error
    if lapsed in done:
        raise Forbidden("you may not type here any more")
    if closing in done:
        raise Unavailable("the server stops")


async def content(call: Call) -> Response:
    """GET /content/DIGEST: bytes, whole or a range. Agents get what their Claims name, the administrator all."""
    return FileResponse(await _content(call), media_type="application/octet-stream")


async def content_size(call: Call) -> Response:
    """GET /content/DIGEST/size: ``{"sizeBytes"}``, for who makes room before it comes."""
    return answer({"sizeBytes": (await _content(call)).stat().st_size})


async def _content(call: Call) -> Path:
    """Where it is, for whoever may have it. Raises NotFound."""
    digest = call.parameter("digest")
    missing = NotFound("there is no such content")
    if not _DIGEST.fullmatch(digest):
        raise missing
    if call.who.kind == "agent":
        page = await call.state.ports.objects.list(Scope(kind="Claim", host=call.who.name))
        if not any(intent_names(claim.body, digest) for claim in page.items):
            raise missing
    path = await call.state.context.content(digest)
    if path is None:
        raise missing
    return path


async def _claim(call: Call, replica: int) -> Stored:
    """The claim of a workload's replica. Raises Unavailable while there is none."""
    target = call.about
    name = f"{target.resource.singular}-{target.name}-{replica}"
    try:
        return await call.state.ports.objects.get(Key("Claim", target.namespace, name))
    except NotFound as error:
        raise Unavailable("it has no place on a host yet", retry_after_seconds=2) from error


async def _output(call: Call, about: Stored, *, replica: int) -> tuple[str, dict[str, Any]]:
    """The host that has what a workload's replica printed, and how it is asked for there: by the claim, or where that
    is gone by what is kept of it. Raises Unavailable where it has not printed anything yet."""
    try:
        claim = await _claim(call, replica)
    except Unavailable:
        kept = output_of(orjson.loads(about.body), replica) if about.key.kind == Job.KIND else None
        if kept is None:
            raise
        return kept[0], {"kind": Job.KIND, "kept": kept[1]}
    return claim.host, {"claim": claim.uid}


async def _open(call: Call, host: str, *, request: dict[str, Any]) -> Stream:
    return await open_stream(call, host, request=request, reader=Reader(tenant_of(call.about.namespace), call.who.name))


async def _text(call: Call, stream: Stream, *, reading: asyncio.Future[bytes]) -> AsyncIterator[bytes]:
    """What the stream gives, from the read that is under way on."""
    access, here = call.state.access, call.about
    ends: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(call.state.closing.wait()),
        asyncio.ensure_future(call.lapsed(lambda who: access.may(who, "get", on=here))),
    ]
    try:
        while True:
            await asyncio.wait({reading, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if any(end.done() for end in ends) or not (part := reading.result()):
                return
            yield part
            reading = asyncio.ensure_future(stream.read())
    except Unavailable as error:
        yield f"\n[{error.message}]\n".encode()
    finally:
        for task in (reading, *ends):
            task.cancel()
        await stream.close()


async def _shown(socket: WebSocket, stream: Stream) -> None:
    async for part in stream:
        await socket.send_bytes(part)
    await socket.close()


async def _typed(socket: WebSocket, stream: Stream) -> None:
    """Until the client leaves. What the host does not take is lost: `_shown` tells why, once it has shown the rest."""
    while True:
        try:
            message = await socket.receive()
        except WebSocketDisconnect:
            return
        if message["type"] == "websocket.disconnect":
            return
        with suppress(Unavailable):
            await stream.write(message.get("bytes") or (message.get("text") or "").encode())
