"""Addresses in the body of a request: of images, of sound, of whatever else an engine would fetch for whoever asks,
from inside the platform. Pure.

An address is what stands under a name that ends in ``_url`` or ``_uri`` (``image_url``, ``video_url``, ``server_url``
of a tool), under ``url`` within such a part, and is not written as ``data:``; and any other string of a part that is
no text and begins as an address does. Text may hold addresses: nobody fetches those. A body in which none can be is
searched for a few marks, and not parsed. One that has such names goes on as it was read here, so that a name which is
there twice is the same to every reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from bessemer.gateway.errors import Refused, Words, malformed

DATA_LENGTH_MAX = 12 << 20
"""Characters of what is attached as ``data:``: 8 MiB and what base64 adds."""
SEPARATORS_MAX = 1 << 20
NODES_MAX = 20_000
"""Lists and objects that are looked through, while nobody else is served."""

_PLAIN = frozenset(("model", "metadata", "response_format", "text", "include", "stop", "user"))
"""Outermost names under which nothing is fetched."""
_SKIPPED = frozenset(("annotations", "arguments", "json_schema", "logprobs", "parameters", "schema"))
"""Names under which a conversation tells of addresses, and nobody fetches them."""
_TEXTS = frozenset(
    ("filename", "id", "name", "reasoning", "refusal", "text", "thinking", "title", "transcript", "type")
)
_PARTS = frozenset(("content", "output"))
_MEDIA = frozenset(
    f"{before}{name}{after}"
    for name in ("audio", "file", "image", "video")
    for before, after in (("", ""), ("input_", ""), ("", "s"), ("", "_data"))
) | {"multimodal_data"}
_FETCHED = ("image_url", "audio_url")

_ADDRESS = re.compile(r"[\s\x00-\x20\u200b\ufeff]*[A-Za-z][A-Za-z0-9+.-]*:[/\\]")
_ENDS, _BEGINS = re.compile(rb'ur[li]"'), re.compile(rb":(?:/|\\[/\\])")
"""How names of addresses end, and addresses begin: patterns that start with letters are found sooner than words are."""
_ESCAPED, _LETTER = re.compile(rb"\\u00[0-7]"), re.compile(rb"\\u00[5-7]")
"""What of ASCII is written as an escape: anything, and what names have."""
_BETWEEN = dict.fromkeys(map(ord, "\t\r\n"))
"""What readers of addresses leave out of them."""

_TEXT, _PART, _WITHIN, _STRICT = range(4)
"""Where a value stands: where nothing is fetched; in a part of a message; in what it attaches; as its very address."""

_Path = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Attached:
    """An address: ``holder[at]`` is where it stands. ``part`` names it as OpenAI does, ``fetched`` says that an image
    or a sound may come from there."""

    part: str
    url: str
    holder: Any
    at: Any
    fetched: bool

    def put(self, data: str) -> None:
        """Let what was fetched stand in its place."""
        self.holder[self.at] = data


@dataclass(slots=True)
class Seen:
    """What was found, and the fields in which it was, read: those that have to go on as they were read."""

    attached: list[Attached] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)

    def written(self) -> dict[str, bytes]:
        """The fields as JSON."""
        return {name: orjson.dumps(value) for name, value in self.fields.items()}


def marked(raw: bytes) -> bool:
    """Whether there may be an address in it, however it is spelled."""
    return bool(_ENDS.search(raw) or _BEGINS.search(raw) or (b"\\" in raw and _ESCAPED.search(raw)))


def look(fields: Mapping[str, msgspec.Raw]) -> Seen:
    """All addresses of a body that is `marked`, by its outermost fields. Raises Refused."""
    seen = Seen()
    for name, value in fields.items():
        raw = bytes(value)
        if name in _PLAIN or not (marked(raw) or _strict(name, _TEXT)):
            continue
        if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > SEPARATORS_MAX:
            raise _too_many(name)
        try:
            outer = {name: orjson.loads(raw)}
        except orjson.JSONDecodeError as error:
            raise malformed("We could not parse the JSON body of your request.", name) from error
        seen.attached += _walk(outer)
        if _named(raw):
            seen.fields[name] = outer[name]
        for one in seen.attached:
            if one.holder is outer:
                raise refused(one, "nothing is fetched for your request")
    return seen


def refused(one: Attached, why: str) -> Refused:
    """The error of a part; ``why`` says nothing of where it stands."""
    code = "invalid_image_url" if one.fetched and one.part.endswith("image_url") else "invalid_value"
    text = f"`{one.part[:200]}` is an address, and {why}. Send what it is of as a `data:` URL."
    return Refused(400, Words(text, "invalid_request_error", code, one.part[:200]))


def _named(raw: bytes) -> bool:
    return bool(_ENDS.search(raw) or (b"\\" in raw and _LETTER.search(raw)))


def _strict(name: str, where: int) -> bool:
    return name.endswith(("_url", "_uri")) or (where != _TEXT and name in ("url", "uri"))


@dataclass(frozen=True, slots=True)
class _Node:
    """A list or an object, and where it stands. ``path`` are the nodes' places above it, ``media`` the outermost name
    of what is attached."""

    holder: Any
    where: int
    path: _Path = ()
    media: str = ""

    def items(self) -> Iterable[tuple[Any, Any]]:
        return self.holder.items() if type(self.holder) is dict else enumerate(self.holder)

    def strings(self) -> Iterator[Attached]:
        """The addresses that stand in it."""
        for at, value in self.items():
            if type(value) is str and (belongs := _judged(value, at, where=self.where)) is not None:
                named = at if type(at) is str and at.endswith("_url") else self.media
                yield Attached(self._told(at), value, self.holder, at, belongs and named in _FETCHED)

    def inner(self) -> Iterator[_Node]:
        """What it holds, the last first."""
        for at, value in reversed(list(self.items())):
            if type(value) in (dict, list) and at not in _SKIPPED:
                media = self.media
                if not media and type(at) is str and (at in _MEDIA or _strict(at, _TEXT)):
                    media = at
                yield _Node(value, _below(at, self.where), (self.path, at), media)

    def _told(self, at: Any) -> str:
        """A part in OpenAI's words, as far as the name of what it attaches."""
        path, steps = self.path, [at]
        while path:
            path, step = path
            steps.append(step)
        steps.reverse()
        if self.media:
            steps = steps[: steps.index(self.media) + 1]
        return "".join(f"[{step}]" if type(step) is int else f".{step[:64]}" for step in steps)[1:]


