"""What a request asks for: read once, bounded, and the body that goes on to the replica.

Only the outermost names of a body are looked at; what they hold stays as it came, and goes on as it came: a body is
checked to be JSON, spliced where something of ours goes in, and never written anew. An engine may read a name that is
there twice in its own way, and be asked for more than was judged here: so that is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
import orjson

from bessemer.gateway.errors import Refused, malformed, no_key

BODY_BYTES_MAX = 32 << 20
ANSWERS_MAX = 1024
"""How many sequences a request may have written: what it may amount to is a number that somebody can hold."""
TEXTS_MAX = 2048
"""How many texts it may have embedded, as OpenAI has it."""
NAMES_MAX, NAME_CHARACTERS_MAX = 256, 256
"""Outermost names of a body: all that is asked of each is done while nobody else is served."""
READ_BYTES_MAX = 64 << 10
"""Of what is read of a body: a number, a name, a few words. Of the rest nothing is made."""
SEPARATORS_MAX = 1 << 20
"""Within a list of inputs that are counted."""
_MODEL_CHARACTERS_MAX = 253

_NAME = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*', re.DOTALL)
_BEHIND = re.compile(rb"\s*([,}])")
_TOKENS = re.compile(rb"\[\s*[0-9]{1,18}\s*[,\]]")
_DIGITS_MAX = 18
_WORD_BYTES = 6
_USAGE = b',"stream_options":{"include_usage":true,"continuous_usage_stats":true}'
_TIMINGS = b',"timings_per_token":true}'
_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Route:
    """What a path of OpenAI's API means here. ``bounds`` are the names by which a client bounds what is written,
    ``heeded`` those of them that every engine heeds; ``many`` is what may hold several inputs at once."""

    streams: bool
    bounds: tuple[str, ...] = ()
    many: tuple[str, ...] = ()
    usage_if_asked: bool = True
    """Whether a stream tells its usage only where it is asked to."""
    heeded: tuple[str, ...] = ("max_tokens",)


_ANSWERS = ("n", "best_of", "n_cmpl")
_MANY = frozenset((*_ANSWERS, "prompt", "input"))
_TIERS = MappingProxyType({b'"flex"': "flex", b'"default"': "default"})
_WRITES = ("max_completion_tokens", "max_tokens", "n_predict")
ROUTES: Mapping[str, Route] = MappingProxyType(
    {
        "/v1/chat/completions": Route(
            True, _WRITES, ("prompt", "input"), heeded=("max_tokens", "max_completion_tokens")
        ),
        "/v1/completions": Route(True, _WRITES, ("prompt", "input")),
        "/v1/responses": Route(
            True, ("max_output_tokens", *_WRITES), usage_if_asked=False, heeded=("max_output_tokens",)
        ),
        "/v1/embeddings": Route(False, (), ("prompt", "input")),
    }
)


class Wanted(msgspec.Struct, gc=False):
    """A request's model and body as it goes on. ``show_usage``,
    ``show_timings``: the client itself asked for them. ``writes`` is the most that each of its ``sequences`` may write,
    None where it does not say."""

    model: str
    stream: bool
    show_usage: bool
    show_timings: bool
    body: bytes
    writes: int | None = None
    sequences: int = 1
    show_counts: bool = False
    """It asked for the usage so far in each event."""
    generates: bool = True
    """Whether its answers are written, and so may be shorter."""
    tier: str = ""
    """The class in which it would wait, as it says; "" where it says nothing of that."""
    fields: Mapping[str, msgspec.Raw] | None = None
    """The outermost names, until somebody has looked who is to answer."""
    unmeasured: bool = False
    """It may be more tokens than bytes (`unmeasured`)."""


def bearer(authorization: bytes | None) -> str:
    """The token of an Authorization header. Raises Refused."""
    if authorization is not None:
        if authorization.startswith(b"Bearer ") and (token := authorization[7:].strip()):
            return token.decode("latin-1")
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and (token := token.strip()):
            return token.decode("latin-1")
    raise no_key()


def read(raw: bytes, route: Route) -> Wanted:
    """Parse a body; unknown parameters pass through unread. Raises Refused."""
    fields = _fields(raw)
    model = _value(fields, "model")
    if not isinstance(model, str) or not model:
        raise malformed("you must provide a model parameter")
    name = model if len(model) <= _MODEL_CHARACTERS_MAX else model[:_MODEL_CHARACTERS_MAX]
    sequences = 1 if _MANY.isdisjoint(fields) else _sequences(fields, route)
    writes, heeded = _writes(fields, route)
    if writes is not None and not heeded:
        raw = _bounded(fields, writes, route=route)
    said, tier = fields.get("stream"), _tier(fields) if "service_tier" in fields else ""
    timings = "timings_per_token" in fields and bool(_value(fields, "timings_per_token"))
    if said is None or not route.streams or not _truth(fields, "stream"):
        return Wanted(name, False, False, timings, raw, writes, sequences, False, route.streams, tier, fields)
    options = _value(fields, "stream_options")
    options = options if isinstance(options, dict) else {}
    shown, counts = bool(options.get("include_usage")), bool(options.get("continuous_usage_stats"))
    onward = _asking(raw, fields, options=options, usage=route.usage_if_asked)
    shown = shown or not route.usage_if_asked
    return Wanted(name, True, shown, timings, onward, writes, sequences, counts, True, tier, fields)


def _fields(raw: bytes) -> dict[str, msgspec.Raw]:
    """The outermost names and what they hold, unread. Raises Refused."""
    try:
        fields = _DECODER.decode(raw)
        if not raw.isascii():
            raw.decode()
    except msgspec.ValidationError as error:
        raise malformed("The body of your request must be a JSON object.") from error
    except RecursionError as error:
        raise malformed("The body of your request is nested too deep.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed("We could not parse the JSON body of your request.") from error
    if len(fields) > NAMES_MAX:
        raise malformed(f"The body of your request has more than {NAMES_MAX} names.")
    # Each name quoted, a colon, a comma or a brace: no shorter text says it, so one of that length says nothing twice.
    least = 4 * len(fields) + 1 + sum(map(len, fields)) + sum(map(len, fields.values()))
    if least > NAME_CHARACTERS_MAX and max(map(len, fields)) > NAME_CHARACTERS_MAX:
        raise malformed(f"The body of your request has a name of more than {NAME_CHARACTERS_MAX} characters.")
    if len(raw) != least:
        _check_once(raw, fields)
    return fields


def _check_once(raw: bytes, fields: Mapping[str, msgspec.Raw]) -> None:
    """Raises Refused where a name is there twice: of each name the decoder kept the last value, and whatever lies where
    that is expected is another one."""
    at, seen = raw.index(b"{") + 1, set[str]()
    for _ in range(len(fields)):
        found = _NAME.match(raw, at)
        assert found is not None, "the decoder has read it"
        name: str = orjson.loads(found[1])
        value = bytes(fields[name])
        at = found.end() + len(value)
        after = _BEHIND.match(raw, at)
        if name in seen or raw[found.end() : at] != value or after is None:
            raise malformed(f"The body of your request says `{name[:100]}` twice.", name[:100])
        seen.add(name)
        at = after.end()
    if raw[at - 1 : at] == b",":
        raise malformed("The body of your request says something twice.")


def _asking(raw: bytes, fields: dict[str, msgspec.Raw], *, options: Mapping[str, Any], usage: bool) -> bytes:
    """The body with what we ask of each stream: counts in each event and at its end."""
    if not fields.keys() & {"stream_options", "timings_per_token"}:
        return b"".join((raw.rstrip()[:-1], _USAGE if usage else b"", _TIMINGS))
    ours: dict[str, bytes] = {"timings_per_token": b"true"}
    if usage:
        ours["stream_options"] = orjson.dumps({**options, "include_usage": True, "continuous_usage_stats": True})
    parts = [orjson.dumps(k) + b":" + (ours.pop(k) if k in ours else bytes(v)) for k, v in fields.items()]
    parts += [orjson.dumps(k) + b":" + v for k, v in ours.items()]
    return b"{" + b",".join(parts) + b"}"


def _value(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    """What a name holds; None where it is not there. Raises Refused."""
    said = fields.get(name)
    if said is not None and len(said) > READ_BYTES_MAX:
        raise malformed(f"`{name}` holds more than {READ_BYTES_MAX} bytes.", name)
    return None if said is None else _read(said)


def _read(said: msgspec.Raw) -> Any:
    try:
        return orjson.loads(memoryview(said))
    except orjson.JSONDecodeError as error:
        raise malformed("We could not parse the JSON body of your request.") from error


def _tier(fields: Mapping[str, msgspec.Raw]) -> str:
    """What OpenAI calls flex waits behind the others; more than its key's is not a client's to choose (`seeking`)."""
    return _TIERS.get(bytes(fields["service_tier"]), "")


def _truth(fields: Mapping[str, msgspec.Raw], name: str) -> bool:
    said = bytes(fields[name]) if len(fields[name]) < _WORD_BYTES else b""
    return said == b"true" or (said not in (b"false", b"null") and bool(_value(fields, name)))


def _writes(fields: Mapping[str, msgspec.Raw], route: Route) -> tuple[int | None, bool]:
    """What of an answer the client bounds itself, None where it does not; and whether, where it does, each engine reads
    a bound in that, and none that is larger than was read here. One heeds names that another has never heard of, or
    takes what is no whole number for one, or for none at all. Embeddings write nothing."""
    if not route.streams:
        return 0, True
    most, heeded, odd = None, False, False
    for name in route.bounds:
        if name not in fields:
            continue
        said = bytes(fields[name])
        if said.isdigit() and len(said) <= _DIGITS_MAX:
            number = int(said)
            most = number if most is None or number > most else most
            heeded = heeded or name in route.heeded
        else:
            odd = odd or said != b"null"
    return most, heeded and not odd


def _whole(said: bytes) -> bool:
    return said.isdigit() and len(said) <= _DIGITS_MAX


def _bounded(fields: dict[str, msgspec.Raw], writes: int, *, route: Route) -> bytes:
    """The body with its bound said once, by a name that every engine heeds."""
    said = [name for name in route.bounds if name in fields]
    name = next((name for name in said if name in route.heeded and _whole(bytes(fields[name]))), route.heeded[0])
    for other in said:
        del fields[other]
    fields[name] = msgspec.Raw(b"%d" % writes)
    return b"{" + b",".join(orjson.dumps(k) + b":" + bytes(v) for k, v in fields.items()) + b"}"


def _sequences(fields: Mapping[str, msgspec.Raw], route: Route) -> int:
    """How many answers to how many inputs; what is no number is the engine's to refuse. Raises Refused."""
    name, inputs = "", 1
    for said_name in route.many:
        said = fields.get(said_name)
        if said is not None and memoryview(said)[:1].tobytes() == b"[" and (found := _inputs(said, said_name)) > inputs:
            name, inputs = said_name, found  # which of two an engine reads is its own affair
    each: float = 1
    for said_name in _ANSWERS:
        if said_name not in fields:
            continue
        number = _value(fields, said_name)
        if isinstance(number, str):  # which some engines take for a number
            raise malformed(f"`{said_name}` must be a number.", said_name)
        if type(number) in (int, float):
            each = max(each, number)  # an engine takes 5.0 for five
    most = ANSWERS_MAX if route.streams else TEXTS_MAX
    if inputs * each > most:
        raise malformed(
            f"A request may ask for at most {most} answers: its inputs times `n`.", "n" if each > 1 else name
        )
    return inputs * math.ceil(each)


def _inputs(said: msgspec.Raw, name: str) -> int:
    """Of a list: how many texts, or lists of tokens; a list of tokens itself is one. Raises Refused."""
    if _TOKENS.match(said):
        return 1  # however many: nobody counts them
    if len(said) > SEPARATORS_MAX and bytes(said).count(b",") > SEPARATORS_MAX:
        raise malformed(f"`{name}` holds more than {SEPARATORS_MAX} values.", name)
    return len(msgspec.json.decode(said, type=list[msgspec.Raw])) or 1


def shortened(body: bytes, writes: int, *, route: Route) -> bytes:
    """A body that was read, asking for answers of at most so many tokens by every name that it says it by, and by one
    that every engine heeds."""
    fields = _DECODER.decode(body)
    names = [name for name in route.bounds if name in fields]
    if not any(name in route.heeded for name in names):
        names.append(route.heeded[0])
    parts = [orjson.dumps(k) + b":" + bytes(v) for k, v in fields.items() if k not in names]
    parts += [orjson.dumps(name) + b":%d" % writes for name in names]
    return b"{" + b",".join(parts) + b"}"


__all__ = ["BODY_BYTES_MAX", "ROUTES", "Refused", "Route", "Wanted", "bearer", "read", "shortened"]
