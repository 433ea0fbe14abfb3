"""HTTP as sources are asked: judged addresses, redirects by hand, bounded answers, streams that go on at an offset.

No cookie is kept and no proxy asked. A header that says who asks goes to the origin it is meant for and to no other, so
that a redirect to somebody's storage carries no token there.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin

import aiohttp
from yarl import URL

from bessemer.core.errors import DriverError
from bessemer.drivers.bounded import bounded
from bessemer.drivers.fetch.reach import Reach, inner
from bessemer.drivers.judged import Judged

REDIRECTS_MAX = 5
ANSWER_BYTES_MAX = 4 << 20
CONNECT_SECONDS, SILENT_SECONDS, ANSWER_SECONDS = 20.0, 60.0, 60.0
FILE_SECONDS = 24 * 3600.0
PIECE_BYTES = 1 << 18

ANY = "*"
"""A version that every one is."""

_MOVED = frozenset((301, 302, 303, 307, 308))


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, whole."""

    code: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is asked for. ``secret`` are headers for this URL's origin alone; ``offset`` where to go on."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: Mapping[str, str] = field(default_factory=dict)
    offset: int = 0


class Web:
    """Asks within a reach; each question has a connection of its own."""

    def __init__(self, reach: Reach, *, silent_seconds: float = SILENT_SECONDS) -> None:
        self._reach = reach
        self._silent_seconds = silent_seconds

    async def whole(self, asking: Asking, *, bytes_max: int = ANSWER_BYTES_MAX) -> Said:
        """A bounded answer, whatever its status. Raises DriverError ``AddressRefused``, ``ImportFailed``."""
        async with self._asked(asking, seconds=ANSWER_SECONDS) as answer:
            body = await bounded(answer, bytes_max)
            if body is None:
                raise DriverError("ImportFailed", f"{_host(asking.url)} answers with more than {bytes_max} bytes")
            return Said(answer.status, dict(answer.headers), body)

    async def stream(self, asking: Asking, *, version: str = "") -> AsyncGenerator[bytes, None]:
        """A file from an offset to its end, of this ``version`` (`ANY` where its bytes are checked anyhow). Raises
        DriverError, also ``SourceChanged`` where the server has another version now, or goes on elsewhere."""
        at = asking.offset
        ranged = {"Range": f"bytes={at}-", **({"If-Range": version} if version.startswith('"') else {})} if at else {}
        asked = Asking(url=asking.url, headers={**asking.headers, **ranged}, secret=asking.secret, offset=at)
        async with self._asked(asked, seconds=FILE_SECONDS) as answer:
            skip = _begun(answer, at, version=version)
            if skip < 0:
                return
            async for part in answer.content.iter_chunked(PIECE_BYTES):
                if skip >= len(part):
                    skip -= len(part)
                    continue
                yield part[skip:]
                skip = 0

    async def likeness(self, asking: Asking) -> tuple[int, str]:
        """Size and version of a file, -1 and "" where the server does not say. Raises DriverError."""
        async with self._asked(asking, seconds=ANSWER_SECONDS) as answer:
            _begun(answer, 0, version="")
            return answer.content_length if answer.content_length is not None else -1, answer.headers.get("ETag", "")

    @asynccontextmanager
    async def _asked(self, asking: Asking, *, seconds: float) -> AsyncIterator[aiohttp.ClientResponse]:
        host = _host(asking.url)
        try:
            async with (
                self._session(seconds) as session,
                _followed(session, self._reach, asking=asking) as answer,
            ):
                yield answer
        except TimeoutError as error:
            raise DriverError("ImportFailed", f"{host} does not answer in time") from error
        except aiohttp.ClientConnectorCertificateError as error:
            words = f"{host} shows a certificate that nobody trusts here"
            raise DriverError("ImportFailed", words, internal=str(error)) from error
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            if isinstance(error.__cause__, DriverError):
                raise error.__cause__ from error
            raise DriverError("ImportFailed", f"{host} cannot be reached", internal=repr(error)) from error

    def _session(self, seconds: float) -> aiohttp.ClientSession:
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS, sock_read=self._silent_seconds)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Judged(self._reach.allows_text, inner), use_dns_cache=False),
            timeout=limits,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "bessemer"},
        )


@asynccontextmanager
async def _followed(
    session: aiohttp.ClientSession, reach: Reach, *, asking: Asking
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer at the end of its redirects, each judged as the first was."""
    first = at = reach.check_url(asking.url)
    for _ in range(REDIRECTS_MAX + 1):
        own = asking.secret if _origin(at) == _origin(first) else {}
        url = URL(at.geturl(), encoded=True)
        async with session.get(url, headers={**asking.headers, **own}, allow_redirects=False) as answer:
            onward = answer.headers.get("Location", "") if answer.status in _MOVED else ""
            if not onward:
                yield answer
                return
        at = reach.check_url(urljoin(at.geturl(), onward))
    raise DriverError("ImportFailed", f"{_host(asking.url)} redirects more than {REDIRECTS_MAX} times")


def failed(code: int, what: str) -> DriverError:
    """The error of an answer that is none."""
    if code in (401, 403):
        return DriverError("SourceGated", f"the source answers with {code}: who asks may not have {what}")
    if code in (404, 410):
        return DriverError("SourceNotFound", f"the source has not {what}")
    return DriverError("ImportFailed", f"the source answers with {code} for {what}")


def _begun(answer: aiohttp.ClientResponse, at: int, *, version: str) -> int:
    """How many bytes of the answer we have already; -1 where all of it. Raises DriverError."""
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DriverError("ImportFailed", "a source packs its bytes though it was asked not to")
    if answer.status == 206 and at:
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {at}-"):
            raise DriverError("SourceChanged", "a source goes on elsewhere than it was asked to")
        # Of what has a weak ETag, or where If-Range is not heeded, another version goes on all the same.
        if version not in (ANY, answer.headers.get("ETag", version)):
            raise DriverError("SourceChanged", "a source has another version now")
        return 0
    if answer.status == 416 and at and answer.headers.get("Content-Range", "") == f"bytes */{at}":
        return -1
    if answer.status != 200:
        raise failed(answer.status, "the file")
    if at and version != ANY and (not version or answer.headers.get("ETag", "") != version):
        raise DriverError("SourceChanged", "a source has another version now")
    return at


def _origin(url: SplitResult) -> tuple[str, str, int | None]:
    return url.scheme, url.hostname or "", url.port


def _host(url: str) -> str:
    return URL(url).host or "" if url.isascii() and url.startswith("http") else "the source"
