"""What a vetting found, as values: checks, points of load, prices; and how hits become points. Pure.

Times are counted from when a request was to be sent, not from when it was: whoever is kept waiting is not left out
(Tene, "How NOT to Measure Latency": coordinated omission). Percentiles are of all requests of a rate, the nearest rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from bessemer.core.resource import ApiModel
from bessemer.drivers.load.protocol import Hit, Shot, Volley

EMBEDDINGS = "/v1/embeddings"

NEAR_MOST = 0.9
"""Of the most throughput: from which part on a rate is taken for one at which the engine gives what it can."""


_SEEN_MAX = 160


class Alone(ApiModel):
    """How long a token takes, in seconds, while nothing else is asked."""

    read: float
    cached: float
    written: float
    words: float = Field(description="Words of a token.")


class Check(ApiModel):
    """One thing that a model should be able to do."""

    name: str = Field(description="What: template, stop, tools, schema …")
    verdict: Literal["Passed", "Failed", "Skipped"] = Field(description="Whether it can.")
    seen: str = Field("", description="What was seen, in words.")


class Point(ApiModel):
    """One rate. Times are in milliseconds."""

    rate: float = Field(description="Requests a second that came.")
    requests: int = Field(description="How many came.")
    failed: int = Field(description="How many got no whole answer.")
    held: bool = Field(description="Whether all were answered, and as fast as they must be.")
    ttft_p50: float = Field(description="To the first token, of half of them at most.")
    ttft_p95: float = Field(description="To the first token, of 95 % at most.")
    inter_token_p50: float = Field(description="Between two tokens, of half of them at most.")
    inter_token_p95: float = Field(description="Between two tokens, of 95 % at most.")
    end_p50: float = Field(description="To the end, of half of them at most.")
    end_p95: float = Field(description="To the end, of 95 % at most.")
    seconds: float = Field(description="From the first request to the last answer.")
    busy_seconds: float = Field(description="Of these, while any was under way.")
    read: int = Field(description="Tokens of prompts that were read and not cached.")
    cached: int = Field(description="Tokens of prompts that were cached.")
    written: int = Field(description="Tokens that were written.")
    late_ms: float = Field(0.0, description="By how much requests were sent late, of 95 % at most.")

    @property
    def per_second(self) -> float:
        """Tokens written; of one that embeds, and writes none, those that it read."""
        return (self.written or self.read + self.cached) / self.seconds if self.seconds else 0.0

    @property
    def served(self) -> float:
        """Requests a second that were answered: no more than came, and less where they queued."""
        return min(self.rate, (self.requests - self.failed) / self.seconds) if self.seconds else 0.0


class TokenPrices(ApiModel):
    """What tokens must cost. Millionths of the currency, for a million tokens."""

    currency: str = Field(description="The plan's.")
    claim_hour_micro: int = Field(description="What the claim costs for an hour, by the project's plan.")
    margin_percent: int = Field(description="What is earned beyond that.")
    target_load_percent: int = Field(description="The part of the load that it bears at which it is earned.")
    million_input_tokens: int = Field(description="Tokens that are read and not cached.")
    million_cached_input_tokens: int = Field(description="Tokens that are read from the cache.")
    million_output_tokens: int = Field(description="Tokens that are written.")
    hour_micro: int = Field(description="What is earned in an hour at that load.")


def percentile(values: Iterable[float], percent: int) -> float:
    """The nearest rank; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class Goals:
    """Milliseconds that 95 % of requests may take; None: as long as they do."""

    ttft: int | None = None
    inter_token: int | None = None
    end: int | None = None

    def missed(self, *, ttft: float, inter_token: float, end: float) -> bool:
        """Whether one of these, in milliseconds, is longer."""
        pairs = ((self.ttft, ttft), (self.inter_token, inter_token), (self.end, end))
        return any(most is not None and took > most for most, took in pairs)


def point(volley: Volley, hits: Sequence[Hit], *, rate: float, goals: Goals) -> Point:
    """What came of a volley at that rate."""
    pairs = [(shot, hit) for shot, hit in zip(volley.shots, hits, strict=True) if _whole(shot, hit)]
    firsts = [hit.first - shot.at for shot, hit in pairs if hit.first is not None]
    gaps = [gap for _, hit in pairs for gap in hit.gaps]
    ends = [hit.ended - shot.at for shot, hit in pairs]
    failed = len(hits) - len(pairs)
    ttft, gap, end = (percentile(times, 95) for times in (firsts, gaps, ends))
    slow = goals.missed(ttft=ttft * 1000, inter_token=gap * 1000, end=end * 1000)
    return Point(
        rate=round(rate, 4),
        requests=len(hits),
        failed=failed,
        held=not failed and not slow,
        ttft_p50=_ms(percentile(firsts, 50)),
        ttft_p95=_ms(ttft),
        inter_token_p50=_ms(percentile(gaps, 50)),
        inter_token_p95=_ms(gap),
        end_p50=_ms(percentile(ends, 50)),
        end_p95=_ms(end),
        seconds=round(max((hit.ended for hit in hits), default=0.0), 3),
        busy_seconds=round(_union((hit.sent, hit.ended) for _, hit in pairs), 3),
        read=sum(hit.read - hit.cached for _, hit in pairs),
        cached=sum(hit.cached for _, hit in pairs),
        written=sum(hit.written for _, hit in pairs),
        late_ms=_ms(percentile((hit.sent - shot.at for shot, hit in zip(volley.shots, hits, strict=True)), 95)),
    )


def knee(points: Sequence[Point], *, bounded: bool) -> Point | None:
    """The rate at which it does as it should: ``bounded``, the largest that is as fast as it must be; else the smallest
    at which it gives `NEAR_MOST` of the most that it gives, with all answered. None where there is none."""
    held = [one for one in points if one.held]
    if bounded:
        return max(held, key=lambda one: one.rate, default=None)
    most = max((one.per_second for one in held), default=0.0)
    near = [one for one in held if one.per_second >= NEAR_MOST * most]
    return min(near, key=lambda one: one.rate, default=None) if most else None


def checked(name: str, found: Iterator[str]) -> Check:
    """The last word says what was seen; any before it, what is wrong."""
    *wrong, seen = found
    seen = "; ".join(word for word in (*wrong, seen) if word)
    return Check(name=name, verdict="Failed" if wrong else "Passed", seen=seen)


def refused(hit: Hit) -> str:
    """Why there is no answer; "" where there is one."""
    if hit.status == 200:
        return ""
    if not hit.status:
        return hit.trouble
    return f"the engine answered with status {hit.status}: {shown(hit.answer)}"


def shown(text: str) -> str:
    """What an engine said, where a person can read it."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return repr(plain if len(plain) <= _SEEN_MAX else f"{plain[: _SEEN_MAX - 1]}…")


def _whole(shot: Shot, hit: Hit) -> bool:
    """What embeds writes no tokens."""
    return hit.status == 200 and (hit.read if shot.path == EMBEDDINGS else hit.written) > 0


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """The time that any of them covers."""
    total = end = 0.0
    for begin, until in sorted(spans):
        total += max(0.0, until - max(begin, end))
        end = max(end, until)
    return total
