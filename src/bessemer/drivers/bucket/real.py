"""Buckets of any server that speaks S3, asked by path, over connections to judged addresses; no redirect is followed.

The place's own rules of expiry are one document for the whole bucket, and whoever writes it writes all of it: so it is
read, ours is put among those that are there, each of these as it stands, and it is read again. Where a server does not
give it whole, or refuses, nothing is written. Who else writes it at the same moment may win: it is looked at again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from bessemer.core.errors import DriverError
from bessemer.drivers.addresses import literal
from bessemer.drivers.bounded import bounded
from bessemer.drivers.bucket import expiry
from bessemer.drivers.bucket.protocol import INNER, NOT_FOUND, REFUSED, UNREACHED
from bessemer.drivers.fetch import sigv4
from bessemer.drivers.fetch.protocol import S3Place
from bessemer.drivers.fetch.reach import Reach
from bessemer.drivers.fetch.s3 import endpoint_of, keys_of, parsed, text_of
from bessemer.drivers.judged import Judged

SECONDS = 30.0
"""That one question may take, its answer, too."""
ANSWER_BYTES_MAX = 4 << 20
MARKS_MAX = 1 << 16
"""Tags of an answer, and quotes, which attributes have: a page of a list has a third of that. All else waits while it
is read."""
_LINE_BYTES_MAX = 8190
_LARGE_BYTES = 1 << 16
_MINIMUM = "x-amz-transition-default-minimum-object-size"
"""Amazon says it with the rules, and forgets it where it is not said again."""
_TYPE = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class _Said:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Asked:
    method: str
    key: str = ""
    query: str = ""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class S3Buckets:
    """Its `open` is a `protocol.Open`: within ``reach``, by ``tls``. ``resolver`` looks up a host that a tenant has
    named, in whose threads nothing else waits; without it these are the loop's own."""

    reach: Reach
    tls: ssl.SSLContext
    seconds: float = SECONDS
    now: Callable[[], float] = time.time
    resolver: Callable[[str], AbstractResolver | None] = lambda _: None

    def open(self, place: S3Place, secrets: Mapping[str, str]) -> S3Bucket:
        """As somebody."""
        return S3Bucket(self, place, keys=keys_of(place, secrets))


