"""What a model is asked under load: lengths out of quantiles, prompts of such lengths, times at random. Pure; the same
seed gives the same requests.

The shapes that are built in are round numbers in the manner of published traces of conversations and of code completion
(Patel et al., Splitwise, ISCA 2024) and of long contexts (Qin et al., Mooncake, FAST 2025). Whoever has a trace gives
its quantiles in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from bessemer.drivers.load.protocol import SHOTS_MAX, Shot
from bessemer.kinds.inference.vetting.report import EMBEDDINGS

SHAPES: Mapping[str, tuple[Sequence[int], Sequence[int]]] = {
    "chat": (
        (8, 60, 140, 280, 480, 800, 1100, 1400, 1900, 2700, 4000),
        (4, 30, 60, 90, 110, 130, 180, 240, 320, 420, 700),
    ),
    "code": (
        (20, 400, 800, 1100, 1400, 1700, 2100, 2600, 3300, 4700, 7000),
        (1, 4, 7, 9, 11, 13, 16, 20, 28, 50, 300),
    ),
    "long": (
        (500, 2500, 4000, 5500, 6800, 7500, 9000, 12_000, 17_000, 28_000, 100_000),
        (5, 60, 150, 230, 290, 350, 400, 450, 510, 600, 1200),
    ),
}
"""Quantiles of prompts and answers, in tokens, from the least to the most by tenths."""

SHARERS = 4
"""Beginnings that requests have in common."""

ARRIVALS_MIN = 4
"""Of each rate: where so many do not come in its time, it lasts until they have."""

_TEXT = (
    "iron blown vessel steel carries every load from the quiet river where a hundred small lamps burn over old stone "
    "walls and people talk of weather bread work trains ships letters music snow winter roads bridges gardens clocks "
    "market green yellow heavy light early late open closed north south under above between window table paper glass "
    "story number answer question reason morning evening water fire wind cloud field horse wheel engine signal copper "
    "silver timber harbour valley mountain island desert forest orchard meadow village city street corner door"
)

WORDS = tuple(_TEXT.split())


class Lengths:
    """Random lengths with these quantiles, at equal steps, between which they lie evenly; none above ``most``."""

    def __init__(self, quantiles: Sequence[int], *, most: int) -> None:
        self._quantiles = quantiles
        self._most = max(1, most)

    def at(self, share: float) -> int:
        """The length below which that share of all lie, from 0 to 1."""
        place = share * (len(self._quantiles) - 1)
        low = min(int(place), len(self._quantiles) - 2)
        one, two = self._quantiles[low : low + 2]
        return max(1, min(self._most, round(one + (place - low) * (two - one))))

    def mean(self) -> float:
        """Of all."""
        return sum(self.at((n + 0.5) / 200) for n in range(200)) / 200


def quantiles_of(values: Sequence[int], *, steps: int = 20) -> list[int]:
    """Those of a trace, at equal steps."""
    ordered = sorted(values)
    return [max(1, ordered[round(n * (len(ordered) - 1) / steps)]) for n in range(steps + 1)]


def text_of(random: Random, words: int) -> str:
    """So many words that nobody has asked before."""
    return " ".join(random.choice(WORDS) for _ in range(max(1, words)))


def request(model: str, text: str, *, tokens: int) -> dict[str, object]:
    """A request for an answer of exactly so many tokens, streamed and counted. What is asked is no chat that anybody
    would end: so the engine is told to go on past what it takes for the end."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def arrivals(random: Random, rate: float, *, seconds: float) -> list[float]:
    """Times of a Poisson process: the gaps between them are exponential."""
    found: list[float] = []
    now = 0.0
    while len(found) < SHOTS_MAX:
        now += random.expovariate(rate)
        if now > seconds and len(found) >= ARRIVALS_MIN:
            break
        found.append(now)
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """What requests under load are like. ``words`` are those of a token; of each prompt the part ``shared`` is one of
    `SHARERS` beginnings."""

    model: str
    inputs: Lengths
    outputs: Lengths
    shared: float
    words: float


def shots(
    asked: Asked, embed: Callable[..., Mapping[str, Any]] | None = None, *, seed: str, rate: float, seconds: float
) -> list[Shot]:
    """The requests of one rate; ``embed`` makes one of a text that is to be embedded, where it is."""
    random = Random(f"{seed}/{rate}")
    beginnings = [text_of(Random(f"{seed}/begins/{n}"), 4096) for n in range(SHARERS)] if asked.shared else []
    found = []
    for at in arrivals(random, rate, seconds=seconds):
        read, written = asked.inputs.at(random.random()), asked.outputs.at(random.random())
        many = max(1, int(read * asked.words))
        same = int(many * asked.shared)
        text = text_of(random, many - same)
        if beginnings:
            text = " ".join([*random.choice(beginnings).split(" ", same)[:same], text])
        if embed is not None:
            found.append(Shot(at, embed(asked.model, text), EMBEDDINGS, keep=False))
        else:
            found.append(Shot(at, request(asked.model, text, tokens=written), keep=False))
    return found
