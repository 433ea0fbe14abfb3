"""A server that speaks the hub's HTTP protocol, as its documentation has it, and misbehaves where it is told to.

Large files stand at a storage of another origin, as they do there: a redirect leads to it. Written from the protocol,
and not from what asks it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

LARGE = (".safetensors", ".gguf")
LOOPBACK = "127.0.0.0/8"


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Repository:
    """``commits`` by name of 40 digits, ``branches`` to one of them."""

    commits: dict[str, Mapping[str, bytes]]
    branches: dict[str, str]
    token: str = ""

    def commit(self, revision: str) -> str:
        """The commit that a branch is at, or a commit's own name."""
        found = self.branches.get(revision, revision)
        if found not in self.commits:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RevisionNotFound"})
        return found


@dataclass
class Faults:
    """What goes wrong. ``cut`` is how many bytes are sent before the connection breaks, of as many answers as ``cuts``
    says; ``spoilt`` are paths whose bytes are others; ``lies`` are what the list says of sizes; ``onward`` is whither
    storage redirects."""

    cut: int = 0
    cuts: int = 0
    spoilt: set[str] = field(default_factory=set)
    lies: dict[str, int] = field(default_factory=dict)
    unranged: bool = False
    hold: int = 0
    """After so many bytes an answer waits until this is 0."""
    onward: str = ""
    page: int = 1000
    raw: dict[str, bytes] = field(default_factory=dict)
    """Bodies instead of what is asked for, by the end of the path."""


class Hub:
    """``async with Hub() as hub``; ``url`` is its endpoint."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.asked: list[tuple[str, str, Mapping[str, str]]] = []
        self.url = self.storage = ""
        self._large: dict[str, bytes] = {}
        self._runners: list[web.AppRunner] = []

    def add(self, name: str, files: Mapping[str, bytes], *, commit: str = "a" * 40, token: str = "") -> None:
        """A repository, or one more commit of it, to which main moves."""
        found = self.repositories.setdefault(name, Repository({}, {}, token))
        found.commits[commit] = files
        found.branches["main"] = commit

    def gets(self, part: str) -> list[tuple[str, str, Mapping[str, str]]]:
        """Requests with ``part`` in their path: server, path, headers."""
        return [one for one in self.asked if part in one[1]]

    async def __aenter__(self) -> Self:
        hub, storage = web.Application(), web.Application()
        hub.router.add_get("/api/models/{org}/{repo}/revision/{revision}", self._revision)
        hub.router.add_get("/api/models/{org}/{repo}/tree/{commit}", self._tree)
        hub.router.add_get("/{org}/{repo}/resolve/{commit}/{path:.+}", self._resolve)
        storage.router.add_get("/{oid}/{path:.+}", self._stored)
        self.url, self.storage = await self._serve(hub), await self._serve(storage)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _serve(self, app: web.Application) -> str:
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    def _found(self, request: web.Request, server: str = "hub") -> Repository:
        self.asked.append((server, request.path, dict(request.headers)))
        for end, body in self.faults.raw.items():
            if request.path.endswith(end):
                raise web.HTTPOk(body=body, content_type="application/json")
        name = "{org}/{repo}".format(**request.match_info)
        found = self.repositories.get(name)
        if found is None:
            raise web.HTTPUnauthorized(headers={"X-Error-Code": "RepoNotFound"})
        if found.token and request.headers.get("Authorization") != f"Bearer {found.token}":
            raise web.HTTPForbidden(headers={"X-Error-Code": "GatedRepo"})
        return found

    async def _revision(self, request: web.Request) -> web.Response:
        found = self._found(request)
        commit = found.commit(request.match_info["revision"])
        said = {"id": "{org}/{repo}".format(**request.match_info), "sha": commit, "private": False, "tags": []}
        siblings = [{"rfilename": path} for path in found.commits[commit]]
        return web.json_response({**said, "gated": "auto" if found.token else False, "siblings": siblings})

    async def _tree(self, request: web.Request) -> web.Response:
        found = self._found(request)
        files = found.commits[found.commit(request.match_info["commit"])]
        begin = int(request.query.get("cursor", "0"))
        entries = [{"type": "directory", "path": "sub", "oid": "0" * 40, "size": 0}]
        entries += [self._entry(path, data) for path, data in files.items()]
        shown, end = entries[begin : begin + self.faults.page], begin + self.faults.page
        more = {"Link": f'<{request.url.with_query({"cursor": end})}>; rel="next"'} if end < len(entries) else {}
        return web.json_response(shown, headers=more)

    def _entry(self, path: str, data: bytes) -> dict[str, object]:
        size = self.faults.lies.get(path, len(data))
        said: dict[str, object] = {"type": "file", "path": path, "oid": git_id(data), "size": size}
        if path.endswith(LARGE):
            said["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 130}
        return said

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        found, path = self._found(request), request.match_info["path"]
        commit = found.commit(request.match_info["commit"])
        if path not in found.commits[commit]:
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = found.commits[commit][path]
        if path.endswith(LARGE):
            oid = hashlib.sha256(data).hexdigest()
            self._large[oid] = data
            onward = self.faults.onward or f"{self.storage}/{oid}/{path}"
            linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": commit}
            raise web.HTTPFound(onward, headers=linked)
        return await self._send(request, self._spoil(path, data), etag=f'"{git_id(data)}"', commit=commit)

    async def _stored(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(("storage", request.path, dict(request.headers)))
        oid = request.match_info["oid"]
        return await self._send(request, self._spoil(request.match_info["path"], self._large[oid]), etag=f'"{oid}"')

    def _spoil(self, path: str, data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if path in self.faults.spoilt else data

    async def _send(self, request: web.Request, data: bytes, *, etag: str, commit: str = "") -> web.StreamResponse:
        wanted = "" if self.faults.unranged else request.headers.get("Range", "")
        if request.headers.get("If-Range", etag) != etag:
            wanted = ""
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        answer = web.StreamResponse(status=206 if wanted else 200, headers={"ETag": etag})
        if commit:
            answer.headers["X-Repo-Commit"] = commit
        if wanted:
            answer.headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        answer.content_length = len(data) - begin
        await answer.prepare(request)
        if request.method == "HEAD":
            return answer
        if self.faults.cuts:
            self.faults.cuts -= 1
            await answer.write(data[begin : begin + self.faults.cut])
            assert request.transport is not None
            request.transport.close()
            return answer
        if self.faults.hold:
            await answer.write(data[begin : begin + self.faults.hold])
            begin += self.faults.hold
            while self.faults.hold:
                await asyncio.sleep(0.01)
        await answer.write(data[begin:])
        await answer.write_eof()
        return answer
