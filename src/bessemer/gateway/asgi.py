"""The words of ASGI: a request's body in, a bounded one, and an answer out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bessemer.gateway import errors, request

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body. Raises Refused past `request.BODY_BYTES_MAX`, and where the client goes before its end."""
    declared = next((v for n, v in scope["headers"] if n == b"content-length"), None)
    if request.over(declared):
        raise errors.too_large(request.BODY_BYTES_MAX)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise errors.malformed("The request ended before its body did.")
        part = message.get("body", b"")
        size += len(part)
        if size > request.BODY_BYTES_MAX:
            raise errors.too_large(request.BODY_BYTES_MAX)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def start(
    send: Send, status: int, *, request_id: str, content_type: bytes, extra: list[tuple[bytes, bytes]]
) -> None:
    """Send status and headers."""
    headers = [(b"content-type", content_type), (b"x-request-id", request_id.encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def respond(
    send: Send,
    status: int,
    *,
    body: bytes,
    request_id: str,
    extra: list[tuple[bytes, bytes]] | None = None,
    content_type: bytes = b"application/json",
) -> None:
    """Send a whole answer."""
    await start(
        send,
        status,
        request_id=request_id,
        content_type=content_type,
        extra=[(b"content-length", b"%d" % len(body)), *(extra or [])],
    )
    await send({"type": "http.response.body", "body": body})


async def lifespan(scope: Scope, receive: Receive, *, send: Send) -> None:
    """What is no HTTP request: a server's start and end, and sockets, of which there are none."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
        return
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
