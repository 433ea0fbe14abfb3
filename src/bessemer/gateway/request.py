"""What a request asks for: read once, bounded, and the body that goes on to the replica."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bessemer.gateway.errors import Refused, malformed, no_key

BODY_BYTES_MAX = 32 << 20
ANSWERS_MAX = 1024
"""How many sequences a request may have written: what it may amount to is a number that somebody can hold."""
TEXTS_MAX = 2048
"""How many texts it may have embedded, as OpenAI has it."""
_MODEL_CHARACTERS_MAX = 253


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request's model and body as it goes on. ``show_usage``, ``show_timings``: the client itself asked for them.
    ``writes`` is the most that each of its ``sequences`` may write, None where it does not say."""

    model: str
    stream: bool
    show_usage: bool
    show_timings: bool
    body: bytes
    writes: int | None = None
    sequences: int = 1


def bearer(headers: list[tuple[bytes, bytes]]) -> str:
    """The token of the Authorization header. Raises Refused."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer" and token.strip():
                return token.strip().decode("latin-1")
    raise no_key()


def read(raw: bytes, *, streams: bool) -> Wanted:
    """Parse a body; unknown parameters pass through unread. Raises Refused."""
    try:
        body: Any = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise malformed("We could not parse the JSON body of your request.") from error
    if not isinstance(body, dict):
        raise malformed("The body of your request must be a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise malformed("you must provide a model parameter")
    stream = bool(body.get("stream")) and streams
    options = body.get("stream_options")
    shown = isinstance(options, dict) and bool(options.get("include_usage"))
    timings = bool(body.get("timings_per_token"))
    if stream:
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        body["timings_per_token"] = True
    try:
        onward = orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise malformed("The body of your request is nested too deep.") from error
    name, writes, sequences = (
        model[:_MODEL_CHARACTERS_MAX],
        _writes(body, streams=streams),
        _sequences(body, streams=streams),
    )
    return Wanted(name, stream, shown, timings, onward, writes, sequences)


def _writes(body: Mapping[str, Any], *, streams: bool) -> int | None:
    """What of an answer the client bounds itself; embeddings write nothing."""
    said = [body[name] for name in ("max_completion_tokens", "max_tokens", "n_predict") if _whole(body.get(name))]
    return max(said, default=None) if streams else 0


def _sequences(body: Mapping[str, Any], *, streams: bool) -> int:
    """How many answers to how many inputs; what is no number is the engine's to refuse. Raises Refused."""
    name = next((name for name in ("prompt", "input") if isinstance(body.get(name), list)), "")
    texts = body[name] if name else [0]
    inputs = len(texts) if texts and not _whole(texts[0]) else 1
    # An engine takes 5.0 for five.
    each: float = max([1, *(body[said] for said in ("n", "best_of", "n_cmpl") if type(body.get(said)) in (int, float))])
    most = ANSWERS_MAX if streams else TEXTS_MAX
    if inputs * each > most:
        raise malformed(
            f"A request may ask for at most {most} answers: its inputs times `n`.", "n" if each > 1 else name
        )
    return inputs * math.ceil(each)


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def over(length: bytes | None) -> bool:
    """Whether a declared length is past the bound, or no number."""
    if length is None:
        return False
    return not length.isdigit() or int(length) > BODY_BYTES_MAX


__all__ = ["BODY_BYTES_MAX", "Refused", "Wanted", "bearer", "over", "read"]
