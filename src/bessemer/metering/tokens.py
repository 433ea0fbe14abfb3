"""What tokens must cost so that they pay for the claim that computes them. Pure, whole numbers from end to end.

An hour of a claim costs what it costs, whatever is asked of it. It is shared out by time: a token is charged for the
time that it takes of the engine (time-driven activity-based costing; Kaplan and Anderson, Harvard Business Review,
November 2004), and reading a prompt and writing an answer take times of their own (Splitwise; Patel et al., ISCA 2024).
With the cost ``C`` of an hour, the margin ``m``, and for each meter ``x`` (input, cached input, output) the tokens
``N(x)`` of an hour at the target load and the time ``t(x)`` of one of them::

    price(x) = C × (1 + m) × t(x) / Σ t(y) N(y)         so that   Σ price(x) N(x) = C × (1 + m)

A price is rounded up to a whole micro-unit per million tokens: what is earned in that hour covers ``C × (1 + m)``, and
is more by less than a micro-unit per million tokens of the hour.
"""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core.units import SECONDS_PER_HOUR
from bessemer.metering.plan import Rates

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """A number for each meter: of tokens, or of nanoseconds that one takes. ``read`` are those that are not cached."""

    read: int
    cached: int
    written: int

    def times(self, other: Tokens) -> int:
        """The sum of the products."""
        return self.read * other.read + self.cached * other.cached + self.written * other.written

    def __post_init__(self) -> None:
        if min(self.read, self.cached, self.written) < 0:
            raise ValueError("tokens and their times are not below 0")


def prices(cost_micro: int, *, margin_percent: int, hour: Tokens, each: Tokens) -> Tokens:
    """Micro-units per million tokens of each meter, of an hour that costs ``cost_micro`` and in which ``hour`` tokens
    are asked for; ``each`` is the time of one. Raises ValueError where none of them takes any time."""
    spent = each.times(hour)
    if spent <= 0:
        raise ValueError("in an hour in which no time is spent nothing can be earned")
    due = cost_micro * (100 + margin_percent) * _MILLION
    read, cached, written = (-(-due * time // (100 * spent)) for time in (each.read, each.cached, each.written))
    return Tokens(read, cached, written)


def seconds_of_a_million(*, hour: Tokens, each: Tokens) -> Tokens:
    """The same as a time of the claim, whatever that costs: microseconds of it for a million tokens, rounded up."""
    return prices(SECONDS_PER_HOUR * _MILLION, margin_percent=0, hour=hour, each=each)


def at_load(tokens: Tokens, *, seconds_milli: int, load_percent: int) -> Tokens:
    """The tokens of an hour, of those that came in so many thousandths of a second, at a part of that load; rounded
    down, so that no more is counted on than was measured."""
    if seconds_milli <= 0:
        raise ValueError("nothing is measured in no time")
    factor, divisor = SECONDS_PER_HOUR * 1000 * load_percent, 100 * seconds_milli
    read, cached, written = (count * factor // divisor for count in (tokens.read, tokens.cached, tokens.written))
    return Tokens(read, cached, written)


def rates(of: Tokens, plan: Rates) -> Rates:
    """A plan's rates with these prices of tokens."""
    return plan.model_copy(
        update={
            "million_input_tokens": of.read,
            "million_cached_input_tokens": of.cached,
            "million_output_tokens": of.written,
        }
    )
