"""Limits and budgets of keys, members, projects and tenants, and what quotas say of tokens and money, held before a
request goes on: none is ever passed, however many gateways there are and whatever they are asked at once.

What a request may amount to is taken of all bounds that it is judged by, or of none. What lacks here is asked of the
api, for all scopes at once: of a minute a share, of anything else that the gateway may hold so much in all. It says so
again every half minute, and gives back what nobody used meanwhile. Who holds nothing that is bounded asks nobody: once
a minute it is asked, beside the requests, whether that is so still.

While the api is away a gateway serves from what it holds, for at most `HOLD_SECONDS`; a minute's share ends with its
minute. A gateway that starts anew has the spool of before settled first, and then says that it holds nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from bessemer.core.bounds import scopes_of
from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.core.money import STATED_MAX, Prices
from bessemer.core.units import show_price
from bessemer.gateway import errors
from bessemer.gateway.lasting import FORGET_SECONDS
from bessemer.gateway.need import Need
from bessemer.gateway.record import AnyRecord
from bessemer.gateway.tables import KeyEntry
from bessemer.gateway.tickets import Account, Known, Ticket
from bessemer.gateway.vessels import MONEY, Lent, Row, Vessel

LOOK_SECONDS = 60.0
"""How often it is asked of whoever is served whether the bounds are those that are known."""

WANTS_MAX = 999
"""Of one call, beside what is named of who begins anew."""

AT_ONCE = 32
"""Of how many projects it is said at a time at the end: so many calls of one gateway the api lets wait. While requests
are served these come between, and it is said of fewer."""

Whose = tuple[str, str, str]
"""Project, key and owner by whose bounds a request is judged."""

_TRIES = 8
_QUOTA = ("insufficient_quota", "insufficient_quota")


_log = structlog.get_logger("gateway.lending")


class AskBounds(Protocol):
    """What the api answers to a gateway that wants something of the bounds of a project."""

    def __call__(self, project: str, *, bounds: Mapping[str, Any]) -> Awaitable[Mapping[str, Any]]: ...


class Lending:
    """What one gateway, ``holder``, holds of bounds. Without ``ask`` nothing is bounded. ``before`` is how many records
    of its spool are from before it started."""

    def __init__(
        self, ask: AskBounds | None = None, *, clock: Clock | None = None, holder: str = "gateway", before: int = 0
    ) -> None:
        self._ask = ask
        self.now = clock.monotonic if clock is not None else time.monotonic
        """By the clock of periods and holds."""
        self._holder = holder
        self._before = before
        self._accounts: dict[str, Account] = {}
        self._known: dict[Whose, Known] = {}
        self._owed: dict[str, tuple[Row, int, int]] = {}

    @property
    def ready(self) -> bool:
        """Whether nothing is in the spool any more that a predecessor held something for."""
        return not self._before

    def at_once(self, key: KeyEntry, need: Need) -> Ticket | None:
        """Hold what is here for it, and nobody has to be asked for. None where somebody has."""
        if self._ask is None:
            return Ticket(need)
        known = self._known.get((key.project, key.name if key.bounds else "", key.owner))
        if known is None or known.of != key.bounds:
            return None
        now = self.now()
        if now >= known.ends and (known.again is None or known.again.done()):
            known.again = asyncio.create_task(self._look_again(key, known))
        return known.take(need, prices=known.account.prices, now=now)

    async def hold(self, key: KeyEntry, need: Need) -> Ticket:
        """Hold it, asking the api for what lacks. Raises Lacking, and Refused where nobody can say."""
        if self._ask is None:
            return Ticket(need)
        account = self._accounts.setdefault(key.project, Account())
        async with account.turn:
            for _ in range(_TRIES):
                known = self._known.setdefault(_whose(key), Known(account))
                if known.of != key.bounds or not known.row.stands:
                    await self._given(key.project, account, wants=(), key=key)
                if (ticket := known.take(need, prices=account.prices, now=self.now())) is not None:
                    return ticket
                await self._fill(key, known, need=need)
        raise errors.limit_unknown()

    def spend(self, ticket: Ticket, record: AnyRecord) -> None:
        """The record is in the spool: what it came to waits to be settled, and the rest is free."""
        owed = ticket.spend(record)
        if owed is not None:
            self._owed[record.request_id] = owed

    def settled(self, records: Sequence[AnyRecord], gone: int) -> None:
        """These are in the ledger by now, and no more held; so many are ``gone`` from the spool."""
        self._before = max(0, self._before - gone)
        for record in records:
            if (owed := self._owed.pop(record.request_id, None)) is not None:
                row, tokens, micro = owed
                row.settled(tokens, micro)

    async def say(self, *, last: bool = False) -> None:
        """Say of each project what is held; what was not used since the last time, or will not be after the ``last``
        one, is given back. The most money is said first, and no call that hangs holds up the others."""
        room = asyncio.Semaphore(AT_ONCE if last else AT_ONCE // 4)
        used = {one for known in self._known.values() if known.used for one in known.row.vessels}
        for known in self._known.values():
            known.used = False

        async def one(project: str, account: Account) -> None:
            async with room, account.turn:
                await self._say_of(project, account, kept=() if last else used)

        largest_first = sorted(self._accounts.items(), key=lambda item: item[1].money, reverse=True)
        await asyncio.gather(*(one(project, account) for project, account in largest_first))
        _forget(self._known, self._accounts, long_ago=self.now() - FORGET_SECONDS)

    async def replaced(self, project: str) -> bool:
        """Let it be said that of a predecessor's holds none stands; whether it is."""
        if self._ask is None:
            return True
        account = self._accounts.setdefault(project, Account())
        async with account.turn:
            return not account.fresh or await self._state(project, account, wants=())

    # --- what is asked for ----------------------------------------------------------------------------------------

    async def _look_again(self, key: KeyEntry, known: Known) -> None:
        """Beside the requests; while nobody can say, they are as they were."""
        account = self._accounts[key.project]
        async with account.turn:
            try:
                await self._given(key.project, account, wants=(), key=key)
            except errors.Refused:
                known.ends = self.now() + 1.0

    async def _fill(self, key: KeyEntry, known: Known, *, need: Need) -> None:
        """Ask for what is missing, and somewhat more where there is plenty. Raises Lacking, Refused."""
        if self._before:
            raise errors.limit_unknown()
        account = known.account
        for ahead in (True, False):
            wants = []
            for vessel in known.row.vessels:
                vessel.void(self.now())
                amount = vessel.amount(need, account.prices)
                if not vessel.covers(amount, self.now()):
                    wants.append((vessel, max(0, vessel.wants(amount, ahead=ahead))))
            lent = await self._given(key.project, account, wants=wants, key=key)
            if not lent.words and not any(one.over for one, _ in wants):
                return
        raise Lacking(known.row, need, prices=account.prices, now=self.now())

    async def _given(
        self, project: str, account: Account, *, wants: Sequence[tuple[Vessel, int]], key: KeyEntry | None = None
    ) -> Lent:
        """Ask for so much more of each, and put what is given here; that is done also where who asks leaves meanwhile.
        Raises Refused."""
        return await account.asking.make(partial(self._asked, project, account, wants=wants, key=key))

    async def _asked(
        self, project: str, account: Account, *, wants: Sequence[tuple[Vessel, int]], key: KeyEntry | None
    ) -> Lent:
        asked: list[dict[str, Any]] = [
            {"scope": one.scope, "meter": one.meter.name, "amount": more if one.given else one.level + more}
            for one, more in wants
        ]
        if account.fresh and all(one["meter"] != MONEY for one in asked):
            # Of a predecessor's money none stands: gateways of an older release speak of that by another call alone.
            asked.append({"scope": f"project/{project}", "meter": MONEY, "amount": 0})
        if any(one["amount"] > STATED_MAX for one in asked):
            raise errors.too_much()
        for vessel, more in wants:
            if not vessel.given:  # it may stand, though its answer is never heard: then it is said again, and less
                vessel.stated = max(vessel.stated, vessel.level + more)
        whose = _whose(key) if key is not None else (project, "", "")
        asked_at = self.now()
        said = {
            "holder": self._holder,
            "after": None if self._before else account.number,
            "key": whose[1],
            "owner": whose[2],
            "anew": account.fresh,
            "wants": asked,
        }
        lent = await self._answer(project, said)
        scopes = scopes_of(project, key=whose[1], owner=whose[2]) if key is not None else ()
        vessels = account.hear(scopes, lent, wants=wants, asked_at=asked_at)
        if key is not None:
            known = self._known.setdefault(whose, Known(account))
            known.hear(vessels, ends=asked_at + LOOK_SECONDS, of=key.bounds)
        return lent

    async def _answer(self, project: str, said: Mapping[str, Any]) -> Lent:
        assert self._ask is not None
        try:
            return Lent.read(await self._ask(project, bounds=said))
        except (BessemerError, OSError) as error:
            _log.warning("bounds are not known", project=project, error=str(error))
            raise errors.limit_unknown() from error

    # --- what is said ---------------------------------------------------------------------------------------------

    async def _say_of(self, project: str, account: Account, *, kept: Collection[Vessel]) -> None:
        wants = []
        for place, vessel in list(account.vessels.items()):
            if vessel.given:
                continue
            if vessel not in kept:
                vessel.give_up()
            if vessel.level or vessel.stated:
                wants.append((vessel, 0))
            elif not vessel.active:
                del account.vessels[place]
        for start in range(0, 0 if self._before else len(wants), WANTS_MAX):
            if not await self._state(project, account, wants=wants[start : start + WANTS_MAX]):
                return

    async def _state(self, project: str, account: Account, *, wants: Sequence[tuple[Vessel, int]]) -> bool:
        """Let the api know; whether it does. Until then it keeps more than there is, or knows of a later word."""
        for _ in range(2):
            try:
                lent = await self._given(project, account, wants=wants)
            except errors.Refused:
                return False
            if lent.stands:
                return True
        return False


