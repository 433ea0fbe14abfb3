"""The reading connections: one for single statements, one for each longer read, some that are idle between two.

Of a file, a statement runs in the event loop; where each waits for a network, in threads (`apart`). A connection has
one user at a time. It knows no statement but the counter's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bessemer.core.errors import Expired, Unavailable
from bessemer.store.apart import Turn
from bessemer.store.session import ReadSession, Statement
from bessemer.store.transaction import read_counter

SLICE = 200
"""Rows that are read before others have a turn."""


@dataclass(slots=True)
class View:
    """A reading transaction that stays open, and what it looks at."""

    session: ReadSession
    revision: int
    turn: Turn

    async def rows(self, statement: Statement, **values: Any) -> list[Any]:
        """Every row, with a turn for others between `SLICE` of them."""
        return [row async for rows in self.slices(statement, values) for row in rows]

    async def slices(self, statement: Statement, values: Mapping[str, Any]) -> AsyncGenerator[list[Any], None]:
        """The rows, `SLICE` at a time; to be closed by whoever stops before the end."""
        stream = await self.turn.do(lambda: self.session.stream(statement, values))
        while rows := await self.turn.do(lambda: stream.fetchmany(SLICE)):
            yield rows
            if len(rows) < SLICE:
                return
            await asyncio.sleep(0)


class Pool:
    """``connect`` makes another connection, and a lean one of many."""

    def __init__(self, connect: Callable[[bool], ReadSession], *, turn: Turn) -> None:
        self._connect = connect
        self.turn = turn
        self.session = connect(False)
        """The one for single statements in the event loop."""
        self.idle: list[ReadSession] = [self.session] if turn.remote else []
        self._closed = False

    async def ask(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        """Every row of a short read."""
        if self.turn.remote:
            return await self.turn.do(lambda: self._briefly(statement, values))
        return self.session.execute(statement, values).fetchall()

    async def open(self, snapshot: str = "") -> View:
        """Look at one revision from now on, until `end`: that of now, or of a ``snapshot`` that another connection
        holds, of whichever process. Raises Expired where none does."""
        return await self.turn.do(lambda: self._open(snapshot), undo=lambda view: self._leave(view.session))

    def end(self, view: View) -> None:
        """Have the connection back, in its time."""
        self.turn.later(lambda: self._leave(view.session))

    def close(self, held: Iterable[ReadSession]) -> None:
        """Close every connection; ``held`` are those of views that have not ended. Whoever reads meanwhile is told
        Unavailable, and what they give back is closed."""
        self._closed = True
        self.turn.close()
        for session in (*held, *self.idle, self.session):
            session.close()
        self.idle = []

    # --- wherever reads run -------------------------------------------------------------------------------------

    def _briefly(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        """On whichever connection is idle. One that broke while it was idle says nothing of the next."""
        while True:
            session, fresh = self._take()
            try:
                return session.execute(statement, values).fetchall()
            except Unavailable:
                if fresh or session.sound:
                    raise
            finally:
                self._give(session)

    def _open(self, snapshot: str) -> View:
        while True:
            session, fresh = self._take()
            try:
                session.look(snapshot)
                return View(session, read_counter(session, "revision"), self.turn)
            except Expired:
                self._give(session)
                raise
            except Unavailable:
                again = not (fresh or session.sound)
                session.close()
                if not again:
                    raise
            except BaseException:
                session.close()
                raise

    def _leave(self, session: ReadSession) -> None:
        session.leave()
        self._give(session)

    def _take(self) -> tuple[ReadSession, bool]:
        """A connection, and whether it has just been made. Raises Unavailable."""
        if self._closed:
            raise Unavailable("the store is closed")
        try:
            return self.idle.pop(), False
        except IndexError:
            return self._connect(True), True

    def _give(self, session: ReadSession) -> None:
        if session.sound and not self._closed and len(self.idle) < self.turn.idle:
            self.idle.append(session)
        else:
            session.close()
