"""May it, now: what a request is held to by the limits and budgets of its key, member, project and tenant.

A request goes on with its worst case held of all that bounds it: its input at its bytes and a template, its output as
long as it may be. Where that is more than there is, its answers are made shorter, as far as there is room for any, and
a header says so; else it is refused with what is left. It waits for nobody where all is here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from bessemer.core.clock import Clock
from bessemer.core.money import Prices
from bessemer.gateway import errors
from bessemer.gateway.heirs import Left, keep_saying
from bessemer.gateway.lending import Lacking, Lending
from bessemer.gateway.need import TEMPLATE_TOKENS, Need, most
from bessemer.gateway.record import AnyRecord
from bessemer.gateway.request import Wanted
from bessemer.gateway.tables import EndpointEntry, KeyEntry
from bessemer.gateway.tickets import Ticket

MAX_TOKENS = b"x-bessemer-max-tokens"
"""The header that says how much each answer may be, where the gateway made it less."""

ASK_SECONDS = 10.0
"""That a request waits until it is known whether it may go on."""

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Room:
    """What there is for a request: tokens, and money at its prices; None where nothing bounds it."""

    tokens: int | None = None
    money: tuple[tuple[int, Prices], ...] = ()

    def holds(self, need: Need) -> bool:
        """Whether there is room for so much."""
        if self.tokens is not None and need.tokens > self.tokens:
            return False
        return all(need.cost(prices) <= micro for micro, prices in self.money)


class Admission:
    """Whom the gateway lets in, and what of theirs is under way."""

    def __init__(self, lending: Lending | None = None) -> None:
        self.lending = lending or Lending()

    def enter(
        self,
        key: KeyEntry,
        wanted: Wanted,
        *,
        endpoint: EndpointEntry,
        context_tokens: int = 0,
        models: tuple[str, ...] = (),
    ) -> Ticket | Awaitable[Ticket]:
        """A ticket, at once where nobody has to be asked; ``context_tokens`` are the most of whoever may answer, 0 the
        endpoint's, and ``models`` what records may say of them, none the endpoint's. Raises Refused, now or where it is
        awaited."""
        context = context_tokens or endpoint.context_tokens
        need = most(wanted, context, models=models or endpoint.answers)
        ticket = self.lending.at_once(key, need)
        return ticket if ticket is not None else self._wait(key, wanted, context=context, need=need)

    def settled(self, records: Sequence[AnyRecord], gone: int) -> None:
        """These are in the ledger by now; so many are ``gone`` from the spool."""
        self.lending.settled(records, gone)

    async def say(self, *, last: bool = False) -> None:
        """Say what is held, and give back what is not needed."""
        await self.lending.say(last=last)

    async def run(self, left: Left, *, clock: Clock) -> None:
        """Say what is held, again and again, until cancelled; beside that, see to what a predecessor ``left``."""
        await keep_saying(self.lending, left, clock=clock)

    async def _wait(self, key: KeyEntry, wanted: Wanted, *, context: int, need: Need) -> Ticket:
        """As `_asked`, for so long in all: behind an api that hangs nobody waits for those before him, too."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await self._asked(key, wanted, context=context, need=need)
        except TimeoutError as error:
            raise errors.limit_unknown() from error

    async def _asked(self, key: KeyEntry, wanted: Wanted, *, context: int, need: Need) -> Ticket:
        """Ask for what lacks; where there is less, for what there is. Raises Refused."""
        asked = need
        for _ in range(_TRIES):
            try:
                ticket = await self.lending.hold(key, need)
            except Lacking as refused:
                smaller = _smaller(_room_of(refused), wanted, context=context, below=need) if wanted.generates else None
                if smaller is None:
                    raise
                need = smaller
            else:
                return ticket if need is asked else _shortened(ticket, wanted)
        raise errors.limit_unknown()


def _room_of(refused: Lacking) -> Room:
    tokens: int | None = None
    money = []
    for vessel in refused.row.vessels:
        match vessel.unit:
            case "tokens":
                tokens = vessel.remaining if tokens is None else min(tokens, vessel.remaining)
            case "micro":
                money.append((vessel.remaining, refused.prices))
            case _ if vessel.remaining < 1:
                raise refused
    return Room(tokens, tuple(money))


def _smaller(room: Room, wanted: Wanted, *, context: int, below: Need) -> Need | None:
    """The most that its answers may write, so that there is room, and less than ``below``; None where that is
    nothing."""
    low, high = 0, max(0, math.ceil(below.writes / wanted.sequences) - 1)
    # An engine may refuse what its context cannot hold beside the prompt, of which nobody knows here how long it is.
    beside = 0 if wanted.unmeasured else context - len(wanted.body) - TEMPLATE_TOKENS
    high = min(high, beside) if beside > 0 else high
    while low < high:
        middle = (low + high + 1) // 2
        if room.holds(most(replace(wanted, writes=middle), context, models=below.models)):
            low = middle
        else:
            high = middle - 1
    found = most(replace(wanted, writes=low), context, models=below.models)
    return found if low >= 1 and room.holds(found) else None


def _shortened(ticket: Ticket, wanted: Wanted) -> Ticket:
    ticket.writes = ticket.need.writes // wanted.sequences
    ticket.lines += b"%b: %d\r\n" % (MAX_TOKENS, ticket.writes)
    return ticket


__all__ = ["MAX_TOKENS", "Admission", "Room", "Ticket"]
