"""A request and an answer as nearly all are, made in a few steps: Starlette's are for every case, and look at each
header anew. They mean what Starlette's do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, overload

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response

T = TypeVar("T")

_NO_QUERY = QueryParams("")
_BODILESS = frozenset({204, 304})


class Heads(Headers):
    """Of a header that stands there twice, the first: found at once."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        super().__init__(raw=raw)
        self._first = dict(reversed(raw))

    def __getitem__(self, key: str) -> str:
        return self._first[key.lower().encode("latin-1")].decode("latin-1")

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, /, default: str | T) -> str | T: ...
    def get(self, key: str, /, default: str | T | None = None) -> str | T | None:
        found = self._first.get(key.lower().encode("latin-1"))
        return default if found is None else found.decode("latin-1")


class Asked(Request):
    """An HTTP request."""

    @property
    def headers(self) -> Headers:
        if not hasattr(self, "_headers"):
            self._headers = Heads(self.scope["headers"])
        return self._headers

    @property
    def query_params(self) -> QueryParams:
        return super().query_params if self.scope["query_string"] else _NO_QUERY


class Json(Response):
    """A body of JSON."""

    def __init__(self, body: bytes, code: int, *, headers: Mapping[str, str]) -> None:
        self.status_code, self.body, self.background = code, body, None
        self.raw_headers = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
        if code not in _BODILESS:
            self.raw_headers.append((b"content-length", b"%d" % len(body)))
        self.raw_headers.append((b"content-type", b"application/json"))
