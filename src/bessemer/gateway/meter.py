"""Reads counts out of answers as they pass, without holding them back. Pure.

An answer's ``usage`` counts are the engine's own. llama.cpp adds ``timings`` with ``prompt_n`` and ``cache_n`` (cached
prompt tokens, which its prompt counter leaves out) and, asked by ``timings_per_token``, puts them into each event, so
that a stream which is cut short is known up to its last event.

An engine runs hostile code: a count that is no count is not taken, and an event that does not end is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bessemer.core.values import TOKENS_MAX
from bessemer.gateway.upstream import Lost

EVENT_BYTES_MAX = 1 << 20
_DATA = b"data:"
_DONE = b"[DONE]"


@dataclass(slots=True)
class Counts:
    """Tokens of one answer. ``input_tokens`` includes the cached ones."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0

    def take(self, body: Mapping[str, Any]) -> None:
        """Take what an answer or event says; later words replace earlier ones."""
        timings = body.get("timings")
        if isinstance(timings, dict):
            cached = _count(timings.get("cache_n"), 0)
            self.cached_input_tokens = cached
            self.input_tokens = min(_count(timings.get("prompt_n"), 0) + cached, TOKENS_MAX)
            self.output_tokens = _count(timings.get("predicted_n"), 0)
        usage = body.get("usage")
        if isinstance(usage, dict):
            self.input_tokens = _count(usage.get("prompt_tokens"), self.input_tokens)
            self.output_tokens = _count(usage.get("completion_tokens"), self.output_tokens)
            details = usage.get("prompt_tokens_details")
            if isinstance(details, dict):
                self.cached_input_tokens = _count(details.get("cached_tokens"), self.cached_input_tokens)
        self.cached_input_tokens = min(self.cached_input_tokens, self.input_tokens)


def _count(said: Any, otherwise: int) -> int:
    """What an engine said, if that can be a number of tokens."""
    return said if type(said) is int and 0 <= said <= TOKENS_MAX else otherwise


class EventStream:
    """Server-sent events of one answer. `feed` gives the bytes to send on: whole events, as they are complete.

    Our own additions are taken out again: ``timings``, and the last event with ``usage``, unless the client asked.
    """

    def __init__(self, *, show_usage: bool, show_timings: bool) -> None:
        self._show_usage = show_usage
        self._show_timings = show_timings
        self._rest = b""
        self.counts = Counts()
        self.finished = False

    def feed(self, part: bytes) -> Iterator[bytes]:
        """Take a part of the body; whole events, changed only where something of ours must go. Raises Lost for an event
        of more than `EVENT_BYTES_MAX`."""
        data = self._rest + part
        events = data.split(b"\n\n")
        self._rest = events.pop()
        if len(self._rest) > EVENT_BYTES_MAX:
            raise Lost("an event of the answer does not end")
        for event in events:
            shown = self._event(event)
            if shown:
                yield shown + b"\n\n"

    def _event(self, event: bytes) -> bytes:
        payload = event.removeprefix(_DATA).strip()
        if payload == _DONE:
            self.finished = True
            return event
        if not event.startswith(_DATA) or (b'"timings"' not in payload and b'"usage"' not in payload):
            return event
        try:
            body = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return event
        if not isinstance(body, dict):
            return event
        self.counts.take(body)
        return self._shown(event, body)

    def _shown(self, event: bytes, body: dict[str, Any]) -> bytes:
        if not self._show_usage and body.get("usage") is not None and not body.get("choices"):
            return b""
        changed = not self._show_timings and body.pop("timings", None) is not None
        try:
            return b"data: " + orjson.dumps(body) if changed else event
        except orjson.JSONEncodeError:  # read, but nested too deep to be written
            return event
