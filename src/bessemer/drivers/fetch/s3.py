"""Objects of an S3 bucket: ``ListObjectsV2`` and ``GetObject``, signed where there are keys, else as anybody.

The path names the bucket (path style), which every server takes. An ETag tells versions of an object apart and is no
digest. The list is XML and hostile: no document types, and no more than is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch import sigv4
from bessemer.drivers.fetch.protocol import Listed, Listing, S3Place, Source
from bessemer.drivers.fetch.web import Asking, Said, Web, failed

PAGES_MAX = 20
ANSWER_BYTES_MAX = 4 << 20
SIZE_MAX = 1 << 50


def endpoint_of(place: S3Place) -> str:
    """The server's URL."""
    return (place.endpoint or f"https://s3.{place.region}.amazonaws.com").rstrip("/")


def keys_of(place: S3Place, secrets: Mapping[str, str]) -> sigv4.Keys | None:
    """Those that requests are signed by; None where there are none."""
    if not (secrets.get("accessKey") and secrets.get("secretKey")):
        return None
    return sigv4.Keys(
        access=secrets["accessKey"],
        secret=secrets["secretKey"],
        region=place.region,
        token=secrets.get("sessionToken", ""),
    )


class S3Origin:
    """Implements `protocol.Origin`. ``secrets`` hold ``accessKey`` and ``secretKey``, and maybe ``sessionToken``."""

    def __init__(
        self, web: Web, place: S3Place, *, secrets: Mapping[str, str], now: Callable[[], float] = time.time
    ) -> None:
        self._web = web
        self._place = place
        self._now = now
        self._endpoint = endpoint_of(place)
        self._keys = keys_of(place, secrets)

    async def listing(self) -> Listing:
        found: list[Listed] = []
        onward = ""
        for _ in range(PAGES_MAX):
            said = await self._list(onward)
            if said.code != 200:
                raise failed(said.code, f"s3://{self._place.bucket}")
            page = parsed(said.body)
            found += list(self._listed(page))
            onward = text_of(page, "NextContinuationToken")
            if not onward:
                return Listing("", tuple(self._below(found)))
        raise DriverError("ImportFailed", "the bucket has more objects below that prefix than a model has files")

    def source(self, file: Listed) -> Source:
        path = f"/{self._place.bucket}/{quote(file.where)}"
        return lambda at: self._web.stream(self._asking(path, "", offset=at), version=file.version)

    def _below(self, found: list[Listed]) -> Iterator[Listed]:
        """The object of that very key alone, where there is one; else what lies below the prefix as below a folder."""
        same = [file for file in found if file.where == self._place.prefix]
        if same:
            yield replace(same[0], path=self._place.prefix.rpartition("/")[2])
            return
        folder = self._place.prefix.rstrip("/") + "/" if self._place.prefix else ""
        for file in found:
            if file.where.startswith(folder) and not file.where.endswith("/"):
                yield replace(file, path=file.where.removeprefix(folder))

    async def _list(self, onward: str) -> Said:
        pairs = [("list-type", "2"), ("max-keys", "1000")]
        pairs += [("prefix", self._place.prefix)] if self._place.prefix else []
        pairs += [("continuation-token", onward)] if onward else []
        asking = self._asking(f"/{self._place.bucket}", sigv4.query_of(pairs))
        return await self._web.whole(asking, bytes_max=ANSWER_BYTES_MAX)

    def _asking(self, path: str, query: str, *, offset: int = 0) -> Asking:
        url = f"{self._endpoint}{path}{'?' + query if query else ''}"
        if self._keys is None:
            return Asking(url=url, offset=offset)
        question = sigv4.Question(host=urlsplit(url).netloc, path=path, query=query)
        secret = sigv4.signed(self._keys, question, now=self._now())
        return Asking(url=url, secret=secret, offset=offset)

    def _listed(self, page: ElementTree.Element) -> Iterator[Listed]:
        for item in page:
            if item.tag.rpartition("}")[2] == "Contents":
                key, size = text_of(item, "Key"), text_of(item, "Size")
                if not key or len(size) > 20 or not size.isascii() or not size.isdigit() or int(size) > SIZE_MAX:
                    raise DriverError("ImportFailed", "the bucket's list cannot be read")
                yield Listed(path=key, size_bytes=int(size), version=text_of(item, "ETag"), where=key)


def parsed(body: bytes) -> ElementTree.Element:
    """An answer in XML. Raises DriverError."""
    # In UTF-16, which a reader of XML takes too, every second byte of a document type is zero.
    if b"<!" in body or b"\0" in body:
        raise DriverError("ImportFailed", "the bucket's list has a document type or a comment, which none has")
    try:
        return ElementTree.fromstring(body)
    except ElementTree.ParseError:
        raise DriverError("ImportFailed", "the bucket's list is no XML") from None


def text_of(above: ElementTree.Element, name: str) -> str:
    """Of the first child of that name, "" where there is none."""
    return next((item.text or "" for item in above if item.tag.rpartition("}")[2] == name), "")
