"""A group on a server whose waits are the event loop's: begun, run and committed without a thread.

Two exchanges, between which its operations run here and ask nothing. What does not come out that way goes aside, to the
writer's thread, as it stands: not begun, or with a commit that failed. One group flies at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from bessemer.store.hearing import Hearing
from bessemer.store.known import Look
from bessemer.store.runner import Group, Item, Runner, looks_of
from bessemer.store.session import Exchange, Remote


class Flight:
    """Of one session. ``aside`` takes a group for the thread, ``left`` operations that a group had no time for or that
    must run apart, ``landed`` a group that is through."""

    def __init__(
        self,
        session: Remote,
        runner: Runner,
        *,
        aside: Callable[[Group], None],
        left: Callable[[list[Item[Any]]], None],
        landed: Callable[[Group, asyncio.AbstractEventLoop], None],
    ) -> None:
        self._session = session
        self._runner = runner
        self._aside = aside
        self._left = left
        self._landed = landed
        self._waits: tuple[Exchange, Callable[[Exchange], None]] | None = None
        self._hearing: Hearing | None = None
        self._loop: asyncio.AbstractEventLoop

    def begin(self, group: Group, loop: asyncio.AbstractEventLoop) -> None:
        """Take a group of operations that were foreseen."""
        self._loop = loop
        looks = looks_of(group.items)
        try:
            exchange = self._session.opening(looks)
        except Exception:
            self._astray(group)
            return
        self._wait(exchange, lambda exchange: self._begun(group, exchange, looks=looks))

    def finish(self) -> None:
        """Wait here for what is under way: the loop will not."""
        while self._waits is not None:
            self._waits[0].wait()
            with suppress(RuntimeError):  # a loop that was closed takes on no socket, which is waited for here
                self._ready()

    def _begun(self, group: Group, exchange: Exchange, *, looks: Sequence[Look]) -> None:
        try:
            self._session.opened(exchange)
            self._left(self._runner.through(group, looks))
            ending = self._session.closing(group.rest) if group.stands else self._session.leaving()
        except Exception:  # be it a row that no database takes: its operation shall hear so, alone
            self._astray(group)
            return
        self._wait(ending, lambda exchange: self._ended(group, exchange))

    def _ended(self, group: Group, exchange: Exchange) -> None:
        if group.stands:
            try:
                if exchange.error is not None:
                    raise exchange.error
                self._session.closed(exchange)
            except Exception:
                group.closing = exchange  # which takes its time, to find out what became of it
                self._aside(group)
                return
        self._runner.ended(group)
        self._landed(group, self._loop)

    def _astray(self, group: Group) -> None:
        """Whatever went wrong, nothing of it stands: the thread begins it anew, and has words for what goes wrong."""
        group.ran = group.stands = False
        if group.items:
            self._aside(group)
        else:
            self._landed(group, self._loop)

    def _wait(self, exchange: Exchange, then: Callable[[Exchange], None]) -> None:
        self._waits = (exchange, then)
        with suppress(RuntimeError):  # the loop has ended, and `finish` is what waits
            if exchange.over:
                self._loop.call_soon(self._ready)  # it never got on its way
            else:
                self._hearing = Hearing(self._loop, exchange.socket, call=self._ready, writing=not exchange.pushed)

    def _ready(self) -> None:
        if self._waits is None:
            return  # it was finished meanwhile
        exchange, then = self._waits
        over = exchange.step()
        with suppress(RuntimeError):  # the loop has ended
            if self._hearing is not None and exchange.pushed:
                self._hearing.written()
            if self._hearing is not None and over:
                self._hearing.end()
                self._hearing = None
        if over:
            self._waits = None
            then(exchange)
