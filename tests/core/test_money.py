"""What is rounded up on the way is never less than an invoice's line, which is rounded once."""

from __future__ import annotations

import random

import pytest

from bessemer.core.money import Prices
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
