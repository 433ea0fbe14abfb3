"""Prices of tokens: what is earned at the target load covers what the claim costs with its margin, and hardly more."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.money import Prices
from bessemer.metering.plan import Rates
from bessemer.metering.tokens import Tokens, at_load, prices, rates, seconds_of_a_million

counts = st.builds(Tokens, st.integers(0, 10**10), st.integers(0, 10**10), st.integers(0, 10**10))
times = st.builds(Tokens, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
Case = tuple[int, int, Tokens, Tokens]
cases = st.tuples(st.integers(0, 10**12), st.integers(0, 1000), counts, times).filter(lambda c: c[2].times(c[3]) > 0)


@given(cases)
def test_it_earns_what_it_costs_with_the_margin_and_hardly_more(case: Case) -> None:
    cost, margin, hour, each = case
    found = prices(cost, margin_percent=margin, hour=hour, each=each)
    earned = Fraction(found.times(hour), 1_000_000)
    due = Fraction(cost * (100 + margin), 100)
    most = Fraction(hour.read + hour.cached + hour.written, 1_000_000)
    assert due <= earned < due + max(most, Fraction(1, 10**9)) or earned == due


@given(cases)
def test_a_token_is_charged_for_its_time(case: Case) -> None:
    cost, margin, hour, each = case
    found = prices(cost, margin_percent=margin, hour=hour, each=each)
    for price, time in ((found.read, each.read), (found.cached, each.cached), (found.written, each.written)):
        due = Fraction(cost * (100 + margin) * 1_000_000 * time, 100 * each.times(hour))
        assert due <= price < due + 1


@given(cases)
def test_twice_the_load_halves_the_prices(case: Case) -> None:
    cost, margin, hour, each = case
    twice = Tokens(2 * hour.read, 2 * hour.cached, 2 * hour.written)
    one, two = (prices(cost, margin_percent=margin, hour=count, each=each) for count in (hour, twice))
    for more, less in ((one.read, two.read), (one.cached, two.cached), (one.written, two.written)):
        assert less <= more <= 2 * less


def test_an_example() -> None:
    """An hour at 2.50 and a margin of a fifth: 3 to share. Reading takes 1/4 of its time, writing 3/4."""
    hour, each = Tokens(3_000_000, 0, 900_000), Tokens(1_000, 100, 10_000)
    found = prices(2_500_000, margin_percent=20, hour=hour, each=each)
    assert found == Tokens(250_000, 25_000, 2_500_000)
    assert found.times(hour) == 3_000_000 * 1_000_000
    gateway = Prices.read({"rates": rates(found, Rates(core_hour=7)).dump()})
    assert gateway.tokens(read=3_000_000, cached=0, written=900_000) == 3_000_000
    assert gateway.core_hour == 7


def test_as_time_of_the_claim() -> None:
    hour, each = Tokens(3_000_000, 0, 900_000), Tokens(1_000, 100, 10_000)
    found = seconds_of_a_million(hour=hour, each=each)
    assert found == Tokens(300_000_000, 30_000_000, 3_000_000_000)
    assert found.times(hour) == 3600 * 10**12


def test_tokens_of_an_hour_at_a_part_of_the_load() -> None:
    assert at_load(Tokens(1000, 10, 1), seconds_milli=10_000, load_percent=70) == Tokens(252_000, 2_520, 252)


def test_what_cannot_be_shared_is_refused() -> None:
    nothing = Tokens(0, 0, 0)
    with pytest.raises(ValueError, match="nothing can be earned"):
        prices(1, margin_percent=0, hour=nothing, each=Tokens(1, 1, 1))
    with pytest.raises(ValueError, match="no time"):
        at_load(nothing, seconds_milli=0, load_percent=100)
    with pytest.raises(ValueError, match="below 0"):
        Tokens(-1, 0, 0)
