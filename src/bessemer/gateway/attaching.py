"""Brings what requests name by its address (`attached`), so that no engine dials anybody for a client.

Only hosts that the Endpoint names are asked, over https, at addresses that were judged and are the ones dialled; no
redirect is followed, nothing is unpacked, no proxy of the environment is asked. What comes counts among the bodies that
the process holds, as it comes. An address is of a prompt, and in no log; its host is.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
import msgspec
import structlog
from yarl import URL

from bessemer.drivers.addresses import address_of, literal
from bessemer.gateway import attached, errors
from bessemer.gateway.attached import Attached, Seen
from bessemer.gateway.errors import Refused
from bessemer.gateway.lookups import Lookups, Resolver
from bessemer.gateway.onward import carrying
from bessemer.gateway.outer import Outward
from bessemer.gateway.reading import grow
from bessemer.gateway.reply import Call
from bessemer.gateway.request import Wanted
from bessemer.gateway.tables import EndpointEntry

BYTES_MAX = 8 << 20
"""Of one that is fetched."""
COUNT_MAX = 16
"""Of a request's."""
SECONDS_MAX = 10.0
"""For all of a request's."""
AT_ONCE_MAX, OF_ONE_MAX = 64, 8
"""Requests of a process, and of a project, whose parts are being fetched."""
_CONNECTIONS = 4
_PIECE_BYTES = 64 << 10
_LINE_BYTES_MAX = 8190

_URL = re.compile(r"https://([A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?(?:[/?][!-\[\]-~]{0,4096})?")
_TYPE = re.compile(r"(?:image|audio)/[a-z0-9][a-z0-9.+-]{0,63}")
_DOCUMENTS = frozenset(("image/svg+xml",))
"""What may itself say addresses."""
_NEVER = float("inf")
_log = structlog.get_logger("gateway.attaching")


class _Unfetched(Exception):
    """Why something was not: in words for whoever asked."""


class Attaching:
    """Of one gateway. Without ``outward`` nobody is asked."""

    def __init__(self, outward: Outward | None) -> None:
        self._outward = outward
        self._busy: Counter[str] = Counter()

    def look(self, call: Call, wanted: Wanted, *, endpoint: EndpointEntry) -> Bringing | None:
        """Judge a body; what is to be fetched for it, None where that is nothing. Raises Refused."""
        if wanted.fields is None or not attached.marked(wanted.body):
            return None
        seen = attached.look(wanted.fields)
        for one in seen.attached:
            _check(one, endpoint.hosts)
        if len(seen.attached) > COUNT_MAX:
            words = f"A request may have at most {COUNT_MAX} parts that are fetched for it."
            raise errors.malformed(words, seen.attached[COUNT_MAX].part)
        if not seen.attached:
            put(wanted, seen)
            return None
        if self._busy.total() >= AT_ONCE_MAX or self._busy[endpoint.project] >= OF_ONE_MAX:
            raise errors.crowded()
        return Bringing(self, call, wanted, seen=seen, project=endpoint.project)

    async def bring(self, bringing: Bringing) -> None:
        """Fetch all of it, and put it where it was named. Raises Refused."""
        seen = bringing.seen
        try:
            async with (
                asyncio.timeout(SECONDS_MAX),
                self._session(bringing.project) as session,
                asyncio.TaskGroup() as group,
            ):
                for one in seen.attached:
                    group.create_task(_bring(session, one, grow=bringing.grow))
        except TimeoutError:
            raise attached.refused(seen.attached[0], f"what is there did not come within {SECONDS_MAX:g} s") from None
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        put(bringing.wanted, seen)

    def began(self, project: str) -> None:
        """Something is being fetched for a request of the project."""
        self._busy[project] += 1

    def ended(self, project: str) -> None:
        """No more."""
        self._busy[project] -= 1
        if not self._busy[project]:
            del self._busy[project]

    def _session(self, project: str) -> aiohttp.ClientSession:
        lookups = Lookups() if self._outward is None else self._outward.lookups
        resolver = Resolver(lookups, self._allows, project=project)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=resolver,
                use_dns_cache=False,
                force_close=True,
                limit=_CONNECTIONS,
                ssl=True if self._outward is None else self._outward.tls,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            max_line_size=_LINE_BYTES_MAX,
            max_field_size=_LINE_BYTES_MAX,
            headers={"Accept": "image/*, audio/*", "Accept-Encoding": "identity", "User-Agent": "bessemer"},
        )

    def _allows(self, host: str, address: str) -> bool:
        return self._outward is not None and self._outward.allows(host, address_of(address))


