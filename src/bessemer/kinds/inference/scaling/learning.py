"""What a policy learns of an endpoint while it serves: how fast it is at which load, how far that may be trusted, and
how much is coming. Pure.

Sources: Haykin: Adaptive Filter Theory (recursive least squares with forgetting); Little's law; Gibbs, Candès:
Adaptive Conformal Inference under Distribution Shift (NeurIPS 2021), whose update `Trust` is in continuous time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

MISSED_SHARE = 0.05
"""That may miss the target: it is of 95 of 100."""

_FORGET = 0.999
_OVER_MOST = 0.3
"""So much of what misses counts at most: where everything does, something else than the promise is wrong."""
_BUSY_UNIT, _READ_UNIT = 16.0, 64.0
"""In which they are counted, so that all three are of one size."""


@dataclass(slots=True)
class Mean:
    """A mean that forgets, by weight."""

    half: float
    """Weight after which what was counts half."""
    total: float = 0.0
    weight: float = 0.0

    def take(self, total: float, weight: float) -> None:
        """So much more, of that weight."""
        if weight <= 0:
            return
        keep = 0.5 ** (weight / self.half)
        self.total, self.weight = self.total * keep + total, self.weight * keep + weight

    def value(self, otherwise: float = 0.0) -> float:
        return self.total / self.weight if self.weight else otherwise


class Pace:
    """Seconds from token to token: ``alone + batch × busy``, over the share of time that is not spent on reading
    prompts, which take ``reading`` seconds a token; each of one replica.

    Recursive least squares with forgetting, over ``pace = alone + batch × busy + reading × tokens a second × pace``.
    What comes out as negative is 0.
    """

    def __init__(self) -> None:
        self._parts = [0.0, 0.0, 0.0]
        self._spread = [[1e2 if row == column else 0.0 for column in range(3)] for row in range(3)]
        self.seen = 0.0
        """Tokens from which it learnt."""
        self.typical = 0.02
        """Seconds from token to token, of late."""

    def take(self, busy: float, reading: float, *, seconds: float, tokens: float) -> None:
        """Tokens that came in so many seconds, while so much was busy and read (tokens a second) by each replica."""
        if tokens <= 0 or seconds <= 0:
            return
        pace = seconds / tokens
        self.typical += (pace - self.typical) * min(1.0, tokens / 4096.0)
        known = (1.0, busy / _BUSY_UNIT, reading * pace / _READ_UNIT)
        spread = self._spread
        gain = [sum(row[n] * known[n] for n in range(3)) for row in spread]
        # The more tokens say it, the more it is worth.
        noise = 1.0 / min(1.0, tokens / 256.0)
        whole = _FORGET * noise + sum(known[n] * gain[n] for n in range(3))
        wrong = pace - sum(self._parts[n] * known[n] for n in range(3))
        self._parts = [self._parts[n] + gain[n] / whole * wrong for n in range(3)]
        self._spread = [
            [min(1e4, (spread[row][n] - gain[row] * gain[n] / whole) / _FORGET) for n in range(3)] for row in range(3)
        ]
        self.seen += tokens

    @property
    def parts(self) -> tuple[float, float, float]:
        """``alone``, ``batch``, ``reading``."""
        alone, batch, reading = self._parts
        return max(1e-4, alone), max(0.0, batch) / _BUSY_UNIT, max(0.0, reading) / _READ_UNIT

    def capacity(self, target: float, *, reads: float, writes: float, slots: float) -> float:
        """Requests a second that one replica answers at a mean pace of ``target`` seconds, each of so many tokens; what
        its slots allow where that is less."""
        alone, batch, reading = self.parts
        writes = max(1.0, writes)
        # By Little's law so many requests are busy as come in the time in which one is answered.
        by_slots = slots / max(1e-9, writes * (alone + batch * slots) + slots * reading * reads)
        if target == math.inf:
            return max(1e-6, by_slots)
        target = max(target, alone * 1.05)
        by_pace = (target - alone) / max(1e-9, target * (batch * writes + reading * reads))
        return max(1e-6, min(by_pace, by_slots))


class Trust:
    """How much of what the pace promises may be used, so that no more than `MISSED_SHARE` miss the target in the long
    run, whatever the promise leaves out: that paces spread about their mean, bursts, long prompts.

    It falls while more miss it, and rises while fewer do, in proportion; both so slowly that what follows from a change
    is seen before the next.
    """

    def __init__(self, *, first: float = 0.6, least: float = 0.2, most: float = 1.0) -> None:
        self.share = first
        self._least, self._most = least, most

    def take(self, *, seconds: float, answers: float, missed: float, slowness: float) -> None:
        """What missed of so many answers, in so many seconds. ``slowness`` are the seconds in which it would fall by a
        factor of e if all missed."""
        if answers <= 0:
            return
        over = min(_OVER_MOST, missed / answers - MISSED_SHARE)
        self.share = min(self._most, max(self._least, self.share * math.exp(-over * seconds / slowness)))


class Rate:
    """What arrives: requests by time, over windows that end now."""

    def __init__(self, keep_seconds: float = 600.0) -> None:
        self._keep = keep_seconds
        self._seen: deque[tuple[float, float, float]] = deque()
        """When a span ended, its length, and what arrived in it."""

    def take(self, at: float, *, seconds: float, count: float) -> None:
        self._seen.append((at, seconds, count))
        while self._seen and self._seen[0][0] < at - self._keep:
            self._seen.popleft()

    def over(self, now: float, seconds: float, *, ago: float = 0.0) -> float | None:
        """A second, over so many seconds that ended ``ago``; None where nothing is known of half of them."""
        end, known, count = now - ago, 0.0, 0.0
        for at, length, came in self._backwards():
            if at > end:
                continue
            if at <= end - seconds:
                break
            known += length
            count += came
        return count / known if known >= seconds / 2 else None

    def _backwards(self) -> Iterator[tuple[float, float, float]]:
        return reversed(self._seen)


class Rushes:
    """What came in the busiest spans of the last while."""

    def __init__(self, *, span_seconds: float = 10.0, keep_seconds: float = 1800.0) -> None:
        self._span = span_seconds
        self._rates: deque[float] = deque(maxlen=int(keep_seconds / span_seconds))
        self._seconds = self._count = 0.0

    def take(self, *, seconds: float, count: float) -> None:
        """So much came in so many seconds."""
        self._seconds += seconds
        self._count += count
        if self._seconds >= self._span:
            self._rates.append(self._count / self._seconds)
            self._seconds = self._count = 0.0

    def rate(self, share: float) -> float:
        """Requests a second of a span, where ``share`` of all requests came in spans that had no more."""
        above = (1 - share) * sum(self._rates)
        for rate in sorted(self._rates, reverse=True):
            above -= rate
            if above < 0:
                return rate
        return 0.0


class Lead:
    """By how much more came than was foreseen, for all but `MISSED_SHARE` of the looks: a quantile, followed as it
    moves (Koenker, Bassett: Regression Quantiles, 1978, as stochastic gradient)."""

    def __init__(self, *, most: float = 2.0, step: float = 0.01) -> None:
        self.factor = 1.0
        self._most, self._step = most, step
        self._foreseen: deque[tuple[float, float]] = deque()

    def led(self, now: float, foreseen: float, *, came: float | None, after: float) -> float:
        """The factor for what is ``foreseen`` for ``after`` so many seconds. ``came`` is what came lately."""
        self._foreseen.append((now + after, foreseen))
        while self._foreseen and self._foreseen[0][0] <= now:
            _, said = self._foreseen.popleft()
            if came is None or said <= 0:
                continue
            over = came > said * self.factor
            moved = self._step * ((1 - MISSED_SHARE) if over else -MISSED_SHARE)
            self.factor = min(self._most, max(1.0, self.factor + moved))
        return self.factor
