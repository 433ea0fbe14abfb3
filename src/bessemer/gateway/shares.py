"""Tokens per minute and money: what a project may still use, held before a request goes on, so that it is never passed,
however many gateways there are and whatever they are asked at once.

A request holds the most that it may amount to. The api gives out shares of a minute, each to one gateway, and the sum
of what it gave never passes the bound; what an answer did not use is here for the next of the minute. The clock is the
api's: a share says for how many seconds it is good, counted from before it was asked for.

Money goes with it. A gateway says with each call, and once a minute besides, how much of a project's money it holds in
all; what it does not need any more it gives back so. Who starts anew has a spool of before settled first: what is in
there is held by what its predecessor said. Then it gives back what that one held, whatever it serves itself.

Where nothing is bounded nobody waits: that is asked again once a minute, beside the requests. While the api is away,
whoever had no bound is served, and whoever had one is served from the share that is here.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.core.money import STATED_MAX, Prices, Wish
from bessemer.core.values import UsageRecord
from bessemer.gateway import errors
from bessemer.gateway.lasting import FORGET_SECONDS
from bessemer.gateway.purse import AHEAD, Bound, Held, Need, Purse, known
from bessemer.gateway.record import AnyRecord
from bessemer.gateway.request import Wanted

SLACK_SECONDS = 5.0
"""By which two answers may disagree about when one minute ends: what calls to the api take."""

AT_ONCE = 32
"""Of how many projects it is said at a time at the end: so many calls of one gateway the api lets wait. While requests
are served these come between, and it is said of fewer."""

TEMPLATE_TOKENS = 256
"""What a model's template may put around a conversation."""

_TRIES = 8
"""Of one request; each but the last brings something, or the number of a statement that was not known."""

_log = structlog.get_logger("gateway.shares")


@dataclass(frozen=True, slots=True)
class Given:
    """What the api gave: ``amount`` tokens for ``seconds``. ``left`` is what nobody has yet, None without a bound;
    ``words`` say why it refuses; ``money`` is None where that is not bounded."""

    amount: int
    seconds: float
    left: int | None
    words: str = ""
    money: Bound | None = None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Given:
        """From the answer of the api."""
        return cls(**{**known(cls, said), "money": Bound.read(said.get("money"))})


class Ask(Protocol):
    """What the api answers to a gateway that wants so many tokens, and says so of money."""

    def __call__(self, project: str, tokens: int, *, money: Wish) -> Awaitable[Given]: ...