def _walk(outer: dict[str, Any]) -> Iterator[Attached]:
    """Of one field. Raises Refused."""
    waiting = [_Node(outer, _TEXT)]
    for _ in range(NODES_MAX):
        if not waiting:
            return
        node = waiting.pop()
        yield from node.strings()
        waiting += node.inner()
    raise _too_many(next(iter(outer)))


def _below(at: Any, where: int) -> int:
    """Where that stands which a list or an object there holds."""
    if type(at) is int:
        return where
    if _strict(at, where):
        return _STRICT
    if at in _MEDIA:
        return _WITHIN
    if at in _PARTS:
        return _PART
    return _TEXT if where == _TEXT else _WITHIN


def _judged(value: str, at: Any, *, where: int) -> bool | None:
    """None where it is no address; whether it stands where one belongs. Raises Refused for what is too long."""
    if type(at) is int:
        belongs, text = where == _STRICT, where in (_TEXT, _PART)
    else:
        belongs, text = _strict(at, where), at in _TEXTS or (where == _TEXT and at not in _MEDIA)
    if not value or (text and not belongs):
        return None
    if value.startswith("data:"):
        if len(value) > DATA_LENGTH_MAX:
            raise malformed(f"What is attached as `data:` may have at most {DATA_LENGTH_MAX} characters.", str(at))
        return None
    return belongs if belongs or _ADDRESS.match(value[:256].translate(_BETWEEN)) else None


def _too_many(name: str) -> Refused:
    text = f"`{name[:100]}` has addresses, or what may be some, among more values than are looked through for them."
    return malformed(text, name[:100])


__all__ = ["Attached", "Seen", "look", "marked", "refused"]
