"""Whether the api is heard, asked every few seconds: over a wire that is cut, a watch is as quiet as one on which
nothing happens, and usage that was sent waits for an answer.

What is asked needs no database and no turn, so that an api which waits for its own is not taken for one that is cut
off. Who is neither answered for longer than a beat lasts, nor told anything more of what was under way, gives up all
connections: what works over them dials anew, and goes on where it was. One ask waits so long, and not several in a row:
the next would be answered over a connection of its own, and say nothing of those that a middle has forgotten. An api
that stays silent is given up less and less often, and not by all gateways at once: each dial is a handshake more, which
helps no slow one.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.core.resource import Key
from bessemer.loop.queue import Backoff

EVERY_SECONDS = 5.0
ANSWER_SECONDS = 8.0
"""Less than a connection may take to stand: whoever dials into a cut wire is not heard either."""

AGAIN_SECONDS, AGAIN_SECONDS_MAX = 20.0, 300.0
"""After connections were given up, until they may be again, where nothing was answered meanwhile."""

_API = Key("Api", "", "")

_log = structlog.get_logger("gateway.pulse")


class Pulse:
    """``ask`` is answered by an api that is heard, with an error too; ``hang_up`` ends all connections; ``listen`` says
    later whether anything came since over what is under way now."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[object]],
        hang_up: Callable[[], Awaitable[None]],
        *,
        listen: Callable[[], Callable[[], bool]],
        clock: Clock,
    ) -> None:
        self._ask = ask
        self._hang_up = hang_up
        self._listen = listen
        self._clock = clock
        self._backoff = Backoff(AGAIN_SECONDS, AGAIN_SECONDS_MAX, random.random)
        self._not_before = -math.inf

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            await self.beat()

    async def beat(self) -> None:
        """Ask once."""
        heard = self._listen()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._ask()
        except TimeoutError:
            await self._unanswered(heard())
        except BessemerError as error:
            _log.info("the api is in trouble", error=str(error))
        else:
            self._backoff.reset(_API)
            self._not_before = -math.inf

    async def _unanswered(self, heard: bool) -> None:
        now = self._clock.monotonic()
        if heard:
            _log.info("the api is slow")
        elif now < self._not_before:
            _log.info("the api is still not heard")
        else:
            self._not_before = now + self._backoff.next(_API)
            _log.warning("the api is not heard: all connections are made anew")
            await self._hang_up()
