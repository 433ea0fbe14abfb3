"""Many byte streams over one message socket, each with its own bounded window.

A message is one frame: type (1 byte), stream (4 bytes, big endian), payload. The side that listens opens even streams,
the side that dialled opens odd ones. A writer may have at most `WINDOW` bytes under way per stream; the reader returns
credit as its consumer reads, so a slow reader stops one stream and nothing else. What waits to be read is kept in few
pieces, however many frames it came in, so that memory per stream is bounded.

    OPEN    JSON object: what is wanted ({"what": "log", …}); the answer is DATA, or CLOSE with an error
    DATA    bytes, at most `CHUNK`
    WINDOW  4 bytes, big endian: credit
    CLOSE   UTF-8: "" at an orderly end, else the reason; ends both directions

It knows no socket: `Mux` is given a coroutine that sends a message and an iterator of those received.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bessemer.core.errors import BessemerError, Malformed, TooMany, Unavailable

WINDOW = 256 * 1024
CHUNK = 32 * 1024
MESSAGE_BYTES_MAX = CHUNK + 5
STREAMS_MAX = 1024
OPEN_BYTES_MAX = 4096
REASON_BYTES_MAX = 1024

OPEN, DATA, CREDIT, CLOSE = 1, 2, 3, 4

_HEAD = struct.Struct("!BI")
_CREDIT = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. ``payload`` is what the type says."""

    type: int
    stream: int
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """The message of a frame."""
    return _HEAD.pack(frame.type, frame.stream) + frame.payload


def decode(message: bytes) -> Frame:
    """The frame of a message. Raises Malformed for a type, a length or a size that nobody sends."""
    if not _HEAD.size <= len(message) <= MESSAGE_BYTES_MAX:
        raise Malformed("a frame has 5 to 32773 bytes")
    kind, stream = _HEAD.unpack_from(message)
    payload = message[_HEAD.size :]
    if kind not in (OPEN, DATA, CREDIT, CLOSE) or (kind == CREDIT and len(payload) != _CREDIT.size):
        raise Malformed("a frame of unknown type")
    return Frame(kind, stream, payload)


