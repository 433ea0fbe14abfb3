"""The invoice: ledger rows and a plan in, priced lines out. Integer arithmetic from end to end.

A line is one meter of one workload. Its amount is ``quantity × unit_price_micro / divisor``, rounded once, half up, to
a whole micro-unit; the total is the sum of the lines. What ran on fake hosts stands in lines of its own that say so.

An account is made row by row (`Account`), so that its memory is that of its lines and of the claims that go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from pydantic import Field

from bessemer.core.money import Prices
from bessemer.core.resource import ApiModel
from bessemer.core.units import GIB, SECONDS_PER_HOUR, show_price
from bessemer.core.values import LedgerEntry
from bessemer.metering.plan import Plan, Rates
from bessemer.metering.rows import Claims, Corrections, Segment, in_order

Meter = Literal["cores", "memory", "devices", "input_tokens", "cached_input_tokens", "output_tokens"]
METERS: tuple[Meter, ...] = ("cores", "memory", "devices", "input_tokens", "cached_input_tokens", "output_tokens")

RANGES_MAX = 1000
"""Of rows that a line names."""

_UNITS: dict[Meter, tuple[str, int]] = {
    "cores": ("core-hour", 1000 * SECONDS_PER_HOUR),
    "memory": ("GiB-hour", GIB * SECONDS_PER_HOUR),
    "devices": ("device-hour", 1000 * SECONDS_PER_HOUR),
    "input_tokens": ("million tokens", 1_000_000),
    "cached_input_tokens": ("million tokens", 1_000_000),
    "output_tokens": ("million tokens", 1_000_000),
}


class Line(ApiModel):
    """One meter of one workload. ``quantity`` is in the smallest unit (milli-core-seconds, byte-seconds,
    milli-device-seconds, tokens), of which ``divisor`` make one ``unit``; ``rows`` are ledger ids as ``3-5,9``, of a
    line with very many rows only some: then ``rows_cut``."""

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
    rows_cut: bool = Field(False, description="Whether there are rows that are not named, being too many.")


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


class Ids:
    """Ids of ledger rows as ranges; of more than `RANGES_MAX` apart from each other, not all."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []
        self._fresh: set[int] = set()
        self.cut = False

    def add(self, ids: Iterable[int]) -> None:
        """Take some; one that is known is harmless."""
        self._fresh.update(ids)
        if len(self._fresh) >= RANGES_MAX:
            self._fold()

    def __str__(self) -> str:
        """``{3, 4, 5, 9}`` → ``3-5,9``."""
        self._fold()
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self._ranges)

    def _fold(self) -> None:
        folded: list[tuple[int, int]] = []
        for first, last in sorted([*self._ranges, *((number, number) for number in self._fresh)]):
            if folded and first <= folded[-1][1] + 1:
                folded[-1] = (folded[-1][0], max(folded[-1][1], last))
            else:
                folded.append((first, last))
        self._fresh.clear()
        self.cut = self.cut or len(folded) > RANGES_MAX
        self._ranges = folded[:RANGES_MAX]


@dataclass(slots=True)
class _Sum:
    quantity: int = 0
    seconds: int = 0
    rows: Ids = field(default_factory=Ids)


class Account:
    """Prices what happened in ``[start, end)``, epoch seconds, from rows that come one by one.

    Corrections come first (those of after ``end`` too), then all else, of each claim from its open row on; what else
    came after ``end`` is left out here. An interval that is still open is billed to ``end``.
    """

    def __init__(self, plan: Plan, *, start: int, end: int) -> None:
        self._plan = plan
        self._start = start
        self._end = end
        self._corrections = Corrections()
        self._claims = Claims(start, end)
        self._sums: dict[_Slot, _Sum] = {}

    def take(self, entry: LedgerEntry) -> None:
        """Take one row."""
        if entry.kind == "correction":
            self._corrections.note(entry)
            return
        row = self._corrections.applied(entry)
        if row.kind != "tokens":
            segment = self._claims.take(row)
            if segment is not None:
                self._held(segment)
        elif self._start <= row.at < self._end:
            _add_tokens(self._sums, row, model=self._plan.shown(row.model))

    def invoice(self) -> Invoice:
        """What it comes to. Nothing is taken afterwards."""
        for segment in self._claims.rest():
            self._held(segment)
        prices = Prices.read(self._plan.dump())
        lines = [_line(slot, self._sums[slot], plan=self._plan, prices=prices) for slot in sorted(self._sums)]
        lines = [line for line in lines if line.quantity]
        return Invoice(
            start=self._start,
            end=self._end,
            currency=self._plan.currency,
            lines=lines,
            total_micro=sum(line.amount_micro for line in lines),
            fake=any(line.fake for line in lines),
            fake_micro=sum(line.amount_micro for line in lines if line.fake),
            running=self._claims.running,
        )

    def ahead(self, seconds: int, *, until: int) -> int:
        """Micro-units that the claims which go on cost behind the end, were they billed ``until`` then, or until each
        is so many ``seconds`` old."""
        prices = Prices.read(self._plan.dump())
        return sum(
            prices.hours(
                left,
                milli_cores=claim.milli_cores,
                memory_bytes=claim.memory_bytes,
                milli_devices=claim.milli_devices,
                model=claim.device_model,
            )
            for claim in self._claims.standing()
            if (left := max(claim.at + seconds, until) - self._end) > 0
        )

    def _held(self, segment: Segment) -> None:
        if segment.state in self._plan.billed_states:
            _add_segment(self._sums, segment)


