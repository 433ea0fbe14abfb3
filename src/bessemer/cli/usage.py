"""usage: how endpoints answered, by key, endpoint, member or model: how much, what it cost, how fast; and whether that
is what their engines counted."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from bessemer.cli import render
from bessemer.cli.connection import ProjectOption, run
from bessemer.cli.money import instant
from bessemer.cli.output import OutputOption, shown
from bessemer.core.errors import Invalid
from bessemer.core.units import show_money

if TYPE_CHECKING:
    from bessemer.client import Client

By = Literal["key", "endpoint", "member", "model"]
SINCE = "24h"
_AGO = re.compile(r"([1-9][0-9]{0,6})([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_BARS = "▁▂▃▄▅▆▇█"
LINES_MAX = 7
"""Of a plot: more are not told apart."""


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    group = typer.Typer(
        help="How endpoints answered: requests, tokens, cost, time to first token and between tokens.",
        rich_markup_mode=None,
    )
    group.callback(invoke_without_command=True)(usage)
    group.command("reconcile")(reconcile)
    app.add_typer(group, name="usage")


def usage(
    context: typer.Context,
    project: ProjectOption = "",
    *,
    by: Annotated[str, typer.Option(help=f"A line for each {', '.join(get_args(By))}.")] = "endpoint",
    since: Annotated[str, typer.Option(help="Since how long ago (30m, 24h, 7d), or a day or time.")] = SINCE,
    plot: Annotated[
        Path | None, typer.Option(help="Write plots over time as a page, FILE.html.", show_default=False)
    ] = None,
    output: OutputOption = "table",
) -> None:
    """How the endpoints of a project answered: how much, what it cost at the plan's present prices, and how fast.

    First tokens and paces are of streams. What is owed says `bessemer invoice`.

    Example: `bessemer usage -n acme--lab --by key --since 7d --plot week.html`
    """
    if context.invoked_subcommand is not None:
        return
    if not project:
        raise Invalid("say whose: -n TENANT--PROJECT")
    if by not in get_args(By):
        raise Invalid(f"--by {by[:63]}: one of {', '.join(get_args(By))}")
    if plot is not None:
        from bessemer.cli.plot import require_place

        require_place(plot)
    now = int(time.time())
    start = _since(since, now)
    if now <= start:
        raise Invalid(f"--since {since[:63]}: that is yet to come")

    async def work(client: Client) -> dict[str, Any]:
        return await client.projects.usage(project, since=start, until=now, by=by)

    found = run(context, work)
    if plot is not None:
        from bessemer.cli.plot import write_page

        write_page(plot, f"Usage of {project} by {by}", charts=charts_of(found), text=usage_text(found))
        typer.echo(f"Wrote plots to {plot}.", err=True)
    typer.echo(shown(found, output, text=lambda within: usage_text(found, within=within)))


def reconcile(context: typer.Context, project: ProjectOption = "", *, output: OutputOption = "table") -> None:
    """What was billed beside what the engines themselves counted, by replica. Fails where a difference is unexplained.

    What engines count is heard once a minute: of a replica that is in use, ask again a minute after.

    Example: `bessemer usage reconcile -n acme--lab`
    """
    if not project:
        raise Invalid("say whose: -n TENANT--PROJECT")
    replicas = run(context, lambda client: client.projects.reconcile(project))
    typer.echo(shown({"replicas": replicas}, output, text=lambda within: reconciled_text(replicas, within=within)))
    if any(one["state"] in WRONG for one in replicas):
        raise typer.Exit(1)


WRONG = ("unexplained", "unknown")
"""Billed, and not what an engine is known to have counted."""


def reconciled_text(replicas: Sequence[Mapping[str, Any]], *, within: int = 0) -> str:
    """A line for each replica, and what they come to together."""
    if not replicas:
        return "Nothing was billed, and nothing counted."
    rows = [
        [
            one["endpoint"],
            one["replica"][:8],
            one["host"] or "-",
            f"{one['billed']['requests']:,}",
            *_tokens(one["billed"]),
            *(_tokens(one["difference"]) if one["counted"] else ("-", "-")),
            one["state"],
            ", ".join(one["causes"]) or "-",
        ]
        for one in replicas
    ]
    head = ["ENDPOINT", "REPLICA", "HOST", "REQUESTS", "IN", "OUT", "MORE IN", "MORE OUT", "STATE", "WHY"]
    table = render.columns(head, rows, within=within, spare=["HOST"])
    states = [one["state"] for one in replicas]
    told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{table}\n\n{len(replicas)} replicas: {told}."


def _tokens(of: Mapping[str, int]) -> tuple[str, str]:
    return f"{of['inputTokens']:,}", f"{of['outputTokens']:,}"


def _since(text: str, now: int) -> int:
    ago = _AGO.fullmatch(text)
    return now - int(ago[1]) * _SECONDS[ago[2]] if ago is not None else instant(text)


def usage_text(found: Mapping[str, Any], *, within: int = 0) -> str:
    """A line for each name, the largest first, and one of all."""
    if not found["rows"]:
        return "Nothing was answered."
    rows = [_line(row["name"] or "-", row, found=found) for row in found["rows"]]
    if found["left"]:
        rows.append([f"and {found['left']} more", *[""] * (len(rows[0]) - 1)])
    if len(found["rows"]) > 1:
        rows.append(_line("in all", found["total"], found=found))
    head = [
        found["by"].upper(),
        "REQUESTS",
        "IN",
        "CACHED",
        "OUT",
        "COST",
        "FIRST P50",
        "P95",
        "NEXT",
        "P95",
        "OVER TIME",
    ]
    return render.columns(head, rows, within=within, spare=["OVER TIME", "CACHED"])


def _line(name: str, row: Mapping[str, Any], *, found: Mapping[str, Any]) -> list[str]:
    first, between = row["firstTokenMs"] or {}, row["interTokenMs"] or {}
    tokens = (f"{row[field]:,}" for field in ("requests", "inputTokens", "cachedInputTokens", "outputTokens"))
    return [
        name,
        *tokens,
        show_money(row["micro"], found["currency"]),
        show_ms(first.get("p50")),
        show_ms(first.get("p95")),
        show_ms(between.get("mean")),
        show_ms(between.get("p95")),
        _bars(row["steps"], found),
    ]


def show_ms(value: float | None) -> str:
    """``11.4 ms``, ``1.25 s``; ``-`` where nothing is known."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def _bars(steps: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> str:
    """Requests of each step, as heights."""
    counts = {step["at"]: step["requests"] for step in steps}
    most = max(counts.values(), default=0)
    heights = (counts.get(at, 0) for at in _times(found))
    return "".join(_BARS[-(-count * len(_BARS) // most) - 1] if count else " " for count in heights).rstrip()


def _times(found: Mapping[str, Any]) -> range:
    return range(found["from"], found["to"], found["step"])


def charts_of(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Over time: requests, tokens, cost, first tokens and the pace behind them, of the largest."""
    from bessemer.cli.plot import lines_of

    times, rows = list(_times(found)), found["rows"][:LINES_MAX]
    names = [row["name"] or "-" for row in rows]
    steps = [{step["at"]: step for step in row["steps"]} for row in rows]
    charts: list[Mapping[str, Any]] = []
    for title, path, unit in (
        ("Requests", ("requests",), "requests"),
        ("Tokens written", ("outputTokens",), "tokens"),
        ("Tokens read", ("inputTokens",), "tokens"),
        ("Cost, at present prices", ("micro",), found["currency"]),
        ("Until the first token, half of all", ("firstTokenMs", "p50"), "ms"),
        ("Until the first token, 95 % of all", ("firstTokenMs", "p95"), "ms"),
        ("From token to token, mean", ("interTokenMs", "mean"), "ms"),
    ):
        values = [[_value(mine.get(at), path) for at in times] for mine in steps]
        of = {"title": title, "along": "time", "time": True, "unit": unit}
        charts.append({**of, "x": times, "lines": lines_of(names, values)})
    return charts


def _value(step: Mapping[str, Any] | None, path: Sequence[str]) -> float | None:
    """None for a time that is not known where nothing was answered; of what is counted it is 0."""
    found: Any = step
    for name in path:
        found = (found or {}).get(name)
    if found is None:
        return 0 if len(path) == 1 else None
    return float(found) / 1_000_000 if path == ("micro",) else float(found)
