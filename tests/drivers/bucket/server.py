"""An S3 server for tests: one bucket that wants to be asked by its keys, each request signed for what it is.

Signatures are worked out here by the description of Signature Version 4, from what arrived, and compared.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from html import escape
from types import TracebackType
from typing import Self

from aiohttp import web

ACCESS, SECRET = "AKIAWRITER0000000000", "a/secret+word0000000000000000000000000000"
KEYS = {"accessKey": ACCESS, "secretKey": SECRET}
SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class Server:
    """``async with Server("logs") as server``; ``url`` is its endpoint. What it may be told: ``status``, which it
    answers to everything but 0; ``hangs``; ``rules``, what stands for its lifecycle, None where it has none;
    ``lifecycle`` False: it does not know that."""

    def __init__(self, bucket: str, *, page: int = 1000) -> None:
        self.bucket, self.page = bucket, page
        self.objects: dict[str, bytes] = {}
        self.url = ""
        self.status = 0
        self.hangs = False
        self.lifecycle = True
        self.rules: bytes | None = None
        self.asked: list[str] = []
        self.heads: list[dict[str, str]] = []

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{rest:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hangs = False
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append(f"{request.method} {request.raw_path}")
        self.heads.append({name.lower(): value for name, value in request.headers.items()})
        while self.hangs:
            await asyncio.sleep(0.01)
        if self.status:
            return web.Response(status=self.status, headers={"Location": "http://127.0.0.1:9/"})
        if not _signed(request, body):
            return _error(403, "SignatureDoesNotMatch")
        bucket, _, key = request.path.removeprefix("/").partition("/")
        if bucket != self.bucket:
            return _error(404, "NoSuchBucket")
        if "lifecycle" in request.query:
            return self._rules(request, body)
        if request.method == "PUT":
            self.objects[key] = body
        elif request.method == "DELETE":
            return web.Response(status=204 if self.objects.pop(key, None) is not None else 404)
        else:
            return self._list(request)
        return web.Response()

    def _rules(self, request: web.Request, body: bytes) -> web.Response:
        if not self.lifecycle:
            return _error(501, "NotImplemented")
        if request.method == "PUT":
            md5 = hashlib.md5(body, usedforsecurity=False).digest()
            if request.headers.get("Content-MD5", "") != base64.b64encode(md5).decode():
                return _error(400, "InvalidDigest")
            self.rules = body
            return web.Response()
        return web.Response(body=self.rules) if self.rules else _error(404, "NoSuchLifecycleConfiguration")

    def _list(self, request: web.Request) -> web.Response:
        prefix, after = request.query.get("prefix", ""), request.query.get("start-after", "")
        keys = [key for key in sorted(self.objects) if key.startswith(prefix) and key > after][: self.page]
        items = "".join(f"<Contents><Key>{escape(key)}</Key><Size>1</Size></Contents>" for key in keys)
        text = f'<?xml version="1.0"?><ListBucketResult xmlns="{SPACE}">{items}</ListBucketResult>'
        return web.Response(text=text, content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=f"<Error><Code>{code}</Code></Error>", content_type="application/xml")


def _signed(request: web.Request, body: bytes) -> bool:
    said = request.headers.get("Authorization", "")
    if not said.startswith(f"AWS4-HMAC-SHA256 Credential={ACCESS}/"):
        return False
    parts = dict(one.strip().split("=", 1) for one in said.removeprefix("AWS4-HMAC-SHA256 ").split(","))
    scope = parts["Credential"].removeprefix(f"{ACCESS}/")
    heads = "".join(f"{name}:{request.headers[name].strip()}\n" for name in parts["SignedHeaders"].split(";"))
    digest = hashlib.sha256(body).hexdigest()
    path, _, query = request.raw_path.partition("?")
    whole = "\n".join((request.method, path, query, heads, parts["SignedHeaders"], digest))
    text = f"AWS4-HMAC-SHA256\n{request.headers['x-amz-date']}\n{scope}\n{hashlib.sha256(whole.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    fine = hmac.digest(key, text.encode(), "sha256").hex() == parts["Signature"]
    return fine and request.headers["x-amz-content-sha256"] == digest
