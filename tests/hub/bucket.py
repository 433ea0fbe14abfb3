"""A bucket for tests: lists and gives objects as S3 does, in pages, to who signs for its key and with the right scope.

Signatures themselves are checked by Amazon's published examples, in the tests of what signs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from html import escape
from types import TracebackType
from typing import Self

from aiohttp import web


class Bucket:
    """``async with Bucket("models", objects) as bucket``; ``url`` is its endpoint. ``access`` is the key that it wants,
    "" for anybody; ``page`` how many objects a list has at most."""

    def __init__(self, name: str, objects: Mapping[str, bytes], *, access: str = "", page: int = 1000) -> None:
        self.name, self.objects, self.access, self.page = name, dict(objects), access, page
        self.url = ""
        self.ranges: list[str] = []
        self.cut = 0
        """The next object's connection breaks after so many bytes."""
        self.swap = b""
        """What stands in its place from then on."""
        self.list = b""
        """In the place of a list."""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{bucket}", self._list)
        app.router.add_get("/{bucket}/{key:.+}", self._object)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def _admit(self, request: web.Request) -> None:
        if request.match_info["bucket"] != self.name:
            raise web.HTTPNotFound
        said = request.headers.get("Authorization", "")
        if self.access and not said.startswith(f"AWS4-HMAC-SHA256 Credential={self.access}/"):
            raise web.HTTPForbidden
        if self.access and "/us-east-1/s3/aws4_request," not in said:
            raise web.HTTPBadRequest

    async def _list(self, request: web.Request) -> web.Response:
        self._admit(request)
        if self.list:
            return web.Response(body=self.list, content_type="application/xml")
        prefix, onward = request.query.get("prefix", ""), request.query.get("continuation-token", "")
        keys = [key for key in sorted(self.objects) if key.startswith(prefix) and key > onward]
        shown = keys[: self.page]
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><ETag>{escape(self._etag(key))}</ETag>"
            f"<Size>{len(self.objects[key])}</Size></Contents>"
            for key in shown
        )
        more = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if len(keys) > self.page else ""
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        body = f'<?xml version="1.0"?><ListBucketResult xmlns="{space}">{items}{more}</ListBucketResult>'
        return web.Response(text=body, content_type="application/xml")

    def _etag(self, key: str) -> str:
        return f'"{hashlib.md5(self.objects[key], usedforsecurity=False).hexdigest()}"'

    async def _object(self, request: web.Request) -> web.StreamResponse:
        self._admit(request)
        key = request.match_info["key"]
        data, etag, wanted = self.objects[key], self._etag(key), request.headers.get("Range", "")
        self.ranges.append(wanted)
        if request.headers.get("If-Range", etag) != etag:
            wanted = ""
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        answer = web.StreamResponse(status=206 if wanted else 200, headers={"ETag": etag})
        if wanted:
            answer.headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        answer.content_length = len(data) - begin
        await answer.prepare(request)
        if self.cut:
            cut, self.cut = self.cut, 0
            await answer.write(data[begin : begin + cut])
            self.objects[key] = self.swap or data
            assert request.transport is not None
            request.transport.close()
            return answer
        await answer.write(data[begin:])
        await answer.write_eof()
        return answer