def derive(entries: Iterable[LedgerEntry], plan: Plan, *, start: int, end: int) -> Invoice:
    """The invoice of rows that are at hand, in any order. They must reach back to the open row of each claim that was
    alive in the time, and hold later corrections."""
    account = Account(plan, start=start, end=end)
    for entry in in_order(entries):
        account.take(entry)
    return account.invoice()


def export(entries: Iterable[LedgerEntry], plan: Plan, *, start: int, end: int) -> dict[str, Any]:
    """All that a second implementation needs to come to the same total, as JSON values."""
    rows = [entry.dump() for entry in sorted(entries, key=lambda e: e.id)]
    return {**terms(plan, start=start, end=end), "rows": rows}


def terms(plan: Plan, *, start: int, end: int) -> dict[str, Any]:
    """What an export says besides its rows."""
    prices = plan.model_dump(mode="json", by_alias=True, include=set(Plan.model_fields))
    return {"start": start, "end": end, "pricePlan": prices}


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
    total.rows.add(rows)


def _add_segment(sums: dict[_Slot, _Sum], segment: Segment) -> None:
    claim, seconds = segment.claim, segment.seconds
    quantities: tuple[tuple[Meter, int, str], ...] = (
        ("cores", claim.milli_cores, ""),
        ("memory", claim.memory_bytes, ""),
        ("devices", claim.milli_devices, claim.device_model),
    )
    for meter, amount, model in quantities:
        _add(sums, _slot(claim, meter, model=model), quantity=amount * seconds, seconds=seconds, rows=segment.rows)


def _add_tokens(sums: dict[_Slot, _Sum], row: LedgerEntry, *, model: str) -> None:
    quantities: tuple[tuple[Meter, int], ...] = (
        ("input_tokens", max(0, row.input_tokens - row.cached_input_tokens)),
        ("cached_input_tokens", row.cached_input_tokens),
        ("output_tokens", row.output_tokens),
    )
    for meter, amount in quantities:
        _add(sums, _slot(row, meter, model=model), quantity=amount, rows=(row.id,))


def _price(rates: Rates, slot: _Slot, *, tokens: Prices) -> int:
    prices: dict[Meter, int] = {
        "cores": rates.core_hour,
        "memory": rates.memory_gib_hour,
        "devices": rates.device(slot.model),
        "input_tokens": tokens.input,
        "cached_input_tokens": tokens.cached,
        "output_tokens": tokens.output,
    }
    return prices[METERS[slot.meter]]


def _line(slot: _Slot, total: _Sum, *, plan: Plan, prices: Prices) -> Line:
    meter = METERS[slot.meter]
    unit, divisor = _UNITS[meter]
    price = _price(plan.rates, slot, tokens=prices.of(slot.model))
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
        rows=str(total.rows),
        rows_cut=total.rows.cut,
    )


def _formula(meter: Meter, total: _Sum, *, price: int, amount: int, currency: str) -> str:
    """``2 cores × 1 h 30 min = 3 core-hours × EUR 0.04 per core-hour = EUR 0.12``, with what the meter counts."""
    unit, divisor = _UNITS[meter]
    cost = f"× {show_price(price, currency)} per {unit} = {show_price(amount, currency)}"
    if not total.seconds:
        return f"{total.quantity:,} tokens {cost}"
    per_second = total.quantity * SECONDS_PER_HOUR
    held = _number(per_second, total.seconds * divisor)
    noun = {"cores": "core", "memory": "GiB", "devices": "device"}[meter]
    noun += "" if held == "1" or meter == "memory" else "s"
    hours = _number(total.quantity, divisor)
    return f"{held} {noun} × {_time(total.seconds)} = {hours} {unit}{'s' * (hours != '1')} {cost}"


def _time(seconds: int) -> str:
    """``2 min 27 s``: to the second, for people."""
    minutes, rest = divmod(seconds, 60)
    parts = zip((*divmod(minutes, 60), rest), ("h", "min", "s"), strict=True)
    return " ".join(f"{count:,} {unit}" for count, unit in parts if count)


def _number(numerator: int, denominator: int) -> str:
    """A quotient with at most six decimals, for people."""
    text = f"{Decimal(numerator) / Decimal(denominator):,.6f}"
    return text.rstrip("0").rstrip(".")
