"""Invoices: what each project owes in a month so far, and one project's, line by line down to its ledger rows.

An invoice is derived at an instant; the page says which, that anybody can derive it again, and while the month runs it
asks anew about once a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bessemer.core.clock import rfc3339
from bessemer.core.resource import tenant_of
from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import TenantFact
from bessemer.portal.live import Page, Part
from bessemer.portal.pages import sheet
from bessemer.portal.pages.shell import Here, page, within
from bessemer.portal.parts import Cell, Head, Row, Text

_FIRST = datetime(1970, 2, 1, tzinfo=UTC)
"""Nothing was before it: times are seconds since 1970, wherever the reader lives."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month of the calendar, UTC: [start, end) in epoch seconds; ``end`` is not after now. ``before`` and ``after``
    are the keys of its neighbours, "" where there is none."""

    name: str
    start: int
    end: int
    key: str
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
    """``2026-11``, or the present month for anything else; nothing of the future, nor before February 1970."""
    today = datetime.fromtimestamp(now, UTC)
    try:
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        first = today
    first = max(_FIRST, min(first, today)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    previous = first.replace(year=first.year - (first.month == 1), month=(first.month - 2) % 12 + 1)
    is_open = following.timestamp() > now
    return Month(
        name=first.strftime("%B %Y"),
        start=int(first.timestamp()),
        end=int(min(following.timestamp(), now)),
        key=first.strftime("%Y-%m"),
        before=previous.strftime("%Y-%m") if first > _FIRST else "",
        after="" if is_open else following.strftime("%Y-%m"),
        open=is_open,
    )


@dataclass(slots=True)
class Held:
    """What an open page was last told of the ledger: no watch tells of it, so it is asked for again and again."""

    month: Month
    bills: Sequence[tuple[str, Mapping[str, Any]]]


def build(desk: Desk, project: str, *, held: Held) -> Page:
    """One project's invoice, from the api's answer. Raises NotFound once the project is gone."""
    within(desk, project)
    month, (_, bill) = held.month, held.bills[0]
    here = Here(
        section="invoice",
        title=f"Invoice, {words.place(project)}",
        scope=project,
        crumbs=((words.place(project), ""), ("Invoices", "/in/all/invoice"), (month.name, "")),
        code=code.invoice_code(project, since=month.since, until=month.until),
        request=f"{code.path('projects', project)}/invoice?from={month.start}&to={month.end}",
    )
    owner = desk.find(TenantFact, tenant_of(project))
    rows = f"/in/{project}/invoice/rows?from={month.start}" + ("" if month.open else f"&to={month.end}")
    lists: dict[str, Sequence[Part]] = {
        "bill-state": [Head("bill-state-head", (_state(month),))],
        "bill-sub": [Text("bill-sub-text", told(month, bill.get("running", 0)))],
        "bill-until": [Text("bill-until-text", words.utc(month.end))],
        "check": [Text("check-text", code.check_command(project, since=month.since, until=month.until))],
        **sheet.lists(bill, month=month.name, href=rows),
    }
    return page(
        desk,
        here,
        template="invoice.html",
        lists=lists,
        month=month,
        project=project,
        billed_to=(owner.display or owner.name) if owner else tenant_of(project),
        plan=owner.plan if owner else "",
        currency=bill["currency"],
    )


def _state(month: Month) -> tuple[str, str, float | None]:
    return ("Open, so far", "waiting", None) if month.open else ("Month is over", "ok", None)


def told(month: Month, running: int) -> str:
    """What the page says of itself: until when, and that it goes on."""
    text = f"{month.name}, until {words.utc(month.end)} UTC. Derived from the ledger at that instant"
    return text + (f"; {words.some(running, 'claim')} still open, billed to it" if running else "")


def build_list(desk: Desk, *, held: Held) -> Page:
    """Every project that one may see, with its total."""
    month, bills = held.month, held.bills
    rows: list[Part] = [_bill(project, bill) for project, bill in bills]
    here = Here(
        section="invoice",
        title="Invoices",
        crumbs=(("Everything", ""), ("Invoices", "")),
        code=(("CLI", "\n".join(f"bessemer invoice -n {project}" for project, _ in bills) or "bessemer get projects"),),
        request=code.path("projects", "NAME") + "/invoice",
    )
    if not rows:
        rows.append(Row("row-none", (Cell("No project yet. An invoice is a project's.", "empty"),)))
    sub = Text("bill-sub-text", f"{month.name}, until {words.utc(month.end)} UTC")
    return page(desk, here, template="invoices.html", lists={"bill-sub": [sub], "rows": rows}, month=month)


def _bill(project: str, bill: Mapping[str, Any]) -> Row:
    fake = words.money(bill.get("fakeMicro", 0), bill["currency"]) if bill.get("fake") else "–"
    return Row(
        f"row-{project}",
        (
            Cell(words.place(project), "name", href=f"/in/{project}/invoice"),
            Cell(str(len(bill["lines"])), "num", low=True),
            Cell(str(bill.get("running", 0)), "num", low=True),
            Cell(fake, "num"),
            Cell(words.money(bill["totalMicro"], bill["currency"]), "num"),
        ),
    )
