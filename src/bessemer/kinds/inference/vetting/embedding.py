"""What a model that embeds is asked, and what its vectors say of it. Pure.

Vectors are compared by their cosine, as those who search by them do (Salton and McGill, Introduction to Modern
Information Retrieval, 1983). They come as OpenAI's base64, a fifth of the bytes that their digits would be.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

import orjson

from bessemer.drivers.load.protocol import Hit, Shot
from bessemer.kinds.inference.vetting.report import EMBEDDINGS, Alone, Check, checked, refused
from bessemer.kinds.inference.vetting.shape import text_of

SAID = "The blast furnace melts iron ore with coke and hot air."
ALIKE = "Iron ore is melted with coke and hot air in the blast furnace."
OTHER = "My sister plays the violin every Sunday evening."

SAME = 0.999
"""The cosine from which on two vectors are one: engines add in other orders when they compute several texts at once."""

SHORT_WORDS = 16

Vector = Sequence[float]


def request(model: str, *texts: str) -> Mapping[str, Any]:
    """A request for a vector of each."""
    return {"model": model, "input": list(texts) if len(texts) > 1 else texts[0], "encoding_format": "base64"}


def first(model: str) -> list[Shot]:
    """Asked one after the other: a text twice, what says the same, what says something else, and two at once."""
    asked = ((SAID,), (SAID,), (ALIKE,), (OTHER,), (ALIKE, SAID))
    return [Shot(0.0, request(model, *texts), EMBEDDINGS) for texts in asked]


def alone(model: str, random: Random, *, long: int) -> list[Shot]:
    """One after the other: to warm up, a short text, and one of ``long`` words."""
    texts = [text_of(random, words) for words in (SHORT_WORDS, SHORT_WORDS, long)]
    return [Shot(0.0, request(model, text), EMBEDDINGS, keep=False) for text in texts]


def alone_of(hits: Sequence[Hit], *, long: int) -> Alone | None:
    """What `alone` says; None where one was not answered."""
    _, short, whole = hits
    if any(hit.status != 200 or not hit.read for hit in hits):
        return None
    more = max(1, whole.read - short.read)
    read = max(1e-7, ((whole.ended - whole.sent) - (short.ended - short.sent)) / more)
    words = (long - SHORT_WORDS) / more if whole.read > short.read else SHORT_WORDS / short.read
    return Alone(read=read, cached=read, written=0.0, words=min(2.0, max(0.1, words)))


def judged(hits: Sequence[Hit]) -> list[Check]:
    """What came of `first`."""
    one, again, alike, other, both = hits
    single = [vectors_of(hit, 1) for hit in (one, again, alike, other)]
    pair = vectors_of(both, 2)
    why = next((refused(hit) for hit in (one, again, alike, other) if refused(hit)), "")
    if why or not all(single):
        wrong = why or "no vector of numbers that say anything"
        return [checked("answers", iter((wrong, ""))), *(_skipped(name) for name in _NAMES[1:])]
    said = [found[0] for found in single]
    return [
        checked("answers", iter((f"{len(said[0]):,} numbers, length {math.hypot(*said[0]):.3g}",))),
        checked("dimension", _dimension(said)),
        checked("deterministic", _same(said[0], said[1])),
        checked("similarity", _similar(said)),
        checked("batch", _batch(both, pair, said=said)),
    ]


_NAMES = ("answers", "dimension", "deterministic", "similarity", "batch")


def _skipped(name: str) -> Check:
    return Check(name=name, verdict="Skipped", seen="there is nothing to compare")


def _dimension(said: Sequence[Vector]) -> Iterator[str]:
    sizes = sorted({len(vector) for vector in said})
    if len(sizes) > 1 or sizes[0] < 2:
        yield "texts have vectors of other lengths"
    yield f"{' or '.join(f'{size:,}' for size in sizes)} numbers for every text"


def _same(one: Vector, two: Vector) -> Iterator[str]:
    found = cosine(one, two)
    if found < SAME:
        yield "the same text has two vectors"
    yield f"a text is to itself as {found:.4f}"


def _similar(said: Sequence[Vector]) -> Iterator[str]:
    near, far = cosine(said[0], said[2]), cosine(said[0], said[3])
    if near <= far:
        yield "what says the same is no nearer than what says something else"
    yield f"what says the same {near:.3f}, something else {far:.3f}"


def _batch(hit: Hit, pair: Sequence[Vector], *, said: Sequence[Vector]) -> Iterator[str]:
    found = [cosine(vector, alone) for vector, alone in zip(pair, (said[2], said[0]), strict=False)]
    if why := refused(hit):
        yield why
    elif len(found) != 2:
        yield "of two texts at once not each has a vector"
    elif min(found) < SAME:
        yield "two texts at once have other vectors than one after the other"
    yield f"at once as alone: {min(found):.4f}" if len(found) == 2 else ""


def cosine(one: Vector, two: Vector) -> float:
    """Of the angle between them; 0 where they cannot be compared."""
    lengths = math.hypot(*one) * math.hypot(*two)
    if len(one) != len(two) or not lengths or not math.isfinite(lengths):
        return 0.0
    return sum(a * b for a, b in zip(one, two, strict=True)) / lengths


def vectors_of(hit: Hit, count: int) -> Sequence[Vector]:
    """As `vectors_in` its answer."""
    return vectors_in(hit.answer, count)


def vectors_in(answer: str | bytes, count: int) -> Sequence[Vector]:
    """The vectors of an answer, in the order of their texts; none where there are not so many, or one holds no numbers
    that say anything."""
    try:
        data = orjson.loads(answer)["data"]
        found = {int(one["index"]): _numbers(one["embedding"]) for one in data[:count]}
        vectors = [found[at] for at in range(count)]
    except (ValueError, LookupError, TypeError, OverflowError, struct.error):
        return ()
    whole = len(data) == count and all(all(map(math.isfinite, vector)) and any(vector) for vector in vectors)
    return vectors if whole else ()


def _numbers(said: Any) -> Vector:
    if isinstance(said, str):
        raw = base64.b64decode(said, validate=True)
        return struct.unpack(f"<{len(raw) // 4}f", raw)
    return [float(one) for one in said]
