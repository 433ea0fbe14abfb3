"""A line per request in the log of the process: what writes and what is refused at INFO, what only reads at DEBUG.

It names the request as the answer's ``X-Request-Id`` and the trail do, who asked, and the object by its uid. Of what
was sent it holds the path alone: no query, no header, no body, and so no secret. An asker has `REFUSED_EACH` refusals
in a window at INFO, all strangers together as many; how many more there were is said when the next window begins, so
that nobody fills the disk by asking for what they may not have. It is not the trail, which is in the store.
"""

from __future__ import annotations

import logging
from collections import Counter

import structlog

from bessemer.api.context import Identity
from bessemer.api.state import Call
from bessemer.core.clock import Clock

log = structlog.get_logger(__name__)

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
REFUSED_EACH = 200
WINDOW_SECONDS = 600.0
PATH_CHARACTERS_MAX = 512


class RequestLog:
    """Call `answered` once for each request."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._log = log.bind()  # once: it would be made for each line
        self._since = clock.monotonic()
        self._refused: Counter[str] = Counter()

    def answered(self, call: Call, method: str, *, code: int, seconds: float) -> None:
        """A request came to its end. ``method`` is WS for a socket; ``code`` is 0 where nobody was answered."""
        user = _named(call.identity)
        told = self._is_told(user or _named(call.known), method, code=code)
        if not (told or self._log.is_enabled_for(logging.DEBUG)):
            return
        tell = self._log.info if told else self._log.debug
        tell(
            "request",
            request_id=call.request_id,
            user=user,
            **({"taken_for": _named(call.known)} if call.known and not user else {}),
            verb=method,
            path=call.connection.scope["path"][:PATH_CHARACTERS_MAX],
            status=code,
            ms=round(seconds * 1e3, 1),
            object_uid=call.uid,
        )

    def _is_told(self, user: str, method: str, *, code: int) -> bool:
        if code < 400:
            return method in WRITES
        if self._clock.monotonic() - self._since >= WINDOW_SECONDS:
            self._begin()
        self._refused[user] += 1
        return self._refused[user] <= REFUSED_EACH

    def _begin(self) -> None:
        """A new window; what the last one left out is said."""
        for user, count in self._refused.items():
            if count > REFUSED_EACH:
                self._log.info("refusals left out", user=user, count=count - REFUSED_EACH)
        self._refused.clear()
        self._since = self._clock.monotonic()


def _named(who: Identity | None) -> str:
    return f"{who.kind}:{who.name}" if who else ""
