"""Reads counts out of answers as they pass, without holding them back. Pure.

An answer's ``usage`` counts are the engine's own. llama.cpp adds ``timings`` with ``prompt_n`` and ``cache_n`` (cached
prompt tokens, which its prompt counter leaves out) and, asked by ``timings_per_token``, puts them into each event, so
that a stream which is cut short is known up to its last event. The responses API calls its counts by other names, and
tells them within its last event.

An event is looked at as bytes first: most hold nothing of ours, and llama.cpp's timings, which stand at an event's end,
are cut off without the rest being parsed. A quote within a JSON string is escaped, so that what looks like a name
between quotes is one.

An engine runs hostile code: a count that is no count is not taken, and an event that does not end is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from bessemer.core.values import TOKENS_MAX
from bessemer.gateway.upstream import Endless

EVENT_BYTES_MAX = 1 << 20
_DATA = b"data:"
_TIMINGS = b',"timings":'


class _Timings(msgspec.Struct, gc=False):
    """Of llama.cpp; what is no count there is left to `Counts.take`, which refuses it."""

    cache_n: int = 0
    prompt_n: int = 0
    predicted_n: int = 0


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int = -1


class _Usage(msgspec.Struct, gc=False):
    """As chat and completions say it; -1 where they do not."""

    prompt_tokens: int = -1
    completion_tokens: int = -1
    prompt_tokens_details: _Cached | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: _Usage | None = None


_READ = msgspec.json.Decoder(_Timings)
_ANSWER = msgspec.json.Decoder(_Answer)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_COUNTED = ("timings", "usage")


class Counts(msgspec.Struct, gc=False):
    """Tokens of one answer. ``input_tokens`` includes the cached ones."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0

    def take(self, body: Mapping[str, Any]) -> None:
        """Take what an answer or event says; later words replace earlier ones."""
        timings = body.get("timings")
        if isinstance(timings, dict):
            self.time(
                _count(timings.get("cache_n"), 0),
                _count(timings.get("prompt_n"), 0),
                written=_count(timings.get("predicted_n"), 0),
            )
        usage = body.get("usage")
        if usage is None and isinstance(response := body.get("response"), dict):
            usage = response.get("usage")
        if isinstance(usage, dict):
            chat = "prompt_tokens" in usage or "completion_tokens" in usage
            read, written, more = _CHAT if chat else _RESPONSES
            self.input_tokens = _count(usage.get(read), self.input_tokens)
            self.output_tokens = _count(usage.get(written), self.output_tokens)
            details = usage.get(more)
            if isinstance(details, dict):
                self.cached_input_tokens = _count(details.get("cached_tokens"), self.cached_input_tokens)
        self.cached_input_tokens = min(self.cached_input_tokens, self.input_tokens)

    def time(self, cached: int, read: int, *, written: int) -> None:
        """Take what llama.cpp's timings say."""
        self.cached_input_tokens = cached
        self.input_tokens = min(read + cached, TOKENS_MAX)
        self.output_tokens = written


_CHAT = ("prompt_tokens", "completion_tokens", "prompt_tokens_details")
_RESPONSES = ("input_tokens", "output_tokens", "input_tokens_details")


def _count(said: Any, otherwise: int) -> int:
    """What an engine said, if that can be a number of tokens."""
    return said if type(said) is int and 0 <= said <= TOKENS_MAX else otherwise


def metered(body: bytes, counts: Counts, *, show_timings: bool) -> bytes:
    """Take the counts of a whole answer; the body as it goes on, without timings that nobody asked for. Raises
    orjson.JSONDecodeError, msgspec.MsgspecError and RecursionError for what is no answer."""
    at = body.find(_TIMINGS)
    if at < 0 and b'"timings"' not in body:
        return body if _counted(body, counts) else _taken(body, counts, show_timings=show_timings)
    end = body.find(b"}", at)
    if at >= 0 and body[end : end + 2] == b"}}" and not body[end + 2 :].strip():
        without = body[:at] + b"}"
        if (timings := _timings(body, at + len(_TIMINGS), end=end + 1)) is not None:
            counts.time(timings.cache_n, timings.prompt_n, written=timings.predicted_n)
            if _counted(without, counts):
                return body if show_timings else without
    return _taken(body, counts, show_timings=show_timings)


def _counted(body: bytes, counts: Counts) -> bool:
    """Take the usage of an answer without timings, where it says it as most do; whether it does."""
    try:
        usage = _ANSWER.decode(body).usage
    except msgspec.ValidationError:
        return False
    if usage is None:
        return False
    read, written, cached = usage.prompt_tokens, usage.completion_tokens, counts.cached_input_tokens
    if usage.prompt_tokens_details is not None:
        cached = usage.prompt_tokens_details.cached_tokens
    if not (0 <= read <= TOKENS_MAX and 0 <= written <= TOKENS_MAX and 0 <= cached <= read):
        return False
    counts.input_tokens, counts.cached_input_tokens, counts.output_tokens = read, cached, written
    return True


