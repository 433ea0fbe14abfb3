"""People who ask with a token of an OIDC issuer instead of a key: who they are and in which projects they may ask, as
the api says.

The gateway knows no issuer, no role and no person: it shows the token to the api, which judges it as one that is shown
there, and remembers the answer for `FRESH_SECONDS`. So what is withdrawn (a user, a membership, a provider, a sign-in)
is heard of within a second, a person who asks on and on costs the api two calls a second at most, and a token is kept
as a digest. While the api cannot be asked its last good answer stands, until the token ends or for as long as keys are
believed unheard.

Who shows what is no token of anybody's is bounded: so many are asked about at a time, of one network fewer. Whoever was
somebody when they were last asked about is not counted among those.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Protocol

import orjson
import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.gateway import errors
from bessemer.gateway.errors import Refused
from bessemer.gateway.reply import Call
from bessemer.gateway.tables import KeyEntry

FRESH_SECONDS = 0.5
ASK_SECONDS = 5.0
KNOWN_MAX = 10_000
ASKED_MAX, ASKED_OF_ONE_MAX = 64, 8
"""Tokens that are asked about at a time, and those of one network."""
TOKEN_LENGTH_MAX = 16_384

PERSONS = "user/"
"""What the uid of a key begins with by which a person asks."""

_PROJECT = (b"openai-project", b"x-bessemer-project")
_log = structlog.get_logger("gateway.people")


class Vouch(Protocol):
    """What the api answers to a gateway that was shown a token: ``{"user", "projects"}``; "" is nobody."""

    def __call__(self, token: str, *, project: str) -> Awaitable[Mapping[str, Any]]: ...


@dataclass(slots=True)
class Person:
    """Who shows a token, "" nobody, and the projects in which they may ask. ``heard`` is when the api said so,
    ``fresh`` until when that is not asked again; ``expires`` by the clock on the wall."""

    user: str
    projects: tuple[str, ...]
    heard: float
    fresh: float
    expires: float
    _keys: dict[str, KeyEntry] = field(default_factory=dict)

    def key(self, project: str) -> KeyEntry:
        """By which they ask there: all of the project's endpoints, and their own bounds as a member's."""
        key = self._keys.get(project)
        if key is None:
            uid = f"{PERSONS}{self.user}"
            key = self._keys[project] = KeyEntry(uid, "", project, frozenset(), None, owner=self.user)
        return key

    def has(self, key: KeyEntry) -> bool:
        """Whether it is theirs, still."""
        return self.user == key.owner and key.project in self.projects

    def placed(self, model: str) -> tuple[KeyEntry, str] | None:
        """Which project is meant by ``PROJECT/NAME``, or by NAME where there is but one, and NAME."""
        project, slash, name = model.partition("/")
        if not slash:
            return (self.key(self.projects[0]), model) if len(self.projects) == 1 else None
        return (self.key(project), name) if project in self.projects else None


class People:
    """Those of whom one gateway knows. Without ``vouch`` nobody is. ``most`` is for how long an answer stands while
    the api cannot be asked, in seconds."""

    def __init__(self, vouch: Vouch | None, clock: Clock, *, most: float) -> None:
        self._vouch = vouch
        self._clock = clock
        self._most = most
        self._known: OrderedDict[bytes, Person] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Person]] = {}
        self._of: Counter[str] = Counter()

    def shown(self, token: str) -> bool:
        """Whether it may be a token of an issuer."""
        signed = token.startswith("eyJ") and token.count(".") == 2
        return self._vouch is not None and signed and len(token) <= TOKEN_LENGTH_MAX

    def who(self, token: str, call: Call) -> Person | asyncio.Future[Person]:
        """Who shows it, at once where that was heard just now. Raises Refused, the future, too."""
        project = next((call.headers[name] for name in _PROJECT if name in call.headers), b"").decode("latin-1")
        digest = hashlib.sha256(f"{project} {token}".encode()).digest()
        known = self._known.get(digest)
        if known is not None and self._clock.monotonic() < known.fresh:
            if not known.user:
                raise errors.wrong_key(token)
            return known
        asked = self._asking.get(digest)
        if asked is None:
            source = _network(call.peer)
            nobody = known is None or not known.user
            if nobody and (len(self._asking) >= ASKED_MAX or self._of[source] >= ASKED_OF_ONE_MAX):
                raise errors.crowded()
            asked = self._asking[digest] = asyncio.create_task(self._ask(token, project, digest=digest))
            self._of[source] += 1
            asked.add_done_callback(lambda _: self._told(digest, source))
        return asked

    def again(self, token: str, call: Call, *, key: KeyEntry) -> bool | asyncio.Future[bool]:
        """Whether who showed it still may ask by the ``key`` that was theirs. Raises Refused, the future, too."""
        person = self.who(token, call)
        if isinstance(person, Person):
            return person.has(key)
        return asyncio.ensure_future(_has(person, key))

    def _told(self, digest: bytes, source: str) -> None:
        del self._asking[digest]
        self._of[source] -= 1
        if not self._of[source]:
            del self._of[source]

    async def _ask(self, token: str, project: str, *, digest: bytes) -> Person:
        assert self._vouch is not None
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(ASK_SECONDS):
                said = await self._vouch(token, project=project)
        except (BessemerError, OSError, TimeoutError) as error:
            _log.warning("who shows a token is not known", error=str(error)[:200])
            return self._unheard(digest)
        projects = tuple(said["projects"])
        person = Person(said["user"], projects, asked_at, asked_at + FRESH_SECONDS, _end(token))
        self._known[digest] = person
        self._known.move_to_end(digest)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        if not person.user:
            raise errors.wrong_key(token)
        return person

    def _unheard(self, digest: bytes) -> Person:
        """What was heard last. Raises Refused where that is too old."""
        known, now = self._known.get(digest), self._clock.monotonic()
        if known is None or not known.user or now - known.heard > self._most or self._clock.now() >= known.expires:
            raise errors.bearer_unknown()
        known.fresh = now + FRESH_SECONDS
        return known


class Vouching:
    """A call that waits until the api has said who asks; then it is ``then``'s."""

    __slots__ = ("_call", "_then")

    def __init__(self, call: Call, asked: asyncio.Future[Person], *, then: Callable[[Call], None]) -> None:
        self._call = call
        self._then = then
        call.work = self
        asked.add_done_callback(self._told)

    def gone(self) -> None:
        """The client has left; who it was may be asked by another."""

    def late(self) -> None:
        """The api is not waited for without end."""

    def flow(self, paused: bool) -> None:
        """Nothing is written yet."""

    def _told(self, asked: asyncio.Future[Person]) -> None:
        call = self._call
        if call.work is not self:
            return
        call.work = None
        try:
            call.key = asked.result()
            self._then(call)
        except Refused as refused:
            call.refuse(refused)
        except BaseException:
            call.abandon()
            raise


async def _has(asked: asyncio.Future[Person], key: KeyEntry) -> bool:
    return (await asked).has(key)


def refuse_early(call: Call, asked: asyncio.Future[Person]) -> None:
    """Read no more of a body once its sender is nobody."""

    def told(asked: asyncio.Future[Person]) -> None:
        error = None if asked.cancelled() else asked.exception()
        if isinstance(error, Refused) and not call.whole:
            call.give_up(error)

    asked.add_done_callback(told)


def _network(address: str) -> str:
    """Whose address it is: of IPv6 the first 64 bits."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if parsed.version == 4 else parsed.packed[:8].hex()


def _end(token: str) -> float:
    """When it says that it ends; it was judged."""
    try:
        payload = token.split(".")[1]
        return float(orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
    except (ValueError, KeyError, TypeError):
        return 0.0
