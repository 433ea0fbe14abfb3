"""The least that a server of this make can do, beside which `control_plane` shows what the rest of ours costs.

The same listener (TLS with a client certificate, HTTP by uvicorn), a body read as JSON, its bytes kept in SQLite with
synchronous=FULL, a commit in a thread for all that came meanwhile; a get is one statement. It judges nothing, tells
nobody and notes nothing: no rights, no kinds, no revisions, no history, no watches, no trail, no log.

``_bare.py STATE PORT FILE``, with the certificates of the installation in STATE.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import uvloop

from bessemer.api import listen, serve, server_tls
from bessemer.main import identities
from bessemer.main.settings import Paths

Message = dict[str, Any]
_HEADERS = [(b"content-type", b"application/json")]


class Kept:
    """Rows of a name and a body. Written in groups: one that begins while another is under way waits for it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._reading, self._writing = self._connect(), self._connect()
        self._writing.execute("CREATE TABLE objects (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID")
        self._waiting: list[tuple[str, bytes, asyncio.Future[None]]] = []
        self._committing = False

    def _connect(self) -> sqlite3.Connection:
        made = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = FULL")
        return made

    def get(self, name: str) -> bytes | None:
        row = self._reading.execute("SELECT body FROM objects WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    async def put(self, name: str, body: bytes) -> None:
        """Keep it; returns once it is on disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((name, body, done))
        if not self._committing:
            self._committing = True
            loop.call_soon(self._begin, loop)
        await done

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        group, self._waiting = self._waiting, []
        self._writing.execute("BEGIN")
        self._writing.executemany("INSERT INTO objects VALUES (?, ?)", [(name, body) for name, body, _ in group])
        committed = loop.run_in_executor(None, self._writing.execute, "COMMIT")
        committed.add_done_callback(lambda _: self._ended(group, loop))

    def _ended(self, group: list[tuple[str, bytes, asyncio.Future[None]]], loop: asyncio.AbstractEventLoop) -> None:
        for _, _, done in group:
            done.set_result(None)
        self._committing = bool(self._waiting)
        if self._waiting:
            loop.call_soon(self._begin, loop)


class Bare:
    """The application: POST keeps a body under its ``metadata.name``, GET of a path that ends in it answers it."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        if scope["method"] == "POST":
            code, body = 201, await self._made(receive)
        else:
            body = self._kept.get(scope["path"].rpartition("/")[2]) or b""
            code = 200 if body else 404
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": code, "headers": [*_HEADERS, length]})
        await send({"type": "http.response.body", "body": body})

    async def _made(self, receive: Callable[[], Awaitable[Message]]) -> bytes:
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        said = orjson.loads(raw)
        body = orjson.dumps(said)
        await self._kept.put(said["metadata"]["name"], body)
        return body


async def bare(state: Path, port: int, file: Path) -> None:
    """Serve until the process is ended."""
    paths = Paths(state)
    tls = server_tls(identities.pair_of(paths, identities.SERVER), paths.ca_certificate.read_bytes())
    await serve(Bare(Kept(file)), on=listen("127.0.0.1", port), tls=tls, stop=asyncio.Event())


if __name__ == "__main__":
    uvloop.run(bare(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
