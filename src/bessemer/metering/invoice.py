"""The invoice: ledger rows and a plan in, priced lines out. Integer arithmetic from end to end.

A line is one meter of one workload. Its amount is ``quantity × unit_price_micro / divisor``, rounded once, half up, to
a whole micro-unit; the total is the sum of the lines. What ran on fake hosts stands in lines of its own that say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from typing import Any, Literal, NamedTuple

from pydantic import Field

from bessemer.core.resource import ApiModel
from bessemer.core.units import GIB, SECONDS_PER_HOUR, show_price
from bessemer.core.values import LedgerEntry
from bessemer.metering.plan import Plan, Rates
from bessemer.metering.rows import Segment, effective, segments

Meter = Literal["cores", "memory", "devices", "input_tokens", "cached_input_tokens", "output_tokens"]
METERS: tuple[Meter, ...] = ("cores", "memory", "devices", "input_tokens", "cached_input_tokens", "output_tokens")

_UNITS: dict[Meter, tuple[str, int]] = {
    "cores": ("core-hour", 1000 * SECONDS_PER_HOUR),
    "memory": ("GiB-hour", GIB * SECONDS_PER_HOUR),
    "devices": ("device-hour", SECONDS_PER_HOUR),
    "input_tokens": ("million tokens", 1_000_000),
    "cached_input_tokens": ("million tokens", 1_000_000),
    "output_tokens": ("million tokens", 1_000_000),
}


class Line(ApiModel):
    """One meter of one workload. ``quantity`` is in the smallest unit (milli-core-seconds, byte-seconds,
    device-seconds, tokens), of which ``divisor`` make one ``unit``; ``rows`` are ledger ids as ``3-5,9``."""

    workload_kind: str
    workload_name: str
    workload_uid: str
    project: str
    meter: Meter
    model: str = Field("", description="Of the devices, or the model that the tokens were of.")
    fake: bool = False
    quantity: int
    divisor: int
    unit: str
    unit_price_micro: int
    amount_micro: int
    seconds: int = Field(0, description="Billed seconds, over all replicas.")
    formula: str
    rows: str


class Invoice(ApiModel):
    """What ``[start, end)`` cost. ``fake`` says that some of it ran on hosts that are not there."""

    start: int
    end: int
    currency: str
    lines: list[Line]
    total_micro: int
    fake: bool = False
    fake_micro: int = Field(0, description="The part of the total that ran on fake hosts.")
    running: int = Field(0, description="Claims that were still open at the end, billed to that instant.")


class _Slot(NamedTuple):
    """What a line is of; sorts in the order of the invoice."""

    kind: str
    name: str
    uid: str
    project: str
    fake: bool
    meter: int
    model: str


@dataclass(slots=True)
class _Sum:
    quantity: int = 0
    seconds: int = 0
    rows: set[int] = field(default_factory=set)


def derive(entries: Iterable[LedgerEntry], plan: Plan, *, start: int, end: int) -> Invoice:
    """Price what happened in ``[start, end)``, epoch seconds. An interval that is still open is billed to ``end``.

    ``entries`` must reach back to the open row of each claim that was alive in the time, and hold later corrections,
    also those of after ``end``; all else that came after it is left out here.
    """
    rows = effective(entries)
    sums: dict[_Slot, _Sum] = {}
    for segment in segments(rows, start=start, end=end):
        if segment.state in plan.billed_states:
            _add_segment(sums, segment)
    for row in rows:
        if row.kind == "tokens" and start <= row.at < end:
            _add_tokens(sums, row)
    lines = [_line(slot, sums[slot], plan=plan) for slot in sorted(sums) if sums[slot].quantity]
    return Invoice(
        start=start,
        end=end,
        currency=plan.currency,
        lines=lines,
        total_micro=sum(line.amount_micro for line in lines),
        fake=any(line.fake for line in lines),
        fake_micro=sum(line.amount_micro for line in lines if line.fake),
        running=_open_claims(rows, end),
    )


def export(entries: Iterable[LedgerEntry], plan: Plan, *, start: int, end: int) -> dict[str, Any]:
    """All that a second implementation needs to come to the same total, as JSON values."""
    return {
        "start": start,
        "end": end,
        "pricePlan": plan.model_dump(mode="json", by_alias=True, include=set(Plan.model_fields)),
        "rows": [entry.dump() for entry in sorted(entries, key=lambda e: e.id)],
    }


def half_up(numerator: int, denominator: int) -> int:
    """The nearest whole number; exactly half goes up. Neither argument is negative."""
    return (2 * numerator + denominator) // (2 * denominator)


def _slot(row: LedgerEntry, meter: Meter, *, model: str) -> _Slot:
    return _Slot(
        row.workload_kind, row.workload_name, row.workload_uid, row.project, row.fake, METERS.index(meter), model
    )


def _add(sums: dict[_Slot, _Sum], slot: _Slot, *, quantity: int, seconds: int = 0, rows: Iterable[int]) -> None:
    total = sums.setdefault(slot, _Sum())
    total.quantity += quantity
    total.seconds += seconds
    total.rows.update(rows)


def _add_segment(sums: dict[_Slot, _Sum], segment: Segment) -> None:
    claim, seconds = segment.claim, segment.seconds
    quantities: tuple[tuple[Meter, int, str], ...] = (
        ("cores", claim.milli_cores, ""),
        ("memory", claim.memory_bytes, ""),
        ("devices", claim.devices, claim.device_model),
    )
    for meter, amount, model in quantities:
        _add(sums, _slot(claim, meter, model=model), quantity=amount * seconds, seconds=seconds, rows=segment.rows)


def _add_tokens(sums: dict[_Slot, _Sum], row: LedgerEntry) -> None:
    quantities: tuple[tuple[Meter, int], ...] = (
        ("input_tokens", max(0, row.input_tokens - row.cached_input_tokens)),
        ("cached_input_tokens", row.cached_input_tokens),
        ("output_tokens", row.output_tokens),
    )
    for meter, amount in quantities:
        _add(sums, _slot(row, meter, model=row.model), quantity=amount, rows=(row.id,))


def _price(rates: Rates, slot: _Slot) -> int:
    prices: dict[Meter, int] = {
        "cores": rates.core_hour,
        "memory": rates.memory_gib_hour,
        "devices": rates.device(slot.model),
        "input_tokens": rates.million_input_tokens,
        "cached_input_tokens": rates.million_cached_input_tokens,
        "output_tokens": rates.million_output_tokens,
    }
    return prices[METERS[slot.meter]]


def _line(slot: _Slot, total: _Sum, *, plan: Plan) -> Line:
    meter = METERS[slot.meter]
    unit, divisor = _UNITS[meter]
    price = _price(plan.rates, slot)
    amount = half_up(total.quantity * price, divisor)
    return Line(
        workload_kind=slot.kind,
        workload_name=slot.name,
        workload_uid=slot.uid,
        project=slot.project,
        meter=meter,
        model=slot.model,
        fake=slot.fake,
        quantity=total.quantity,
        divisor=divisor,
        unit=unit,
        unit_price_micro=price,
        amount_micro=amount,
        seconds=total.seconds,
        formula=_formula(meter, total, price=price, amount=amount, currency=plan.currency),
        rows=_ranges(total.rows),
    )


def _formula(meter: Meter, total: _Sum, *, price: int, amount: int, currency: str) -> str:
    """``2 cores × 3,600 s = 2 core-hours × EUR 0.04 per core-hour = EUR 0.08``, with what the meter counts."""
    unit, divisor = _UNITS[meter]
    cost = f"× {show_price(price, currency)} per {unit} = {show_price(amount, currency)}"
    if not total.seconds:
        return f"{total.quantity:,} tokens {cost}"
    per_second = total.quantity * SECONDS_PER_HOUR
    held = _number(per_second, total.seconds * divisor)
    noun = {"cores": "core", "memory": "GiB", "devices": "device"}[meter]
    noun += "" if held == "1" or meter == "memory" else "s"
    return f"{held} {noun} × {total.seconds:,} s = {_number(total.quantity, divisor)} {unit}s {cost}"


def _number(numerator: int, denominator: int) -> str:
    """A quotient with at most six decimals, for people."""
    text = f"{Decimal(numerator) / Decimal(denominator):,.6f}"
    return text.rstrip("0").rstrip(".")


def _ranges(ids: Iterable[int]) -> str:
    """``{3, 4, 5, 9}`` → ``3-5,9``."""
    ordered = sorted(ids)
    starts = [n for n, before in zip(ordered, chain([None], ordered), strict=False) if before != n - 1]
    ends = [n for n, after in zip(ordered, chain(ordered[1:], [None]), strict=False) if after != n + 1]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def _open_claims(rows: Sequence[LedgerEntry], end: int) -> int:
    opened = {row.claim_uid for row in rows if row.kind == "open" and row.at < end}
    return len(opened - {row.claim_uid for row in rows if row.kind == "close" and row.at < end})
