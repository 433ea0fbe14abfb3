"""Tokens per minute: what a project may still use of its minute, held before a request goes on, so that it is never
passed, however many gateways there are and whatever they are asked at once.

A request holds the most that it may amount to. The api gives out shares of a minute, each to one gateway, and the sum
of what it gave never passes the bound; what an answer did not use is here for the next of the minute. The clock is the
api's: a share says for how many seconds it is good, counted from before it was asked for.

Where nothing is bounded nobody waits: that is asked again once a minute, beside the requests. While the api is away,
whoever had no bound is served, and whoever had one is served from the share that is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.gateway import errors
from bessemer.gateway.request import Wanted

Ask = Callable[[str, int], Awaitable["Given"]]
"""``ask(project, tokens)``."""

AHEAD = 8
"""A share is at least this part of what is left: a call to the api serves several requests."""

SLACK_SECONDS = 5.0
"""By which two answers may disagree about when one minute ends: what calls to the api take."""

TEMPLATE_TOKENS = 256
"""What a model's template may put around a conversation."""

_log = structlog.get_logger("gateway.shares")


@dataclass(frozen=True, slots=True)
class Given:
    """What the api gave: ``amount`` tokens, 0 where it refuses, for ``seconds``. ``left`` is what nobody has yet, None
    without a bound; ``words`` say why it refuses."""

    amount: int
    seconds: float
    left: int | None
    words: str = ""


@dataclass(slots=True)
class _Purse:
    """A project's, of one minute. ``number`` tells its minutes apart."""

    bounded: bool | None = None
    have: int = 0
    left: int = 0
    ends: float = 0.0
    number: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    again: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What one request holds, of which minute; 0 where nothing is bounded."""

    project: str
    amount: int = 0
    number: int = 0


class Shares:
    """The shares of one gateway. Without ``ask`` nothing is bounded."""

    def __init__(self, ask: Ask | None = None, *, clock: Clock | None = None) -> None:
        self._ask = ask
        self._clock = clock
        self._purses: dict[str, _Purse] = {}

    async def hold(self, project: str, tokens: int) -> Held:
        """Hold so many tokens of the project's minute. Raises Refused: 429, or 503 where nobody can say."""
        if self._ask is None or self._clock is None:
            return Held(project)
        purse = self._purses.setdefault(project, _Purse())
        if purse.bounded is False:
            if self._clock.monotonic() >= purse.ends and (purse.again is None or purse.again.done()):
                purse.again = asyncio.create_task(self._look_again(project, purse))
            return Held(project)
        async with purse.turn:
            return await self._hold(project, purse, tokens=tokens)

    def settle(self, held: Held, used: int) -> None:
        """The request is over: what it did not use is the next one's, while the minute lasts."""
        purse = self._purses.get(held.project)
        if purse is not None and held.amount and purse.number == held.number:
            purse.have += held.amount - used

    async def _hold(self, project: str, purse: _Purse, *, tokens: int) -> Held:
        if self._now() >= purse.ends:
            purse.have = purse.left = 0
        if purse.have < tokens:
            await self._fill(project, purse, tokens=tokens)
        if not purse.bounded:
            return Held(project)
        purse.have -= tokens
        return Held(project, tokens, purse.number)

    async def _fill(self, project: str, purse: _Purse, *, tokens: int) -> None:
        """Get what is missing, and somewhat more where there is plenty. Raises Refused."""
        while purse.bounded is not False and purse.have < tokens:
            missing = tokens - purse.have
            asked = max(missing, purse.left // AHEAD)
            given = await self._given(project, asked, purse=purse)
            if given.left is not None and not given.amount and asked > missing:
                given = await self._given(project, tokens - purse.have, purse=purse)
            if given.left is not None and not given.amount:
                raise errors.rate_limited(given.words, retry_after_seconds=max(1, int(given.seconds) + 1))

    async def _given(self, project: str, tokens: int, *, purse: _Purse) -> Given:
        """Ask, and put what is given into the purse."""
        assert self._ask is not None
        before = self._now()
        try:
            given = await self._ask(project, tokens)
        except (BessemerError, OSError) as error:
            _log.warning("no share of the minute", project=project, error=str(error))
            raise errors.limit_unknown() from error
        ends = before + given.seconds
        if ends > purse.ends + SLACK_SECONDS:
            # Another minute, which may have begun while this was asked: what is left of the one before is void.
            purse.number, purse.have = purse.number + 1, 0
        purse.ends = ends
        purse.bounded, purse.left = given.left is not None, given.left or 0
        purse.have += given.amount
        return given

    async def _look_again(self, project: str, purse: _Purse) -> None:
        """Whether nothing is bounded still; while nobody can say, it is so."""
        try:
            await self._given(project, 0, purse=purse)
        except errors.Refused:
            purse.ends = self._now() + 1.0

    def _now(self) -> float:
        assert self._clock is not None
        return self._clock.monotonic()


def most_tokens(wanted: Wanted, context_tokens: int) -> int:
    """The most that a request may amount to, read and written: no token is less than a byte, and no sequence has more
    than the context of a slot."""
    written = context_tokens if wanted.writes is None else wanted.writes
    each = min(context_tokens, len(wanted.body) + TEMPLATE_TOKENS + written)
    return max(1, wanted.sequences * each)
