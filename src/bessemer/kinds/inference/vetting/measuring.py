"""What comes next of a vetting, and what each volley adds to what is known. Pure: the host side keeps `Measured` in its
Claim's status, so a new agent goes on behind the last volley that had ended.

First it is found how long a token takes that is read, one that is cached and one that is written, each alone; then what
the model can do is checked; then rates rise, each with requests at random times, until the engine gives no more, or is
slower than it must be.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from pydantic import Field

from bessemer.core.resource import ApiModel
from bessemer.drivers.llamacpp.protocol import LLAMACPP, batch_of
from bessemer.drivers.load.protocol import Hit, Shot, Volley
from bessemer.kinds.inference.vetting import checks, embedding
from bessemer.kinds.inference.vetting.report import Alone, Check, Goals, Point, point
from bessemer.kinds.inference.vetting.shape import Asked, Lengths, request, shots, text_of
from bessemer.kinds.inference.vetting.spec import VettingIntent

STEPS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
"""Rates, in what one after the other would be answered."""

OVER = 2
"""After so many rates in a row that give no more, or are too slow, there is nothing more to be found."""

_GAIN = 0.95
"""A rate that gives less beyond what came before gives no more."""

SHORT_WORDS, WRITTEN = 16, 32
ALONE_SECONDS, DRAIN_SECONDS = 300.0, 60.0
BROKEN_MAX = 3
TOKEN_WORDS = 0.5
"""Words of a token, before it is known: few, so that a prompt fits in any case."""


class Measured(ApiModel):
    """What is known so far. ``process`` is the engine that the volley under way is asked of."""

    volleys: int = 0
    broken: int = 0
    process: str = ""
    alone: Alone | None = None
    checks: list[Check] = Field(default_factory=list)
    text: str = ""
    points: list[Point] = Field(default_factory=list)
    memory_bytes: int = 0
    done: bool = False


def volley_of(intent: VettingIntent, had: Measured) -> Volley | None:
    """The next one; None where all is known."""
    if had.done:
        return None
    number, alias = had.volleys, intent.alias
    if had.alone is None:
        return Volley(number, _alone(intent), ALONE_SECONDS, serial=True)
    if not had.checks:
        asked = embedding.first(alias) if embeds(intent) else checks.first(alias)
        return Volley(number, asked, ALONE_SECONDS, serial=True)
    if _stops(intent, had):
        again = checks.second(alias, had.text)[0]
        return Volley(number, again, ALONE_SECONDS, serial=True)
    rate = next_rate(intent, had)
    if rate is None:
        return None
    plan, (inputs, outputs) = intent.plan, lengths_of(intent)
    load = Asked(alias, inputs, outputs, shared=plan.shared_percent / 100, words=had.alone.words)
    made = embedding.request if embeds(intent) else None
    sent = shots(load, made, seed=plan.seed, rate=rate, seconds=plan.seconds)
    return Volley(number, sent, max(plan.seconds, sent[-1].at) * 2 + DRAIN_SECONDS)


def taken(intent: VettingIntent, had: Measured, *, volley: Volley, hits: Sequence[Hit]) -> Measured:
    """What is known once the volley has ended."""
    found = had.model_copy(update={"volleys": had.volleys + 1})
    if had.alone is None:
        alone = alone_of(intent, hits)
        return found.model_copy(update={"alone": alone} if alone else {"broken": had.broken + 1})
    if not had.checks and embeds(intent):
        return found.model_copy(update={"checks": embedding.judged(hits)})
    if not had.checks:
        said, text = checks.judged(hits)
        if not checks.stop_of(text):
            said = [*said, checks.stopped([], text=text, word="")]
        return found.model_copy(update={"checks": said, "text": text})
    if _stops(intent, had):
        check = checks.stopped(hits, text=had.text, word=checks.stop_of(had.text))
        return found.model_copy(update={"checks": [*had.checks, check]})
    rate, plan = next_rate(intent, had), intent.plan
    assert rate is not None
    one = point(volley, hits, rate=rate, goals=Goals(plan.ttft_ms, plan.inter_token_ms, plan.end_ms))
    found = found.model_copy(update={"points": [*had.points, one]})
    return found.model_copy(update={"done": next_rate(intent, found) is None})


def embeds(intent: VettingIntent) -> bool:
    """Whether it is measured for embedding."""
    return intent.task == "embed"


def _stops(intent: VettingIntent, had: Measured) -> bool:
    """Whether it is still to be asked to stop at a word."""
    return not embeds(intent) and had.checks[-1].name != "stop"


def lengths_of(intent: VettingIntent) -> tuple[Lengths, Lengths]:
    """Of prompts and answers, both within a slot's context, with room for a template; of texts that are embedded,
    within what is computed at once, with room for words that are more tokens than others."""
    if embeds(intent):
        most = intent.context_tokens
        if intent.engine == LLAMACPP.name:
            said = intent.arguments.get("ubatch-size")
            at_once = batch_of(intent.memory_bytes, context_tokens=most)
            most = min(most, said if isinstance(said, int) else at_once)
        return Lengths(intent.plan.inputs, most=most * 3 // 4), Lengths((1, 1), most=1)
    half = max(8, intent.context_tokens // 2)
    return Lengths(intent.plan.inputs, most=half - 64 if half > 128 else half // 2), Lengths(
        intent.plan.outputs, most=half
    )


def next_rate(intent: VettingIntent, had: Measured) -> float | None:
    """Requests a second; None where there is nothing more to be found."""
    rates, count = rates_of(intent, had), len(had.points)
    if count >= len(rates):
        return None
    return None if not intent.plan.rates and _over(had.points) else rates[count]


def rates_of(intent: VettingIntent, had: Measured) -> Sequence[float]:
    """All that may be tried."""
    if intent.plan.rates or had.alone is None:
        return intent.plan.rates
    inputs, outputs = (of.mean() for of in lengths_of(intent))
    shared = intent.plan.shared_percent / 100
    read = inputs * ((1 - shared) * had.alone.read + shared * had.alone.cached)
    alone = 1 / max(0.001, read + outputs * had.alone.written)
    return [float(f"{alone * step:.3g}") for step in STEPS]


def progress(intent: VettingIntent, had: Measured, *, share: float) -> int:
    """Percent, by what may be left: what ends sooner jumps at its end."""
    expected = 3 + (len(intent.plan.rates) or 8)
    done = min(had.volleys + share, expected - 1) if not had.done else expected
    return int(100 * done / expected)


def _over(points: Sequence[Point]) -> bool:
    """Whether the last rates gave no more than what came before, or were too slow."""
    if len(points) <= OVER:
        return False
    before, last = points[:-OVER], points[-OVER:]
    most = max(one.per_second for one in before)
    return all(not one.held or _GAIN * one.per_second <= most for one in last)


def _alone(intent: VettingIntent) -> list[Shot]:
    """One after the other: to warm up, a short prompt, a long one, the same again, and an answer of some length."""
    random = Random(f"{intent.plan.seed}/alone")
    if embeds(intent):
        return embedding.alone(intent.alias, random, long=_long_words(intent))
    long, short = text_of(random, _long_words(intent)), [text_of(random, SHORT_WORDS) for _ in range(3)]
    asked = [(short[0], 4), (short[1], 4), (long, 4), (long, 4), (short[2], min(WRITTEN, intent.context_tokens // 4))]
    return [Shot(0.0, request(intent.alias, text, tokens=tokens)) for text, tokens in asked]


def _long_words(intent: VettingIntent) -> int:
    return max(2 * SHORT_WORDS, int(lengths_of(intent)[0].at(1.0) * TOKEN_WORDS))


def alone_of(intent: VettingIntent, hits: Sequence[Hit]) -> Alone | None:
    """What `_alone` says; None where one was not answered."""
    if embeds(intent):
        return embedding.alone_of(hits, long=_long_words(intent))
    _, short, long, again, written = hits
    if any(hit.status != 200 or hit.first is None for hit in hits) or not written.gaps:
        return None
    one, two, three = ((hit.first or 0.0) - hit.sent for hit in (short, long, again))
    fresh = (long.read - long.cached) - (short.read - short.cached)
    read = max(1e-7, (two - one) / max(1, fresh))
    base = max(0.0, one - read * (short.read - short.cached))
    left = three - base - read * (again.read - again.cached)
    # What is cached is not computed anew, and is looked up: where times say otherwise, they were disturbed.
    cached = min(read, max(read / 100, left / again.cached)) if again.cached else read
    words = (_long_words(intent) - SHORT_WORDS) / max(1, long.read - short.read)
    return Alone(
        read=read,
        cached=cached,
        written=max(1e-7, sum(written.gaps) / len(written.gaps)),
        words=min(2.0, max(0.1, words)),
    )
