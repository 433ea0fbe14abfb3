"""Invoices: what each project owes in a month so far, and one project's, line by line down to its ledger rows.

An invoice is derived at the instant it is asked for; the page says which, and that anybody can derive it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Any

from bessemer.core.clock import rfc3339
from bessemer.core.values import LedgerEntry
from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import TenantFact
from bessemer.portal.live import Page
from bessemer.portal.pages.shell import Here, page, tenant

NAMES: Mapping[str, str] = {
    "cores": "Cores",
    "memory": "Memory",
    "devices": "Devices",
    "input_tokens": "Tokens in",
    "cached_input_tokens": "Tokens in, cached",
    "output_tokens": "Tokens out",
}
UNITS: Mapping[str, str] = {
    "core-hour": "core-h",
    "GiB-hour": "GiB-h",
    "device-hour": "device-h",
    "million tokens": "million",
}


@dataclass(frozen=True, slots=True)
class Month:
    """A month of the calendar, UTC: [start, end) in epoch seconds; ``end`` is not after now."""

    name: str
    start: int
    end: int
    before: str
    after: str
    open: bool

    @property
    def since(self) -> str:
        return rfc3339(self.start)

    @property
    def until(self) -> str:
        return rfc3339(self.end)


def month_of(text: str, now: float) -> Month:
    """``2026-11``, or the present month for anything else, and nothing of the future."""
    today = datetime.fromtimestamp(now, UTC)
    try:
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        first = today
    first = min(first, today).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    previous = first.replace(year=first.year - (first.month == 1), month=(first.month - 2) % 12 + 1)
    is_open = following.timestamp() > now
    return Month(
        name=first.strftime("%B %Y"),
        start=int(first.timestamp()),
        end=int(min(following.timestamp(), now)),
        before=previous.strftime("%Y-%m"),
        after="" if is_open else following.strftime("%Y-%m"),
        open=is_open,
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A line as the sheet shows it."""

    id: str
    name: str
    note: str
    quantity: str
    unit: str
    price: str
    amount: str
    formula: str
    rows: str
    fake: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The lines of one workload."""

    name: str
    amount: str
    fake: bool
    lines: tuple[Line, ...]


def build(desk: Desk, project: str, *, month: Month, bill: Mapping[str, Any]) -> Page:
    """One project's invoice, from the api's answer."""
    currency = bill["currency"]
    here = Here(
        section="invoice",
        title=f"Invoice, {words.place(project)}",
        scope=project,
        crumbs=((words.place(project), ""), ("Invoices", "/in/all/invoice"), (month.name, "")),
        code=code.invoice_code(project, since=month.since, until=month.until),
        request=f"{code.path('projects', project)}/invoice?from={month.start}&to={month.end}",
    )
    owner = desk.find(TenantFact, tenant(project))
    fake, total = bill.get("fakeMicro", 0), bill["totalMicro"]
    # One number of digits on the whole sheet, so that the eye can add.
    shown = partial(words.money, currency=currency, digits=2 if total >= 1_000_000 else 6)
    return page(
        desk,
        here,
        template="invoice.html",
        lists={},
        month=month,
        project=project,
        groups=groups(bill["lines"], shown),
        total=shown(total),
        fake=shown(fake) if bill.get("fake") else "",
        real=shown(total - fake),
        running=bill.get("running", 0),
        billed_to=(owner.display or owner.name) if owner else tenant(project),
        plan=owner.plan if owner else "",
        currency=currency,
        check=code.check_command(project, since=month.since, until=month.until),
    )


def groups(lines: Sequence[Mapping[str, Any]], shown: Callable[[int], str]) -> list[Group]:
    """Lines gathered by the workload they are of; ``shown`` writes an amount."""
    found = []
    numbered = list(enumerate(lines))
    for (kind, name, _, fake), members in groupby(numbered, key=lambda item: _workload(item[1])):
        here = list(members)
        amount = sum(line["amountMicro"] for _, line in here)
        drawn = tuple(_line(number, line, shown=shown) for number, line in here)
        found.append(Group(f"{kind} {name}", shown(amount), fake, drawn))
    return found


def _workload(line: Mapping[str, Any]) -> tuple[str, str, str, bool]:
    return line["workloadKind"], line["workloadName"], line["workloadUid"], bool(line.get("fake"))


def _line(number: int, line: Mapping[str, Any], *, shown: Callable[[int], str]) -> Line:
    name = NAMES.get(line["meter"], line["meter"])
    model = line.get("model", "")
    if line["meter"] == "devices" and model:
        name = words.device(model)
    elif model:
        name = f"{name}, {model}"
    seconds = line.get("seconds", 0)
    quantity, unit = quantity_of(line)
    per = " / million" if unit == "tokens" else ""
    return Line(
        id=f"line-{number}",
        name=name,
        note=f"held for {words.duration(seconds)}" if seconds else "",
        quantity=quantity,
        unit=unit,
        price=f"{line['unitPriceMicro'] / 1_000_000:,.4f}{per}",
        amount=shown(line["amountMicro"]),
        formula=line["formula"],
        rows=line["rows"],
        fake=bool(line.get("fake")),
    )


def quantity_of(line: Mapping[str, Any]) -> tuple[str, str]:
    """A quantity and its unit: tokens one by one below ten million."""
    amount, unit = line["quantity"] / line["divisor"], UNITS.get(line["unit"], line["unit"])
    if unit == "million" and amount < 10:
        return f"{line['quantity']:,}", "tokens"
    return f"{amount:,.4f}" if amount < 100 else f"{amount:,.2f}", unit


def build_list(desk: Desk, *, month: Month, bills: Sequence[tuple[str, Mapping[str, Any]]]) -> Page:
    """Every project that one may see, with its total."""
    rows = [
        (
            project,
            words.money(bill["totalMicro"], bill["currency"]),
            words.money(bill.get("fakeMicro", 0), bill["currency"]) if bill.get("fake") else "",
            len(bill["lines"]),
            bill.get("running", 0),
        )
        for project, bill in bills
    ]
    here = Here(
        section="invoice",
        title="Invoices",
        crumbs=(("Everything", ""), ("Invoices", "")),
        code=(("CLI", "\n".join(f"bessemer invoice -n {project}" for project, _ in bills) or "bessemer get projects"),),
        request=code.path("projects", "NAME") + "/invoice",
    )
    return page(desk, here, template="invoices.html", lists={}, month=month, rows=rows)


# --- the rows of a line -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A ledger row as a line's drill shows it."""

    id: int
    what: str
    claim: str
    held: str
    at: str