class Shares:
    """The shares of one gateway, ``holder``. Without ``ask`` nothing is bounded. ``before`` is how many records of its
    spool are from before it started."""

    def __init__(
        self, ask: Ask | None = None, *, clock: Clock | None = None, holder: str = "gateway", before: int = 0
    ) -> None:
        self._ask = ask
        self._now = clock.monotonic if clock is not None else time.monotonic
        self._holder = holder
        self._before = before
        self._purses: dict[str, Purse] = {}
        self._ids = itertools.count(1)

    @property
    def ready(self) -> bool:
        """Whether nothing is in the spool any more that a predecessor held money for."""
        return not self._before

    def at_once(self, project: str, need: Need) -> Held | None:
        """Hold what is here, where nobody has to be asked for more. None where somebody has."""
        if self._ask is None:
            return Held(project)
        purse = self._purses.get(project)
        if purse is None:
            return None
        now = self._now()
        if not purse.free:
            return purse.at_once(project, need, id=next(self._ids), now=now)
        if now >= purse.ends and (purse.again is None or purse.again.done()):
            purse.again = asyncio.create_task(self._look_again(project, purse))
        return Held(project)

    async def hold(self, project: str, need: Need) -> Held:
        """Hold so much of the project's minute and money. Raises Refused: 429, or 503 where nobody can say."""
        if (held := self.at_once(project, need)) is not None:
            return held
        purse = self._purses.setdefault(project, Purse())
        async with purse.turn:
            await self._fill(project, purse, need=need)
            return purse.take(project, need, id=next(self._ids))

    def spend(self, held: Held, record: AnyRecord) -> None:
        """The record is in the spool: of what was held for it, its cost waits to be settled, and the rest is free."""
        purse = self._purses.get(held.project)
        if purse is None or held.prices is None:
            return
        read, cached, written = record.input_tokens, record.cached_input_tokens, record.output_tokens
        cost = held.prices.tokens(read=read, cached=cached, written=written)
        purse.money.spend(held.id, record.request_id, cost=cost, micro=held.micro)

    async def room(self, project: str) -> tuple[int | None, int | None, Prices | None]:
        """How many tokens, and how much money at which prices, there are for the gateway yet, as far as is known; None
        where nothing bounds them. Raises Refused where nobody can say."""
        purse = self._purses.setdefault(project, Purse())
        if self._ask is None or purse.free:
            return None, None, None
        async with purse.turn:
            given = await self._given(project, 0, purse=purse, more=0)
        money = purse.money
        tokens = (0 if given.words else purse.have + purse.left) if purse.bounded else None
        return tokens, money.have + money.left if money.prices is not None else None, money.prices

    def settle(self, held: Held, used: int) -> None:
        """The request is over: what it did not use is the next one's, while the minute lasts."""
        purse = self._purses.get(held.project)
        if purse is None:
            return
        if held.amount and purse.number == held.number:
            purse.have += held.amount - used
        if held.micro:
            purse.money.leave(held.id)

    def settled(self, records: Sequence[UsageRecord], gone: int) -> None:
        """These are in the ledger by now, and no more held; so many are ``gone`` from the spool."""
        self._before = max(0, self._before - gone)
        for record in records:
            if (purse := self._purses.get(record.project)) is not None:
                purse.money.settled(record.request_id)

    async def replaced(self, project: str) -> bool:
        """Let this gateway's word take the place of its predecessor's; whether it did."""
        purse = self._purses.setdefault(project, Purse())
        async with purse.turn:
            return await self._state(project, purse)

    async def say(self, *, last: bool = False) -> None:
        """Say of each project what of its money is held; what was not used since the last time, or will not be after
        the ``last`` one, is given back. The most is said first, and no call that hangs holds up the others."""
        room = asyncio.Semaphore(AT_ONCE if last else AT_ONCE // 4)

        async def one(project: str, purse: Purse) -> None:
            async with room, purse.turn:
                money = purse.money
                if last or not money.used:
                    money.have = 0
                money.used = False
                if money.prices is not None and not self._before and (money.level or money.stated):
                    await self._state(project, purse)

        largest_first = sorted(self._purses.items(), key=lambda item: item[1].money.have, reverse=True)
        await asyncio.gather(*(one(project, purse) for project, purse in largest_first))
        long_ago = self._now() - FORGET_SECONDS
        for project, purse in largest_first:
            held = purse.turn.locked() or purse.money.level or purse.money.stated
            if not held and purse.ends < long_ago and self._purses.get(project) is purse:
                del self._purses[project]

    async def _state(self, project: str, purse: Purse) -> bool:
        """Let the api know; whether it does. Until then it keeps more than there is, or knows of a later word than this
        gateway."""
        for _ in range(2):
            try:
                given = await self._given(project, 0, purse=purse, more=0)
            except errors.Refused:
                return False
            if given.money is None or given.money.stands:
                return not given.words
        return False

    async def _fill(self, project: str, purse: Purse, *, need: Need) -> None:
        """Get what is missing, and somewhat more where there is plenty. Raises Refused."""
        for _ in range(_TRIES):
            if self._now() >= purse.ends:
                purse.have = purse.left = 0
            if purse.covers(need, self._now()):
                return
            if purse.money.prices is not None and self._before:
                raise errors.limit_unknown()
            # Where tokens are not bounded none are here: they are asked for, so that somebody may bound them.
            missing, short = need.tokens - purse.have, purse.money.missing(need)
            tokens = max(missing, purse.left // AHEAD) if missing > 0 else 0
            given = await self._given(project, tokens, purse=purse, more=purse.money.ahead(short))
            if given.words:  # perhaps there is less, and enough
                given = await self._given(project, max(0, need.tokens - purse.have), purse=purse, more=short)
            if given.words:
                raise errors.rate_limited(given.words, retry_after_seconds=max(1, int(given.seconds) + 1))
        raise errors.limit_unknown()

    async def _given(self, project: str, tokens: int, *, purse: Purse, more: int) -> Given:
        """Ask for tokens, and to hold so much ``more`` money, and put what is given into the purse; that is done also
        where who asks leaves meanwhile. Raises Refused."""
        return await purse.asking.make(partial(self._asked, project, tokens, purse=purse, more=more))

    async def _asked(self, project: str, tokens: int, *, purse: Purse, more: int) -> Given:
        assert self._ask is not None
        before, money = self._now(), purse.money
        level = money.level + more
        if max(tokens, level) > STATED_MAX:
            raise errors.too_much()
        # It may stand, though its answer is never heard: then it is said again, and less.
        money.stated = max(money.stated, level)
        wish = Wish(holder=self._holder, micro=level, after=None if self._before else money.number)
        try:
            given = await self._ask(project, tokens, money=wish)
        except (BessemerError, OSError) as error:
            _log.warning("no share of the minute", project=project, error=str(error))
            raise errors.limit_unknown() from error
        ends = before + given.seconds
        if ends > purse.ends + SLACK_SECONDS:
            # Another minute, which may have begun while this was asked: what is left of the one before is void.
            purse.number, purse.have = purse.number + 1, 0
        purse.ends = ends
        if given.words:
            purse.left = money.left = 0
            return given
        purse.bounded, purse.left = given.left is not None, given.left or 0
        purse.have += given.amount if purse.bounded else 0
        money.hear(given.money, asked=more)
        if given.money is None or given.money.stands:
            money.stated = level if given.money is not None else 0
        return given

    async def _look_again(self, project: str, purse: Purse) -> None:
        """Whether nothing is bounded still; while nobody can say, it is so."""
        async with purse.turn:
            try:
                given = await self._given(project, 0, purse=purse, more=0)
            except errors.Refused:
                purse.ends = self._now() + 1.0
                return
            if given.words:
                purse.bounded = None  # the next request hears why


def most(wanted: Wanted, context_tokens: int) -> Need:
    """The most that a request may amount to, read and written: no token of a text is less than a byte, and no sequence
    has more than the context of a slot."""
    written, sequences = wanted.writes, wanted.sequences
    if written is None or written > context_tokens:
        written = context_tokens
    each = len(wanted.body) + TEMPLATE_TOKENS + written
    if wanted.unmeasured or each > context_tokens:
        each = context_tokens
    return Need(sequences * each or 1, sequences * written)