class S3Bucket:
    """Implements `protocol.Bucket`."""

    def __init__(self, of: S3Buckets, place: S3Place, *, keys: sigv4.Keys | None) -> None:
        self._of, self._place, self._keys = of, place, keys
        self._endpoint = endpoint_of(place)

    async def put(self, key: str, data: bytes) -> None:
        said = await self._ask(_Asked("PUT", key, body=data, headers={"content-type": _TYPE}))
        if said.status not in (200, 201, 204):
            raise self._failed(said)

    async def listed(self, prefix: str, *, after: str = "") -> list[str]:
        pairs = [("list-type", "2"), ("max-keys", "1000"), ("prefix", prefix)]
        pairs += [("start-after", after)] if after else []
        said = await self._ask(_Asked("GET", query=sigv4.query_of(pairs)))
        if said.status != 200:
            raise self._failed(said)
        page = self._read(said.body)
        found = [text_of(item, "Key") for item in page if item.tag.rpartition("}")[2] == "Contents"]
        # A server that knows no start-after gives the first page for ever.
        return sorted(key for key in found if key.startswith(prefix) and key > after)

    async def remove(self, key: str) -> None:
        said = await self._ask(_Asked("DELETE", key))
        if said.status not in (200, 202, 204) and not (said.status == 404 and b"NoSuchBucket" not in said.body):
            raise self._failed(said)

    async def expire(self, prefix: str, *, days: int) -> bool:
        said = await self._ask(_Asked("GET", query="lifecycle="))
        rules = expiry.read(said.status, said.body) if _plain(said.body) else None
        if rules is None:
            return False
        if expiry.stands(rules, prefix, days=days):
            return True
        body = expiry.written(rules, prefix, days=days)
        if body is None:
            return False
        headers = {"content-type": "application/xml", "content-md5": _md5(body)}
        if minimum := said.headers.get(_MINIMUM):
            headers[_MINIMUM] = minimum
        put = await self._ask(_Asked("PUT", query="lifecycle=", body=body, headers=headers))
        if put.status not in (200, 201, 204):
            return False
        said = await self._ask(_Asked("GET", query="lifecycle="))
        rules = expiry.read(said.status, said.body) if _plain(said.body) else None
        return rules is not None and expiry.stands(rules, prefix, days=days)

    def _read(self, body: bytes) -> ElementTree.Element:
        if not _plain(body):
            raise DriverError(UNREACHED, f"{self._host} answers what no bucket does: more tags than a list has")
        try:
            return parsed(body)
        except DriverError as error:
            raise DriverError(UNREACHED, f"{self._host} answers what no bucket does: {error.message}") from None

    @property
    def _host(self) -> str:
        return urlsplit(self._endpoint).netloc

    def _failed(self, said: _Said) -> DriverError:
        code = said.body[said.body.find(b"<Code>") + 6 :].partition(b"<")[0] if b"<Code>" in said.body else b""
        word = code.decode("ascii", "replace") if len(code) < 64 and code.isalnum() else ""
        words = f"{self._host} answers {said.status}{f' {word}' if word else ''} for the bucket {self._place.bucket}"
        if said.status in (401, 403):
            return DriverError(REFUSED, words)
        return DriverError(NOT_FOUND if said.status == 404 else UNREACHED, words)

    async def _ask(self, asked: _Asked) -> _Said:
        path = f"/{self._place.bucket}{f'/{quote(asked.key)}' if asked.key else ''}"
        url = f"{self._endpoint}{path}{f'?{asked.query}' if asked.query else ''}"
        question = sigv4.Question(
            host=self._host,
            path=urlsplit(url).path,
            method=asked.method,
            query=asked.query,
            headers=asked.headers,
            payload=await _digest(asked.body),
        )
        signed = sigv4.signed(self._keys, question, now=self._of.now()) if self._keys is not None else {}
        try:
            self._judge()
            async with (
                self._session() as session,
                session.request(
                    asked.method,
                    URL(url, encoded=True),
                    data=asked.body or None,
                    headers={**asked.headers, **signed},
                    allow_redirects=False,
                ) as answer,
            ):
                return _Said(answer.status, {n.lower(): v for n, v in answer.headers.items()}, await _body(answer))
        except TimeoutError as error:
            raise DriverError(UNREACHED, f"{self._host} does not answer in time") from error
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            if isinstance(error.__cause__, DriverError):
                raise error.__cause__ from error
            raise DriverError(UNREACHED, f"{self._host} cannot be reached", internal=repr(error)[:200]) from error

    def _judge(self) -> None:
        """Raises DriverError for where nobody is sent, ValueError for what is no address."""
        url, reach = urlsplit(self._endpoint), self._of.reach
        host = url.hostname or ""
        address = literal(host)
        if address is not None and not reach.allows(host, address):
            raise _inner(host)
        if url.scheme != "https" and not reach.names(host, address):
            words = f"{host} is asked over https alone, unless the operator names it (setting externalsAllowed)"
            raise DriverError(INNER, words)

    def _session(self) -> aiohttp.ClientSession:
        resolver = self._of.resolver(urlsplit(self._endpoint).hostname or "")
        judged = Judged(self._of.reach.allows_text, _inner, resolver=resolver)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=judged, use_dns_cache=False, ssl=self._of.tls),
            timeout=aiohttp.ClientTimeout(total=self._of.seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            max_line_size=_LINE_BYTES_MAX,
            max_field_size=_LINE_BYTES_MAX,
            headers={"Accept-Encoding": "identity", "User-Agent": "bessemer"},
        )


def _inner(host: str) -> DriverError:
    return DriverError(INNER, f"{host} stands at an inner address; the operator may name it (setting externalsAllowed)")


def _plain(body: bytes) -> bool:
    return all(body.count(mark) <= MARKS_MAX for mark in (b"<", b'"', b"'"))


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


async def _digest(body: bytes) -> str:
    if len(body) > _LARGE_BYTES:  # nobody waits for it
        return (await asyncio.to_thread(hashlib.sha256, body)).hexdigest()
    return hashlib.sha256(body).hexdigest()


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = await bounded(answer, ANSWER_BYTES_MAX)
    if body is None:
        raise ValueError(f"it answers with more than {ANSWER_BYTES_MAX} bytes")
    return body