def _taken(body: bytes, counts: Counts, *, show_timings: bool) -> bytes:
    """The same of any answer, whatever it says where."""
    fields = _FIELDS.decode(body)
    said: dict[str, Any] = {name: orjson.loads(bytes(fields[name])) for name in _COUNTED if name in fields}
    counts.take(said)
    if said.get("timings") is None or show_timings:
        return body
    parts = [orjson.dumps(name) + b":" + bytes(value) for name, value in fields.items() if name != "timings"]
    return b"{" + b",".join(parts) + b"}"


def _timings(text: bytes, start: int, *, end: int) -> _Timings | None:
    """What llama.cpp says there; None where it is no such thing."""
    try:
        timings = _READ.decode(memoryview(text)[start:end])
    except msgspec.MsgspecError:
        return None
    cached, read, written = timings.cache_n, timings.prompt_n, timings.predicted_n
    if not (0 <= cached <= TOKENS_MAX and 0 <= read <= TOKENS_MAX and 0 <= written <= TOKENS_MAX):
        return None
    return timings


def _goes_on(choices: Any) -> bool:
    """Whether an event is no answer's last."""
    if not isinstance(choices, list):
        return False
    return any(isinstance(one, dict) and one.get("finish_reason") is None for one in choices)


class EventStream:
    """Server-sent events of one answer. `feed` gives the bytes to send on: whole events, as they are complete.

    Our own additions are taken out again: ``timings``, the usage so far, and the last event with ``usage``, unless the
    client asked.
    """

    __slots__ = ("_rest", "_show_counts", "_show_timings", "_show_usage", "counts")

    def __init__(self, *, show_usage: bool, show_timings: bool, show_counts: bool = True) -> None:
        self._show_usage = show_usage
        self._show_timings = show_timings
        self._show_counts = show_counts
        self._rest = b""
        self.counts = Counts()

    def feed(self, part: bytes) -> bytes:
        """Take a part of the body; whole events, changed only where something of ours must go. Raises Endless for an
        event of more than `EVENT_BYTES_MAX`."""
        data = self._rest + part if self._rest else part
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            self._keep(data)
            return b""
        if end == len(data):
            self._rest = b""
        else:
            self._keep(data[end:])
            data = data[:end]
        if data.find(b"\n\n") + 2 == end:
            return self._event(data)
        return b"".join([self._event(event + b"\n\n") for event in data[:-2].split(b"\n\n")])

    def _keep(self, rest: bytes) -> None:
        self._rest = rest
        if len(rest) > EVENT_BYTES_MAX:
            raise Endless("an event of the answer does not end")

    def _event(self, event: bytes) -> bytes:
        """An event with the empty line that ends it, as it goes on; nothing where it does not."""
        at = event.find(_TIMINGS)
        if at >= 0 and (cut := self._cut(event, at)):
            return cut
        if at < 0 and b'"usage"' not in event and b'"timings"' not in event:
            return event
        return self._parsed(event)

    def _cut(self, event: bytes, at: int) -> bytes:
        """Without the timings at its end, which were taken; nothing where it has to be parsed: they stand elsewhere, or
        there are counts beside them."""
        end = event.find(b"}", at)
        if event[end : end + 2] != b"}}" or event[end + 2 :].strip() or event.find(b'"usage"', 0, at) >= 0:
            return b""
        timings = _timings(event, at + len(_TIMINGS), end=end + 1)
        if timings is None:
            return b""
        self.counts.time(timings.cache_n, timings.prompt_n, written=timings.predicted_n)
        return event if self._show_timings else event[:at] + b"}\n\n"

    def _parsed(self, event: bytes) -> bytes:
        start = 0 if event.startswith(_DATA) else event.find(b"\ndata:") + 1
        if not start and not event.startswith(_DATA):
            return event
        before, payload = event[:start], event[start + len(_DATA) :]
        try:
            body = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return event
        if not isinstance(body, dict):
            return event
        self.counts.take(body)
        return self._shown(event, before, body=body)

    def _shown(self, event: bytes, before: bytes, *, body: dict[str, Any]) -> bytes:
        if not self._show_usage and body.get("usage") is not None and not body.get("choices"):
            return b""
        changed = not self._show_timings and "timings" in body
        if changed:
            del body["timings"]
        if not self._show_counts and body.get("usage") is not None and _goes_on(body.get("choices")):
            del body["usage"]
            changed = True
        try:
            return before + b"data: " + orjson.dumps(body) + b"\n\n" if changed else event
        except orjson.JSONEncodeError:  # read, but nested too deep to be written
            return event
