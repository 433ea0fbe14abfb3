"""Waiting on a socket in the event loop.

Of a socket that has an error uvloop tells once and then no more, whatever is left to be read of it: libuv ends its poll
there. Whoever took up only a part at that one time would wait for ever, so a socket is looked at now and then, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOK_SECONDS = 0.2


class Hearing:
    """``call`` is called whenever the descriptor can be read, and now and then, and with ``writing`` also where it can
    be written, until `written`. It has one caller at a time, and is over with `end`. Raises RuntimeError where the loop
    has ended."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, file: int, *, call: Callable[[], object], writing: bool
    ) -> None:
        self._loop = loop
        self._file = file
        self._call = call
        self._writing = writing
        self._timer = loop.call_later(LOOK_SECONDS, self._look)
        loop.add_reader(file, call)
        if writing:
            loop.add_writer(file, call)

    def written(self) -> None:
        """There is nothing more to write."""
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._file)

    def end(self) -> None:
        """Harmless when repeated, as long as nobody else waits on the descriptor."""
        self._timer.cancel()
        self.written()
        self._loop.remove_reader(self._file)

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)
        self._call()
