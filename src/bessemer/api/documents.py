"""What is the same for everybody while the process lives: kept as bytes, packed once, and fetched once by clients that
keep their copy under its ETag.

A document has one ETag per coding, as a cache must not take one for the other; a client may name either.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bessemer.api.accept import preferred
from bessemer.api.packing import asks_gzip

JSON = "application/json"
PACKED_BYTES_MIN = 512
"""Below it the head of the answer is what counts."""


@dataclass(frozen=True, slots=True)
class Document:
    """``packed`` is its gzip, or empty where that would not help; ``digest`` names the bytes."""

    media: str
    body: bytes
    packed: bytes
    digest: str

    def tag(self, *, packed: bool) -> str:
        return f'"{self.digest}-gzip"' if packed else f'"{self.digest}"'


def document(media: str, body: bytes) -> Document:
    """Made of its bytes."""
    packed = gzip.compress(body, 9, mtime=0) if len(body) >= PACKED_BYTES_MIN else b""
    return Document(media, body, packed, hashlib.sha256(body).hexdigest()[:32].upper())


def of_value(value: Any, media: str = JSON) -> Document:
    """JSON."""
    return document(media, orjson.dumps(value))


def serve(
    request: Request, forms: Mapping[str, Callable[[], Document]], *, headers: Mapping[str, str] | None = None
) -> Response:
    """The form that the client likes best, packed where it takes that, or 304 where it has it already. ``forms`` are
    by media type, the plain one first. Raises Unacceptable."""
    made = forms[preferred(request.headers.get("accept", ""), tuple(forms))]()
    packed = bool(made.packed) and asks_gzip(request)
    told = {**(headers or {}), "Vary": "Accept, Accept-Encoding", "ETag": made.tag(packed=packed)}
    named = _named(request.headers.get("if-none-match", ""))
    if known := next((tag for tag in (made.tag(packed=packed), made.tag(packed=not packed)) if tag in named), ""):
        return Response(status_code=304, headers={**told, "ETag": known})
    if "*" in named:
        return Response(status_code=304, headers=told)
    if packed:
        told["Content-Encoding"] = "gzip"
    return Response(made.packed if packed else made.body, headers={**told, "Content-Type": made.media})


def _named(header: str) -> frozenset[str]:
    """The tags of If-None-Match, which compares weakly."""
    return frozenset(tag.strip().removeprefix("W/") for tag in header.split(","))
