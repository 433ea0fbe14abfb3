"""An answer that was streamed, put together again: what the same request would have been answered without a stream.

Events are taken as they come, so that of a stream no more is held than what it said. What an engine says in its own
names is kept as it says it: of two texts the second follows the first, of lists too, of anything else the last word
counts. An engine runs hostile code: past a bound nothing more is taken, and what was is told to be cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

_DATA = b"data:"
_DONE = b"[DONE]"
_CHOICES_MAX, _DEPTH_MAX = 1024, 16
_ONCE = frozenset(("role", "id", "type", "name", "object", "index", "finish_reason", "stop_reason"))
"""Said whole, and maybe again."""
_WHOLE = {"chat.completion.chunk": "chat.completion"}
_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))
_LAST = tuple(kind.encode() for kind in _ENDS)
_PIECES_MAX = 128
_OVER = 4
"""Past so many times what is taken, of what was not, it is read no more: all else waits while it is."""
_ITEM_BYTES = 64
"""That a name or a place in a list counts for, whatever it holds."""
_NODE_BYTES = 128
"""That each value within another takes beside what is written of it."""


class Assembled:
    """Of one stream. ``size`` is about how many bytes of it are held; ``cut`` says that there was more than ``most``,
    or something that could not be read."""

    __slots__ = ("_body", "_choices", "_most", "_over", "_response", "_texts", "_told", "cut", "size")

    def __init__(self, most: int) -> None:
        self._most = most
        self._over = 0
        """Bytes for which there was no room."""
        self._told = False
        """Whether a response told all of itself when these were too many."""
        self._body: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._response: bytes | None = None
        self._texts: dict[tuple[int, int], _Text] = {}
        self.size = 0
        self.cut = False

    def feed(self, events: bytes) -> None:
        """Take whole events."""
        for event in events.split(b"\n\n"):
            for line in event.split(b"\n"):
                said = line[len(_DATA) :].strip() if line.startswith(_DATA) else b""
                if said and said != _DONE and (self._over <= _OVER * self._most or self._last(said)):
                    self._take(said)

    def _last(self, said: bytes) -> bool:
        """Of a stream that has told too much nothing more is read but the one event that tells all of a response."""
        if self._told or not any(kind in said for kind in _LAST):
            return False
        self._told = True
        return True

    def answer(self) -> dict[str, Any] | None:
        """What it came to; None where nothing was said."""
        if self._response is not None or self._texts:
            return self._responded()
        if not self._body and not self._choices:
            return None
        body = dict(self._body)
        if "object" in body:
            body["object"] = next((whole for part, whole in _WHOLE.items() if part == body["object"]), body["object"])
        if self._choices or "choices" in body:
            body["choices"] = [_finished(self._choices[index]) for index in sorted(self._choices)]
        return body

    def _take(self, said: bytes) -> None:
        try:
            event = orjson.loads(said)
            if not isinstance(event, dict):
                self.cut = True
            elif isinstance(event.get("type"), str) and event["type"].startswith("response."):
                self._respond(event)
            else:
                self._chunk(event)
        except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError):  # or read, and too deep to be written
            self.cut = True

    def _room(self, size: int) -> bool:
        if self.size + size > self._most:
            self.cut = True
            self._over += size
            return False
        self.size += size
        return True

    def _chunk(self, event: dict[str, Any]) -> None:
        choices = event.pop("choices", None)
        for name, value in event.items():
            self._replace(self._body, name, value=value)
        if isinstance(choices, list):
            self._body.setdefault("choices", None)
            for one in choices:
                if isinstance(one, dict):
                    self._choice(one)

    def _replace(self, into: dict[str, Any], name: str, *, value: Any) -> None:
        """The last word counts; one that says nothing takes nothing back."""
        if name not in into:
            if self._room(_ITEM_BYTES + len(name) + _weight(value)):
                into[name] = value
        elif value is not None and into[name] != value and self._room(max(0, _weight(value) - _weight(into[name]))):
            into[name] = value

    def _choice(self, said: dict[str, Any]) -> None:
        index = said.get("index", 0)
        if type(index) is not int or not 0 <= index < _CHOICES_MAX:
            self.cut = True
            return
        if index not in self._choices and not self._room(_ITEM_BYTES):
            return
        choice = self._choices.setdefault(index, {"index": index})
        for name, value in said.items():
            if name == "delta" and isinstance(value, dict):
                message = choice.setdefault("message", {})
                if isinstance(message, dict):
                    self._merge(message, value, depth=0)
                else:
                    self.cut = True
            elif name != "index":
                self._put(choice, name, value=value, depth=0)

    def _merge(self, into: dict[str, Any], said: dict[str, Any], *, depth: int) -> None:
        for name, value in said.items():
            self._put(into, name, value=value, depth=depth)

    def _put(self, into: dict[str, Any], name: str, *, value: Any, depth: int) -> None:
        """One name of an object: what follows what was said of it, or takes its place."""
        before = into.get(name)
        if depth > _DEPTH_MAX:
            self.cut = True
        elif isinstance(value, list) and (before is None or isinstance(before, list)):
            if before is None:
                self._replace(into, name, value=_Items())
            elif not isinstance(before, _Items):
                into[name] = _Items(before)
            if isinstance(items := into.get(name), _Items):
                self._append(items, value, depth=depth)
        elif isinstance(value, dict) and isinstance(before, dict):
            self._merge(before, value, depth=depth + 1)
        elif isinstance(value, str) and isinstance(before, _Text):
            if self._room(_weight(value)):
                before.add(value)
        elif isinstance(before, _Text | list | dict):
            self.cut = self.cut or value is not None
        else:
            self._replace(into, name, value=value)
            if into.get(name) is value:
                into[name] = _kept(value, name)

    def _append(self, into: _Items, said: list[Any], *, depth: int) -> None:
        """Items that say their place, as tool calls do, go on with what stands there; others follow."""
        for item in said:
            place = _place(item)
            known = into.at.get(place) if place is not None else None
            if known is not None:
                self._merge(known, item, depth=depth + 1)
            elif place is not None and self._room(_ITEM_BYTES + _weight(item)):
                into.add(_kept(item, ""))
            elif place is None and self._room(_ITEM_BYTES + len(text := orjson.dumps(item))):
                into.append(orjson.Fragment(text))

    def _respond(self, event: dict[str, Any]) -> None:
        """An event of the responses API: its last one says all; until then, texts as they come."""
        kind, response = event["type"], event.get("response")
        if isinstance(response, dict) and (kind in _ENDS or self._response is None):
            if kind in _ENDS:
                self._texts.clear()
                self._choices.clear()
                self._body.clear()
                self.size = 0
            if self._room(len(text := orjson.dumps(response))):
                self._response = text
        elif kind.endswith(".delta") and isinstance(delta := event.get("delta"), str):
            place = (_index(event.get("output_index")), _index(event.get("content_index")))
            if place not in self._texts and self._room(_ITEM_BYTES):
                self._texts[place] = _Text("")
            if place in self._texts and self._room(_weight(delta)):
                self._texts[place].add(delta)

    def _responded(self) -> dict[str, Any]:
        response: dict[str, Any] = (
            orjson.loads(self._response) if self._response is not None else {"object": "response"}
        )
        if self._texts:
            texts = [{"type": "output_text", "text": str(self._texts[at])} for at in sorted(self._texts)]
            response["output"] = [{"type": "message", "role": "assistant", "content": texts}]
            response["status"] = "incomplete"
        return response


class _Text:
    """A text that goes on, in pieces of which each would be larger alone than what it says."""

    __slots__ = ("_joined", "_pieces")

    def __init__(self, text: str) -> None:
        self._joined: list[str] = []
        self._pieces = [text]

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        if len(self._pieces) > _PIECES_MAX:
            self._joined.append("".join(self._pieces))
            self._pieces = []

    def __str__(self) -> str:
        return "".join([*self._joined, *self._pieces])


class _Items(list[Any]):
    """A list that goes on. ``at`` are those of it that say their place: however many there are, each is found at
    once."""

    __slots__ = ("at",)

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__()
        self.at: dict[int, dict[str, Any]] = {}
        for item in items:
            self.add(item)

    def add(self, item: Any) -> None:
        """One more; of two in one place the first is the one that goes on."""
        self.append(item)
        if (place := _place(item)) is not None:
            self.at.setdefault(place, item)


def _place(item: Any) -> int | None:
    place = item.get("index") if isinstance(item, dict) else None
    return place if type(place) is int else None


def _kept(value: Any, name: str) -> Any:
    """A value to which more may come."""
    if isinstance(value, str):
        return value if name in _ONCE else _Text(value)
    if isinstance(value, dict):
        return {inner: _kept(one, inner) for inner, one in value.items()}
    return value


def _finished(value: Any) -> Any:
    """As JSON has it; tool calls say no place where they are not streamed."""
    if isinstance(value, _Text):
        return str(value)
    if isinstance(value, list):
        return [_finished(one) for one in value]
    if isinstance(value, dict):
        return {
            name: [_unplaced(_finished(one)) for one in inner]
            if name == "tool_calls" and isinstance(inner, list)
            else _finished(inner)
            for name, inner in value.items()
        }
    return value


def _unplaced(call: Any) -> Any:
    return {name: value for name, value in call.items() if name != "index"} if isinstance(call, dict) else call


def _weight(value: Any) -> int:
    """About how many bytes it takes."""
    if isinstance(value, str):
        return len(value) if value.isascii() else 4 * len(value)
    if isinstance(value, dict | list):
        return len(orjson.dumps(value)) + _NODE_BYTES * _nodes(value)
    return 8


def _nodes(value: Any) -> int:
    """How many values there are in it, and in these."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return len(inner) + sum(_nodes(one) for one in inner if isinstance(one, dict | list))


def _index(said: Any) -> int:
    return said if type(said) is int and 0 <= said < _CHOICES_MAX else 0