def _forget(of: dict[Whose, Known], accounts: dict[str, Account], *, long_ago: float) -> None:
    """Whoever has asked for nothing since then, and whose projects hold nothing."""
    for whose, known in list(of.items()):
        asks = accounts[whose[0]].turn.locked() or (known.again is not None and not known.again.done())
        if known.ends < long_ago and not asks:
            del of[whose]
    there = {project for project, _, _ in of}
    for project, account in list(accounts.items()):
        if project not in there and account.idle:
            del accounts[project]


def _whose(key: KeyEntry) -> Whose:
    """By which bounds it is judged: project, key and owner; keys that state none of their own are as one."""
    return key.project, key.name if key.bounds else "", key.owner


class Lacking(errors.Refused):
    """Some bound has no room. ``row`` has all that the request is judged by, ``prices`` are those of its money."""

    def __init__(self, row: Row, need: Need, *, prices: Prices, now: float) -> None:
        self.row, self.prices, vessels = row, prices, row.vessels
        lacking = [one for one in vessels if one.remaining < one.amount(need, prices)] or list(vessels)
        said = "; ".join(_left(one, prices) for one in lacking)
        waits = [1.0 if one.meter.way == "busy" else one.ends - now for one in lacking]
        longest = max(waits, default=1.0)
        after = max(1, int(longest) + 1) if longest != math.inf else 0
        spent = next((one for one in lacking if one.meter.way == "spent"), None)
        if spent is not None:
            words = errors.Words(f"You exceeded your current quota: {said}.", *_QUOTA, None, after)
        else:
            kind = "tokens" if any(one.unit == "tokens" for one in lacking) else "requests"
            words = errors.Words(f"Rate limit reached: {said}.", kind, "rate_limit_exceeded", None, after)
        super().__init__(429, words, lines=row.lines(now))


def _left(one: Vessel, prices: Prices) -> str:
    """``key chat: 20 of 100 tokens per minute left``."""
    kind, _, rest = (one.whose or one.scope).partition("/")
    name = rest.rpartition("/")[2] if kind in ("key", "member") else rest
    if one.unit == "micro":
        left, bound = show_price(one.remaining, prices.currency), show_price(one.bound, prices.currency)
    else:
        left, bound = str(one.remaining), str(one.bound)
    said = f"{kind} {name}: {left} of {bound} {one.meter.title} left"
    return f"{said} ({one.hint})" if one.hint else said
