"""invoice: what it cost, and why that much."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli import render
from bessemer.cli.connection import ProjectOption, run
from bessemer.cli.output import OutputOption, shown
from bessemer.core.errors import Invalid
from bessemer.core.units import show_money

if TYPE_CHECKING:
    from bessemer.client import Client

TimeOption = Annotated[
    str, typer.Option(help="A day or time, as 2026-01-31 or 2026-01-31T08:00:00Z.", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.command("invoice")(invoice)


def invoice(
    context: typer.Context,
    project: ProjectOption = "",
    *,
    since: TimeOption = "",
    until: TimeOption = "",
    output: OutputOption = "table",
    export: Annotated[
        Path | None, typer.Option(help="Write ledger rows and price plan as JSON, to be checked by others.")
    ] = None,
) -> None:
    """What a project owes from one instant to another; by default this month until now.

    Example: `bessemer invoice -n acme--lab --export rows.json`
    """
    if not project:
        raise Invalid("say whose: -n TENANT--PROJECT")
    start, end = window(since, until)

    async def work(client: Client) -> tuple[dict[str, Any], dict[str, Any] | None]:
        bill = await client.projects.invoice(project, start, end)
        return bill, await client.projects.ledger(project, start, end) if export else None

    bill, rows = run(context, work)
    if export is not None and rows is not None:
        export.write_text(render.as_json(rows) + "\n")
        typer.echo(f"Wrote {len(rows['rows'])} ledger rows and the price plan to {export}.", err=True)
    typer.echo(shown(bill, output, text=lambda within: invoice_text(bill, within=within)))


def invoice_text(bill: dict[str, Any], *, within: int = 0) -> str:
    """An invoice for a terminal of ``within`` columns (0: any): a line per workload and meter, with the formula that
    gives its amount; below the line where it does not fit beside it."""
    from bessemer.core.clock import rfc3339

    currency = bill["currency"]
    title = f"Invoice of {bill['project']}, {rfc3339(bill['start'])} to {rfc3339(bill['end'])}"
    fake = "FAKE HOSTS: nothing of this was real" if bill.get("fake") else ""
    beside = not within or len(title) + len(fake) + len(render.GAP) <= within
    heading = (render.GAP if beside else "\n").join(filter(None, (title, fake)))
    table = _lines(bill["lines"], currency, within=within) if bill["lines"] else "No lines."
    return f"{heading}\n\n{table}\n\nTotal: {show_money(bill['totalMicro'], currency)}"


def _lines(lines: Sequence[Mapping[str, Any]], currency: str, *, within: int) -> str:
    rows = [
        [
            f"{line['workloadKind'].lower()}/{line['workloadName']}",
            str(line["meter"]),
            str(line["formula"]),
            show_money(line["amountMicro"], currency),
            "fake" if line.get("fake") else "",
        ]
        for line in lines
    ]
    head = ["WORKLOAD", "METER", "FORMULA", "AMOUNT", ""]
    wide = render.columns(head, rows)
    if not within or max(map(len, wide.splitlines())) <= within:
        return wide
    first, *narrow = render.columns(
        [*head[:2], *head[3:]], [[*row[:2], *row[3:]] for row in rows], within=within
    ).splitlines()
    pairs = zip(narrow, rows, strict=True)
    return "\n".join([first, *(f"{line}\n{_formula(row[2], within=within)}" for line, row in pairs)])


def _formula(text: str, *, within: int) -> str:
    """``A × B`` of ``A × B = AMOUNT``, indented; where it is too long it goes on before a sign, never within a
    number."""
    found = [""]
    for piece in re.split(r" (?=[×=] )", text.rpartition(" = ")[0]):
        longer = f"{found[-1]} {piece}".strip()
        if found[-1] and len(longer) + 4 > within:
            found.append(f"  {piece}")
        else:
            found[-1] = longer
    return "\n".join(f"    {line}" for line in found)


def window(since: str, until: str) -> tuple[int, int]:
    """[since, until) in epoch seconds; by default this month (UTC) until now. Raises Invalid."""
    now = time.time()
    month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = instant(since) if since else int(month.timestamp())
    end = instant(until) if until else int(now)
    if end <= start:
        raise Invalid("--until must be after --since")
    return start, end


def instant(text: str) -> int:
    """Epoch seconds of a day or time. Raises Invalid."""
    from bessemer.core.clock import epoch

    try:
        return int(epoch(text if "T" in text else f"{text}T00:00:00Z"))
    except ValueError as error:
        raise Invalid(f"not a time: {text!r}; write 2026-01-31 or 2026-01-31T08:00:00Z") from error
