"""One project's invoice as a sheet of parts: every figure is one of its own, so that what runs ticks in its cell.

Lines have names of their own, by what they are of, and not by their place: one that is open stays open when another
comes before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from bessemer.portal import words
from bessemer.portal.live import Part
from bessemer.portal.pages import drill
from bessemer.portal.parts import BillDrill, BillGroup, BillHead, BillLine, Empty, Figure, Text

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

Bill = Mapping[str, Any]
Shown = Callable[[int], str]
Lists = dict[str, Sequence[Part]]


def lists(bill: Bill, *, month: str, href: str) -> Lists:
    """The lists of a sheet; ``href`` is where a line's ledger rows are had, by ``&of=`` (a workload) and ``&rows=``."""
    total = bill["totalMicro"]
    # One number of digits on the whole sheet, so that the eye can add.
    shown = partial(words.money, currency=bill["currency"], digits=2 if total >= 1_000_000 else 6)
    fake, real = shown(bill.get("fakeMicro", 0)), shown(total - bill.get("fakeMicro", 0))
    is_fake = bool(bill.get("fake"))
    found: Lists = {
        "bill-total": [Text("bill-total-text", shown(total))],
        "bill-fake": [Text("bill-fake-text", f"{fake} of this ran on fake hosts and is owed by nobody")] * is_fake,
        "bill-real": [Text("bill-real-text", f"of it real {real}")] * is_fake,
    }
    found |= groups(bill["lines"], shown, href=href)
    empty = f"Nothing was used in {month}. A line appears with the first second that a claim is Ready."
    found["bill-none"] = [] if bill["lines"] else [Empty("bill-none-text", empty)]
    found["sum-total"] = [Text("sum-total-text", shown(total))]
    return found


def groups(lines: Sequence[Bill], shown: Shown, *, href: str) -> Lists:
    """Lines gathered by the workload they are of: the list of groups, then each group's own and its figures'."""
    outer: list[Part] = []
    found: Lists = {"groups": outer}
    taken: set[str] = set()
    for (kind, name, uid, fake), members in groupby(lines, key=_workload):
        here = list(members)
        group = _unique(f"group-{short(uid, str(fake))}", taken)
        outer.append(BillGroup(group))
        rows: list[Part] = [BillHead(f"{group}-head", f"{kind} {name}", fake)]
        found[group] = rows
        found[f"{group}-sum"] = [Text(f"{group}-sum-text", shown(sum(line["amountMicro"] for line in here)))]
        for line in here:
            part = _unique(f"line-{short(uid, str(fake), *_identity(line))}", taken)
            # The first rows of a line stay what they are: one that is open is not fetched again for the hundred-first.
            ids, more = drill.first_of(line["rows"])
            rows += [
                BillLine(part, line_name(line), f"{href}&of={uid}&rows={ids}", price_of(line)),
                BillDrill(f"{part}-drill"),
            ]
            found[f"{part}-more"] = [Text(f"{part}-more-text", told_of(line, more))] * bool(more)
            found |= dict(_figures(part, line, shown=shown))
    return found


def _figures(part: str, line: Bill, *, shown: Shown) -> Iterator[tuple[str, Sequence[Part]]]:
    """What ticks of a line: on a phone quantity and price stand in its first cell."""
    quantity, unit = quantity_of(line)
    seconds = line.get("seconds", 0)
    held = f"held for {words.duration(seconds)}" if seconds else ""
    yield f"{part}-held", [Text(f"{part}-held-text", held)] * bool(held)
    yield f"{part}-low", [Text(f"{part}-low-text", f"{quantity} {unit} × {price_of(line)}")]
    yield f"{part}-quantity", [Figure(f"{part}-quantity-figure", quantity, unit)]
    yield f"{part}-amount", [Text(f"{part}-amount-text", shown(line["amountMicro"]))]
    yield f"{part}-formula", [Text(f"{part}-formula-text", line["formula"])]


def told_of(line: Bill, more: int) -> str:
    """``And 1,200 more: bessemer invoice …``."""
    least = "at least " if line.get("rowsCut") else ""
    return f"And {least}{more:,} more: bessemer invoice -n {line['project']} --export rows.json"


def _workload(line: Bill) -> tuple[str, str, str, bool]:
    return line["workloadKind"], line["workloadName"], line["workloadUid"], bool(line.get("fake"))


def _identity(line: Bill) -> tuple[str, ...]:
    return line["meter"], line.get("model", ""), str(line["unitPriceMicro"])


def short(*words_: str) -> str:
    """A name for an element, from what it is of."""
    return hashlib.blake2s("/".join(words_).encode(), digest_size=6).hexdigest()


def _unique(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "x"
    taken.add(name)
    return name


def line_name(line: Bill) -> str:
    """``Cores``, ``H100 80GB``, ``Tokens out, smollm2-135m``."""
    name, model = NAMES.get(line["meter"], line["meter"]), line.get("model", "")
    if line["meter"] == "devices" and model:
        return words.device(model)
    return f"{name}, {model}" if model else name


def price_of(line: Bill) -> str:
    """The price of one unit, in units of the currency."""
    per = " / million" if quantity_of(line)[1] == "tokens" else ""
    return f"{line['unitPriceMicro'] / 1_000_000:,.4f}{per}"


def quantity_of(line: Bill) -> tuple[str, str]:
    """A quantity and its unit: tokens one by one below ten million."""
    amount, unit = line["quantity"] / line["divisor"], UNITS.get(line["unit"], line["unit"])
    if unit == "million" and amount < 10:
        return f"{line['quantity']:,}", "tokens"
    return f"{amount:,.4f}" if amount < 100 else f"{amount:,.2f}", unit
