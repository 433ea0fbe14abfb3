"""The process that puts load on one engine: it sends requests at their times and writes down when each piece came.

    python -I -S -B runner.py < length, volley, and an end that is left open

It is run as a file of its own and imports nothing of ours. On standard input come eight bytes of length and a volley
as JSON: among it the engine's secret, and an inherited descriptor of its socket, which is all that it reaches once it
has given up root. It ends when that input does, for then nobody waits for it. What came is one line of JSON.

It is a process of its own, so that times are not those of an agent that has other things to do, and since the engine is
hostile: what it answers is bounded in size and time.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from contextlib import suppress
from typing import Any

MEMORY_BYTES = 1 << 30
HEAD_BYTES_MAX = 64 << 10
FILES = 8192
COUNT_MAX = 1 << 40
STREAM_BYTES_MAX = 16 << 20
"""Of one answer: else an engine could have us read for as long as a volley lasts."""

Json = dict[str, Any]

_NONE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError, asyncio.LimitOverrunError),
)
"""Raised by whatever a hostile engine says that is no answer."""


def main() -> int:
    """Send the volley, write what came of it. Exit status 2: none came."""
    head = os.read(0, 8)
    if len(head) < 8:
        return 2
    words, length = b"", int.from_bytes(head, "big")
    while len(words) < length:
        part = os.read(0, min(1 << 20, length - len(words)))
        if not part:
            return 2
        words += part
    volley = json.loads(words)
    _give_up(int(volley["user"]))
    return asyncio.run(_run(volley))


def _give_up(user: int) -> None:
    """Become the engine's user's, with memory and files that are bounded."""
    if user >= 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    for kind, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_NOFILE, FILES)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


async def _run(volley: Json) -> int:
    loop = asyncio.get_running_loop()
    loop.add_reader(0, _left)
    sender = _Sender(volley)
    found = await (sender.one_by_one() if volley["serial"] else sender.at_their_times())
    sys.stdout.write(json.dumps(found, separators=(",", ":")) + "\n")
    sys.stdout.flush()
    return 0


def _left() -> None:
    """Nothing more comes but the end: whoever asked is gone."""
    if not os.read(0, 1):
        os._exit(3)


class _Sender:
    def __init__(self, volley: Json) -> None:
        self._shots = volley["shots"]
        self._seconds = float(volley["seconds"])
        self._door = volley["door"]
        self._secret = volley["secret"]
        self._bytes_max, self._gaps_max = volley["bytesMax"], volley["gapsMax"]
        self._began = asyncio.get_running_loop().time()

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._began

    async def one_by_one(self) -> list[Json]:
        return [await self._shoot(shot, at=0.0) for shot in self._shots]

    async def at_their_times(self) -> list[Json]:
        return list(await asyncio.gather(*(self._shoot(shot, at=float(shot["at"])) for shot in self._shots)))

    async def _shoot(self, shot: Json, *, at: float) -> Json:
        """One request, whatever comes of it."""
        await asyncio.sleep(max(0.0, at - self._now()))
        found: Json = {"status": 0, "sent": self._now(), "gaps": []}
        try:
            async with asyncio.timeout(max(0.0, self._seconds - self._now())):
                await self._ask(shot, found)
        except TimeoutError:
            found |= {"status": 0, "trouble": "no whole answer in time"}
        except _NONE as error:
            found |= {"status": 0, "trouble": f"no whole answer: {type(error).__name__}"}
        return {**found, "ended": self._now()}

    async def _ask(self, shot: Json, found: Json) -> None:
        reader, writer = await asyncio.open_unix_connection(self._door, limit=self._bytes_max)
        try:
            body = json.dumps(shot["body"]).encode()
            head = (
                f"POST {shot['path']} HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer {self._secret}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
            status, headers = await _head(reader)
            chunks = _Chunks(reader, headers)
            if status == 200 and headers.get("content-type", "").startswith("text/event-stream"):
                await self._stream(chunks, found)
            else:
                answer = (await chunks.all(self._bytes_max)).decode("utf-8", "replace")
                found |= {"answer": answer} if shot["keep"] else {}
                with suppress(ValueError):
                    _counted(found, json.loads(answer))
            found["status"] = status
        finally:
            writer.transport.abort()

    async def _stream(self, chunks: _Chunks, found: Json) -> None:
        """Events until ``[DONE]``. One that says nothing new (a role, a count) is no token."""
        last, rest, left = 0.0, b"", STREAM_BYTES_MAX
        while part := await chunks.next():
            now, left = self._now(), left - len(part)
            if left < 0:
                raise ValueError("a stream without an end")
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > self._bytes_max:
                raise ValueError("a line without an end")
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                word = line[5:].strip()
                if word == b"[DONE]":
                    return
                if not _said(found, json.loads(word)):
                    continue
                if "first" not in found:
                    found["first"] = now
                elif len(found["gaps"]) < self._gaps_max:
                    found["gaps"].append(now - last)
                last = now
        raise EOFError


def _said(found: Json, event: Json) -> bool:
    """Whether there is a token in an event; what it counts is kept."""
    _counted(found, event)
    for choice in event.get("choices") or ():
        said = choice.get("delta") or {}
        if any(said.get(name) for name in ("content", "reasoning_content", "reasoning", "tool_calls")):
            return True
    return False


def _counted(found: Json, said: Any) -> None:
    usage = said.get("usage") if isinstance(said, dict) else None
    if isinstance(usage, dict):
        details = usage.get("prompt_tokens_details") or {}
        read, written = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        found |= {"read": read, "written": written, "cached": min(read, _count(details.get("cached_tokens")))}


def _count(said: Any) -> int:
    """Raises ValueError for what no engine counts. What is cached was read: no more of it than that."""
    count = int(said or 0)
    if not 0 <= count <= COUNT_MAX:
        raise ValueError("a count that is none")
    return count


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    raw = await reader.readuntil(b"\r\n\r\n")
    if len(raw) > HEAD_BYTES_MAX:
        raise ValueError("a head without an end")
    first, *lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ")[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


class _Chunks:
    """A body as it comes: in chunks, of a length that was said, or to the end of the connection."""

    def __init__(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
        self._reader = reader
        self._chunked = "chunked" in headers.get("transfer-encoding", "")
        length = headers.get("content-length")
        self._left = None if length is None else int(length)
        if self._left is not None and self._left < 0:
            raise ValueError("a length that is none")

    async def next(self) -> bytes:
        """The next part; b"" at the end."""
        if self._chunked:
            size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size > MEMORY_BYTES // 64:
                raise ValueError("a chunk that is too long")
            part = await self._reader.readexactly(size)
            await self._reader.readexactly(2)
            return part
        part = await self._reader.read(1 << 16 if self._left is None else min(self._left, 1 << 16))
        if self._left is not None:
            self._left -= len(part)
        return part

    async def all(self, bytes_max: int) -> bytes:
        found = b""
        while len(found) <= bytes_max and (part := await self.next()):
            found += part
        return found[:bytes_max]


if __name__ == "__main__":
    sys.exit(main())