ROWS_SHOWN = 100


def in_ranges(text: str) -> set[int]:
    """``3-5,9`` → {3, 4, 5, 9}. Raises ValueError for anything else, and for more than 100,000 rows."""
    found: set[int] = set()
    for part in text.split(","):
        low, _, high = part.partition("-")
        first, last = int(low), int(high or low)
        if last - first > 100_000 or len(found) > 100_000:
            raise ValueError("too many rows")
        found.update(range(first, last + 1))
    return found


def ledger_rows(entries: Sequence[LedgerEntry], wanted: set[int]) -> tuple[list[LedgerRow], int]:
    """The rows of a line, and how many more there are than are shown."""
    chosen = [entry for entry in entries if entry.id in wanted]
    return [_ledger_row(entry) for entry in chosen[:ROWS_SHOWN]], max(0, len(chosen) - ROWS_SHOWN)


def cores_held(milli: int) -> str:
    """``1 core``, ``2.5 cores``."""
    return f"{words.cores(milli)} core" + ("" if milli == 1000 else "s")


def _ledger_row(entry: LedgerEntry) -> LedgerRow:
    if entry.kind == "tokens":
        held = f"{entry.input_tokens:,} in ({entry.cached_input_tokens:,} cached), {entry.output_tokens:,} out"
        return LedgerRow(entry.id, "tokens", entry.api_key, held, words.utc(entry.at))
    parts = [cores_held(entry.milli_cores), words.gib(entry.memory_bytes)]
    if entry.devices:
        parts.insert(0, f"{entry.devices} × {words.device(entry.device_model)}")
    what = f"{entry.kind}: {entry.state}" if entry.state else entry.kind
    return LedgerRow(entry.id, what, entry.host, ", ".join(parts), words.utc(entry.at))