@dataclass(slots=True, eq=False)
class Bringing:
    """A call that waits for its parts."""

    attaching: Attaching
    call: Call
    wanted: Wanted
    seen: Seen
    project: str
    _fetching: asyncio.Task[None] | None = None

    def begin(self, then: Callable[[], None], *, until: float) -> None:
        """Fetch them; then it is ``then``'s."""
        self.call.work = self
        self.call.deadline = until
        self.attaching.began(self.project)
        self._fetching = asyncio.create_task(self.attaching.bring(self))
        self._fetching.add_done_callback(lambda fetching: self._told(fetching, then))

    def grow(self, size: int) -> None:
        """So many bytes more are held for it. Raises Refused."""
        if self.call.work is not self:
            raise errors.crowded()  # the client has gone, and nothing is held for it any more
        grow(self.call.bodies, self.call, size=size)

    def gone(self) -> None:
        """The client has left."""
        if self._fetching is not None:
            self._fetching.cancel()

    def late(self) -> None:
        """Its client wants it no more."""
        self.gone()
        self.call.refuse(errors.deadline_passed())

    def flow(self, paused: bool) -> None:
        """Nothing is written yet."""

    def _told(self, fetching: asyncio.Task[None], then: Callable[[], None]) -> None:
        call = self.call
        self.attaching.ended(self.project)
        if fetching.cancelled() or call.work is not self:
            if not fetching.cancelled():
                fetching.exception()  # nobody is left to be told
            return
        call.work, call.deadline = None, _NEVER
        try:
            fetching.result()
            then()
        except Refused as refused:
            call.refuse(refused)
        except BaseException:
            call.abandon()
            raise


def put(wanted: Wanted, seen: Seen) -> None:
    """Let a body go on with the fields as they were read."""
    if not seen.fields:
        return
    written = seen.written()
    wanted.body = carrying(wanted.body, written, said=written.keys())
    assert wanted.fields is not None
    wanted.fields = {**wanted.fields, **{name: msgspec.Raw(value) for name, value in written.items()}}


def _check(one: Attached, hosts: AbstractSet[str]) -> None:
    """Raises Refused for what may not be fetched."""
    if not one.fetched:
        raise attached.refused(one, "nothing is fetched from there for your request")
    if not hosts:
        raise attached.refused(one, "this endpoint lets none be fetched")
    found = _URL.fullmatch(one.url)
    if found is None:
        raise attached.refused(one, "it is not written as https://HOST/PATH")
    host, port = found[1].lower(), found[2]
    if (host if port in (None, "443") else f"{host}:{port}") not in hosts:
        raise attached.refused(one, f"its host is none of those that this endpoint lets be asked: {_some(hosts)}")
    with suppress(ValueError):
        if literal(host) is None:
            return
    raise attached.refused(one, "its host is no name")


def _some(hosts: AbstractSet[str]) -> str:
    return ", ".join(sorted(hosts)[:8])


async def _bring(session: aiohttp.ClientSession, one: Attached, *, grow: Callable[[int], None]) -> None:
    """Raises Refused."""
    url = URL(one.url, encoded=True)
    try:
        async with session.get(url, allow_redirects=False) as answer:
            kind = _kind(answer)
            body = await _read(answer, grow)
    except _Unfetched as why:
        raise attached.refused(one, str(why)) from why
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Where its host stands, and whether somebody is there, is not told: only the log says more.
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else type(error).__name__
        _log.warning("a part could not be fetched", host=url.host, error=str(cause)[:200])
        raise attached.refused(one, "its host cannot be reached") from error
    grow((len(body) + 2) // 3 * 4 - len(body))
    one.put(f"data:{kind};base64,{base64.b64encode(body).decode()}")


def _kind(answer: aiohttp.ClientResponse) -> str:
    """The type of what comes. Raises _Unfetched."""
    if 300 <= answer.status < 400:
        raise _Unfetched(f"its host sends elsewhere with status {answer.status}, which nobody follows")
    if answer.status != 200:
        raise _Unfetched(f"its host answers with status {answer.status}")
    if answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise _Unfetched("its host packs what it sends")
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not _TYPE.fullmatch(kind) or kind in _DOCUMENTS:
        raise _Unfetched("what is there is no image and no sound, by what its host says")
    return kind


async def _read(answer: aiohttp.ClientResponse, grow: Callable[[int], None]) -> bytes:
    """All of it. Raises _Unfetched, Refused."""
    many = f"what is there is more than {BYTES_MAX} bytes"
    if (answer.content_length or 0) > BYTES_MAX:
        raise _Unfetched(many)
    pieces: list[bytes] = []
    size = 0
    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
        size += len(piece)
        if size > BYTES_MAX:
            raise _Unfetched(many)
        grow(len(piece))
        pieces.append(piece)
    return b"".join(pieces)