class Stream:
    """One stream of a `Mux`. Both sides may read, write and close it; iterate to read until its end."""

    def __init__(self, mux: Mux, number: int, *, request: Mapping[str, Any]) -> None:
        self.request = MappingProxyType(dict(request))
        self._mux = mux
        self._number = number
        self._credit = WINDOW
        self._unread: deque[bytearray] = deque()
        self._unread_bytes = 0
        self._owed = 0
        self._error: str | None = None
        self._changed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether either side has closed it; what arrived before can still be read."""
        return self._error is not None

    async def write(self, data: bytes) -> None:
        """Send all of ``data``, waiting for the reader where its window is full. Raises Unavailable once closed."""
        view = memoryview(data)
        while view:
            await self._wait(lambda: self._credit > 0)
            if self._error is not None:
                raise Unavailable(self._error or "the stream has ended")
            part = view[: min(CHUNK, self._credit)]
            self._credit -= len(part)
            view = view[len(part) :]
            await self._mux.send(Frame(DATA, self._number, bytes(part)))

    async def read(self) -> bytes:
        """What came next; b"" at an orderly end. Raises Unavailable where the other side closed with a reason."""
        await self._wait(lambda: bool(self._unread))
        if not self._unread:
            if self._error:
                raise Unavailable(self._error)
            return b""
        data = bytes(self._unread.popleft())
        self._unread_bytes -= len(data)
        self._owed += len(data)
        if self._owed >= WINDOW // 4 and not self.closed:
            owed, self._owed = self._owed, 0
            await self._mux.send(Frame(CREDIT, self._number, _CREDIT.pack(owed)))
        return data

    async def close(self, error: str = "") -> None:
        """End both directions. Harmless when repeated."""
        if self._error is not None:
            return
        self.end(error)
        self._mux.forget(self._number)
        reason = error.encode()[:REASON_BYTES_MAX]
        await self._mux.send(Frame(CLOSE, self._number, reason.decode(errors="ignore").encode()))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    async def _wait(self, ready: Callable[[], bool]) -> None:
        while not ready() and self._error is None:
            self._changed.clear()
            await self._changed.wait()

    def end(self, error: str) -> None:
        """The mux: the stream is over, for ``error`` or orderly."""
        self._error = self._error if self._error is not None else error
        self._changed.set()

    def arrived(self, data: bytes) -> bool:
        """The mux: bytes came in. False where the other side ignored its window."""
        if self._unread_bytes + self._owed + len(data) > WINDOW:
            return False
        if data:
            # A frame of one byte would else cost a hundred.
            if self._unread and len(self._unread[-1]) + len(data) <= CHUNK:
                self._unread[-1] += data
            else:
                self._unread.append(bytearray(data))
            self._unread_bytes += len(data)
            self._changed.set()
        return True

    def credited(self, count: int) -> None:
        """The mux: the other side has read."""
        self._credit = min(WINDOW, self._credit + count)
        self._changed.set()


class Mux:
    """One socket's streams; ``run`` reads until the socket ends. ``accept`` serves each stream that the other side
    opens, in a task of its own; the stream is closed when it returns, with the message of a `BessemerError` it raises.
    """

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        *,
        dialled: bool,
        accept: Callable[[Stream], Awaitable[None]] | None = None,
    ) -> None:
        self._send = send
        self._next = 1 if dialled else 2
        self._accept = accept
        self._streams: dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False

    async def open(self, request: Mapping[str, Any]) -> Stream:
        """A new stream for ``request``. Raises Unavailable once the socket has ended, TooMany past `STREAMS_MAX`."""
        if self._over:
            raise Unavailable("the connection has ended")
        if len(self._streams) >= STREAMS_MAX:
            raise TooMany("too many streams on one connection")
        number, self._next = self._next, self._next + 2
        stream = self._streams[number] = Stream(self, number, request=request)
        sent = False
        try:
            await self.send(Frame(OPEN, number, json.dumps(dict(request)).encode()))
            sent = True
        finally:
            if not sent:
                self.forget(number)
        return stream

    async def run(self, messages: AsyncIterator[bytes]) -> None:
        """Serve until ``messages`` ends; then every stream ends and every accepted task is cancelled and awaited.
        Raises Malformed where the other side breaks the protocol."""
        try:
            async for message in messages:
                await self._receive(decode(message))
        finally:
            self._over = True
            for stream in self._streams.values():
                stream.end("the connection was lost")
            self._streams.clear()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def send(self, frame: Frame) -> None:
        """A stream: put a frame on the socket."""
        if not self._over:
            await self._send(encode(frame))

    def forget(self, number: int) -> None:
        """A stream: it is closed on this side."""
        self._streams.pop(number, None)

    async def _receive(self, frame: Frame) -> None:
        if frame.type == OPEN:
            await self._opened(frame)
            return
        stream = self._streams.get(frame.stream)
        if stream is None:  # we closed it while this was under way
            return
        if frame.type == DATA and not stream.arrived(frame.payload):
            await stream.close("the window was ignored")
        elif frame.type == CREDIT:
            stream.credited(_CREDIT.unpack(frame.payload)[0])
        elif frame.type == CLOSE:
            self.forget(frame.stream)
            stream.end(frame.payload[:REASON_BYTES_MAX].decode(errors="replace"))

    async def _opened(self, frame: Frame) -> None:
        if frame.stream % 2 == self._next % 2 or frame.stream in self._streams:
            raise Malformed("a stream was opened under a number that is not the opener's")
        request = _request(frame.payload)
        # Tasks are counted too: one whose stream was closed by the other side may be under way yet.
        full = max(len(self._streams), len(self._tasks)) >= STREAMS_MAX
        if self._accept is None or request is None or full:
            await self.send(Frame(CLOSE, frame.stream, b"refused"))
            return
        stream = self._streams[frame.stream] = Stream(self, frame.stream, request=request)
        task = asyncio.get_running_loop().create_task(self._serve(stream, self._accept))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: Stream, accept: Callable[[Stream], Awaitable[None]]) -> None:
        reason = "internal error"
        try:
            await accept(stream)
            reason = ""
        except BessemerError as error:
            reason = error.message
        finally:
            await stream.close(reason)


def _request(payload: bytes) -> dict[str, Any] | None:
    if len(payload) > OPEN_BYTES_MAX:
        return None
    try:
        request = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return request if isinstance(request, dict) else None
