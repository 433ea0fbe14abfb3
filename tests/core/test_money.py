"""What is rounded up on the way is never less than an invoice's line, which is rounded once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.money import OUTSIDE, Prices, bare, said_of
from bessemer.core.values import LedgerEntry
from bessemer.metering.invoice import derive
from bessemer.metering.plan import Plan, Rates


def tokens(number: int, dice: random.Random) -> LedgerEntry:
    read = dice.randrange(0, 3_000)
    values = {name: field.default for name, field in LedgerEntry.model_fields.items() if not field.is_required()}
    values |= {"id": number, "at": 1, "kind": "tokens", "tenant": "acme", "project": "acme--lab", "model": "m"}
    values |= {"workload_kind": "Endpoint", "workload_name": "chat", "workload_uid": f"e{dice.randrange(2)}"}
    cached, written = dice.randrange(0, read + 1), dice.randrange(0, 3_000)
    values |= {"input_tokens": read, "cached_input_tokens": cached, "output_tokens": written}
    return LedgerEntry.model_construct(**values)


@pytest.mark.parametrize("seed", range(8))
def test_a_look_and_what_came_since_are_never_less_than_the_invoice(seed: int) -> None:
    dice = random.Random(seed)
    rates = Rates(
        million_input_tokens=dice.randrange(10**6),
        million_cached_input_tokens=dice.randrange(10**6),
        million_output_tokens=dice.randrange(10**6),
    )
    plan = Plan(rates=rates)
    prices = Prices.read(plan.dump())
    rows = [tokens(number, dice) for number in range(60)]
    whole = derive(rows, plan, start=0, end=2).total_micro
    for upto in range(0, 60, 7):
        told = derive(rows[:upto], plan, start=0, end=2).total_micro
        since = sum(
            prices.tokens(read=row.input_tokens, cached=row.cached_input_tokens, written=row.output_tokens)
            for row in rows[upto:]
        )
        assert whole <= told + since <= whole + 3 * 60


# --- rates of models --------------------------------------------------------------------------------------------

RATES = st.tuples(*(st.integers(0, 4_000_000) for _ in range(3)))
NAMES = ("llama", "tiny", "legal", "acme--lab/tiny", "external/gpt:4", "acme--lab/own")
SAID = (*NAMES, "llama:legal", "tiny:other", "acme--lab/own:legal", "external/tiny", "external/llama:legal", "unknown")


@st.composite
def prices(draw: st.DrawFn) -> Prices:
    read, cached, written = draw(RATES)
    models = draw(st.dictionaries(st.sampled_from(NAMES), RATES))
    return Prices(input=read, cached=cached, output=written, models=models)


@given(of=prices(), chain=st.lists(st.sampled_from(SAID), min_size=1), writes=st.integers(0, 4000), data=st.data())
def test_what_is_held_for_a_chain_covers_whoever_of_it_answers(
    of: Prices, chain: list[str], writes: int, data: st.DataObject
) -> None:
    """A gateway that knows no models holds by what it is told first; that covers anybody."""
    written = data.draw(st.integers(0, writes))
    read = data.draw(st.integers(0, 4000))
    cached = data.draw(st.integers(0, read))
    held = of.over(chain).most(read + writes, writes=writes)
    told = of.told()
    older = Prices(**{name: told[name] for name in ("currency", "input", "cached", "output")})
    for who in chain:
        cost = of.of(who).tokens(read=read, cached=cached, written=written)
        assert cost <= held <= older.most(read + writes, writes=writes)
        assert cost <= older.tokens(read=read, cached=cached, written=written)


@given(of=prices(), chain=st.lists(st.sampled_from(SAID), min_size=1), who=st.sampled_from(SAID), data=st.data())
def test_whoever_was_not_thought_of_is_billed_no_more_than_was_held(
    of: Prices, chain: list[str], who: str, data: st.DataObject
) -> None:
    read, written = data.draw(st.integers(0, 10**7)), data.draw(st.integers(0, 10**7))
    cached = data.draw(st.integers(0, read))
    held, due = of.over(chain), of.of(who)
    r, c, w = due.within(held, read=read, cached=cached, written=written)
    assert 0 <= c <= r <= read
    assert c <= cached
    assert w <= written
    assert due.tokens(read=r, cached=c, written=w) <= held.tokens(read=read, cached=cached, written=written)
    if who in chain:
        assert (r, c, w) == (read, cached, written), "nothing is left out of whom it was held for"


@given(of=prices())
def test_what_a_gateway_hears_is_what_it_was_told(of: Prices) -> None:
    assert Prices.heard(of.told()) == of
    if not of.models:
        assert list(of.told()) == ["currency", "input", "cached", "output"]


def test_which_rate_goes_for_whom() -> None:
    of = Prices(input=5, cached=5, output=5, models={"tiny": (1, 1, 9), "legal": (2, 0, 8), "external/tiny": (7, 7, 7)})
    assert of.of("unknown").rate == of.of("").rate == (5, 5, 5)
    assert of.of("tiny").rate == of.of("tiny:other").rate == (1, 1, 9)
    assert of.of("tiny:legal").rate == (2, 1, 9), "an adapter that is named costs no less than what it is put on"
    assert of.of(said_of("tiny", project="acme--lab")).rate == (5, 5, 5), "a project's own has only the name"
    assert of.of(said_of("tiny", project="acme--lab", adapter="legal")).rate == (5, 5, 8)
    assert of.of(f"{OUTSIDE}tiny").rate == (7, 7, 7)
    assert of.of(f"{OUTSIDE}tiny:legal").rate == of.of(f"{OUTSIDE}legal").rate == (5, 5, 5)
    assert of.over(("tiny", "external/tiny", "unknown")).rate == (7, 7, 9)
    plain = Prices(input=5)
    assert plain.of("tiny") is plain
    assert plain.over(("tiny", "x")) is plain
    assert bare("acme--lab/tiny:legal") == bare("tiny") == bare(f"{OUTSIDE}tiny") == "tiny"
