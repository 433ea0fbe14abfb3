"""simulate fleet, history, describe, export: a described fleet under a load, or under what once was; and the files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli.connection import run
from bessemer.cli.money import TimeOption, window
from bessemer.cli.output import DOCUMENTS, OutputOption, document
from bessemer.cli.plot import case_name, require_place, write
from bessemer.cli.progress import bar
from bessemer.cli.render import columns, width
from bessemer.cli.verbs import Document, FleetOptions, SimulateOptions, Verbs, Waits
from bessemer.core.errors import Invalid

if TYPE_CHECKING:
    from bessemer.client import Client

FleetOption = Annotated[Path, typer.Option("--fleet", help="What there is: YAML, as `describe` writes it.")]
PoliciesOption = Annotated[
    list[str] | None, typer.Option("--policy", help="Who decides; several are compared.", show_default=False)
]
MoreOption = Annotated[
    list[str] | None,
    typer.Option("--more", metavar="GROUP=N", help="Beside it, with N more hosts of a group.", show_default=False),
]
SeedsOption = Annotated[int, typer.Option(min=1, max=1000, help="How often; each has an order of hosts of its own.")]
FirstSeedOption = Annotated[int, typer.Option(min=0, max=1 << 32, help="The first; the others follow it.")]
WaitsOption = Annotated[bool, typer.Option("--wait/--lose", help="Who finds no room waits, or is lost.")]
QueueOption = Annotated[
    bool, typer.Option("--queue", help="Who waits has its turn by the product's queue, not whoever fits.")
]
MovesOption = Annotated[
    float, typer.Option(min=0.0, max=100.0, help="Moves for a hundred requests that came, to make room for others.")
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", help="Write plots to look into: a page, FILE.html.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="One object, as -o json.")]

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_ROWS, _WIDE = 6, 60
_CHANGE = re.compile(r"([^=]+)=([+-]?\d{1,6})")


def add(group: typer.Typer, verbs: Verbs) -> None:
    """Put the commands into ``simulate``."""
    _fleet(group, verbs)
    _history(group, verbs)
    group.command("describe")(describe)
    group.command("export")(export)


def _fleet(group: typer.Typer, verbs: Verbs) -> None:
    @group.command("fleet")
    def fleet(
        file: FleetOption,
        *,
        churn: Annotated[
            float, typer.Option(min=0.01, max=10.0, help="What is wanted at a time, of all devices.")
        ] = 0.95,
        hours: Annotated[float, typer.Option(min=0.1, max=100_000.0, help="For how long.")] = 24.0,
        warm_up: Annotated[float, typer.Option(min=0.0, max=100_000.0, help="Hours before anything counts.")] = 24.0,
        waits: WaitsOption = True,
        queue: QueueOption = False,
        moves_per_hundred: MovesOption = 0.0,
        more: MoreOption = None,
        policy: PoliciesOption = None,
        seeds: SeedsOption = 3,
        first_seed: FirstSeedOption = 42,
        plot: PlotOption = None,
        output: OutputOption = "table",
        as_json: JsonOption = False,
    ) -> None:
        """Let what a fleet's file says is asked for come and go at a load, and plot what becomes of it.

        Examples: `bessemer simulate fleet --fleet fleet.yaml --churn 0.95` ·
        `bessemer simulate fleet --fleet fleet.yaml --more h100=20 --policy lpg --policy fgd`
        """
        options = FleetOptions(
            fleet=file,
            policies=tuple(policy or ()),
            more=_changes(more),
            churn=churn,
            hours=hours,
            warm_up=warm_up,
            waits=_waits(waits, queue=queue),
            moves_per_hundred=moves_per_hundred,
            seeds=seeds,
            first_seed=first_seed,
        )
        replayed(verbs, options, output="json" if as_json else output, show=shown, plot=plot)


def _history(group: typer.Typer, verbs: Verbs) -> None:
    @group.command("history")
    def history(
        file: FleetOption,
        *,
        history: Annotated[Path, typer.Option("--history", help="What was: JSON lines, as `export` writes them.")],
        waits: WaitsOption = True,
        queue: QueueOption = False,
        moves_per_hundred: MovesOption = 0.0,
        more: MoreOption = None,
        policy: PoliciesOption = None,
        seeds: SeedsOption = 1,
        first_seed: FirstSeedOption = 42,
        plot: PlotOption = None,
        output: OutputOption = "table",
        as_json: JsonOption = False,
    ) -> None:
        """Let what once ran come again, over a fleet as it is or as it could be.

        Examples: `bessemer simulate history --fleet fleet.yaml --history claims.jsonl --more h100=20`
        """
        options = FleetOptions(
            fleet=file,
            history=history,
            policies=tuple(policy or ()),
            more=_changes(more),
            waits=_waits(waits, queue=queue),
            moves_per_hundred=moves_per_hundred,
            seeds=seeds,
            first_seed=first_seed,
        )
        replayed(verbs, options, output="json" if as_json else output, show=shown, plot=plot)


def describe(
    context: typer.Context,
    *,
    fakes: Annotated[
        bool, typer.Option("--fake", help="Fake hosts beside the others; where there are no others they stand anyway.")
    ] = False,
) -> None:
    """Write the hosts of this installation as a fleet's file: groups of equal ones, at list price.

    Example: `bessemer simulate describe > fleet.yaml`
    """

    async def work(client: Client) -> tuple[str, Sequence[str]]:
        from bessemer.cli.work.history import described

        return await described(client, fakes=fakes)

    text, notes = run(context, work)
    typer.echo(text)
    for note in notes:
        typer.echo(note, err=True)


def export(context: typer.Context, *, since: TimeOption = "", until: TimeOption = "") -> None:
    """Write what ran here, by the ledgers of all projects that one may read: a line of JSON per claim.

    By default of this month until now. Example: `bessemer simulate export --since 2026-01-01 > claims.jsonl`
    """
    start, end = window(since, until)

    async def work(client: Client) -> Sequence[str]:
        from bessemer.cli.work.history import lines

        return await lines(client, start=start, end=end)

    found = run(context, work)
    for line in found:
        typer.echo(line)
    typer.echo(f"{len(found)} claims.", err=True)


def _waits(waits: bool, *, queue: bool) -> Waits:
    if queue and not waits:
        raise Invalid("--queue and --lose: who is lost waits in no queue; leave one out")
    return "queued" if queue else "passing" if waits else "lost"


def _changes(words: Sequence[str] | None) -> dict[str, int]:
    found = {}
    for word in words or ():
        match = _CHANGE.fullmatch(word)
        if match is None:
            raise Invalid(f"--more {word}: write GROUP=N, as h100=20")
        found[match[1]] = int(match[2])
    return found


def replayed(
    verbs: Verbs, options: SimulateOptions, *, output: str, show: Callable[..., str], plot: Path | None = None
) -> None:
    """Replay, with a bar where somebody looks, and print what it came to: ``show(found, within=columns)`` for a
    person. ``plot`` gets a page of the same."""
    if plot is not None:
        require_place(plot)
    with bar() as told:
        found = verbs.simulate(options, told)
    if output in DOCUMENTS:
        typer.echo(document(found, output))
    else:
        typer.echo(show(found, within=0 if output == "wide" else width()))
    if plot is not None:
        # Last: where no page can be written, what took an hour to find is told all the same.
        write(plot, found, text=show(found))
        typer.echo(f"Plotted in {plot}.", err=True)


# --- tables and plots -------------------------------------------------------------------------------------------------


def shown(found: Document, *, within: int = 0) -> str:
    """The cases beside each other, then each over time."""
    cases, currency = found["cases"], found["currency"]
    source = (
        f"{found['claims']:,} claims of {found['history']}" if "history" in found else f"a load of {found['load']:g}"
    )
    seeds = f"{found['seeds']} seed{'s' if found['seeds'] != 1 else ''} from {found['first_seed']}"
    parts = [f"{source}, {found['hours']:g} hours, {seeds}", _table(cases, currency, within=within)]
    parts += [_blocked(cases, within=within)] if any(one["blocked"] for one in cases) else []
    parts += [text] if (text := _beyond(cases)) else []
    return "\n\n".join([*parts, *map(_plotted, cases)])


def _table(cases: Sequence[Mapping[str, Any]], currency: str, *, within: int) -> str:
    """A line per figure, a column per case, as many cases beside each other as there is room for."""
    wide = max(_WIDEST, *(len(case_name(one)) for one in cases)) + 2
    beside = max(1, (within - _LABEL) // wide) if within else len(cases)
    parts = []
    for start in range(0, len(cases), beside):
        some = cases[start : start + beside]
        rows = [[label, *(shown(one) for one in some)] for label, shown in _lines(currency)]
        parts.append(columns(["", *map(case_name, some)], rows, within=within))
    return "\n\n".join(parts)


_LABEL, _WIDEST = 18, 16
"""Columns of a figure's name, and of a figure."""


def _lines(currency: str) -> Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]]:
    """Each figure's name, and how it is written of a case."""

    def spread(name: str, unit: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda one: f"{one[name]:,.2f} {unit}"

    def waited(name: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda one: f"{one['wait_hours'][name]:,.2f} h"

    def began(figure: Callable[[Mapping[str, Any]], str]) -> Callable[[Mapping[str, Any]], str]:
        """Of those who began, if there are any."""
        return lambda one: figure(one) if one["began"] else "-"

    def money(name: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda one: f"{currency} {one[name]:,.2f}"

    return [
        ("hosts", lambda one: f"{one['hosts']:,}"),
        ("devices", lambda one: f"{one['devices']:,}"),
        ("allocated", spread("allocation_percent", "%")),
        ("free, of no use", spread("useless_percent", "%")),
        ("came", lambda one: f"{one['came']:,}"),
        ("never began", lambda one: f"{one['came'] - one['began']:,}"),
        ("  of devices", spread("blocked_percent", "%")),
        ("waited and began", lambda one: f"{one['waited']:,} of {one['began']:,}"),
        ("  of who began", began(spread("waited_percent", "%"))),
        ("  mean of these", began(spread("mean_wait_hours", "h"))),
        ("  90 % who began", began(waited("p90"))),
        ("  99 % who began", began(waited("p99"))),
        ("  longest", began(waited("most"))),
        ("moves", lambda one: f"{one['moves']:,}"),
        ("earned an hour", money("earned_per_hour")),
        ("worth an hour", money("worth_per_hour")),
    ]


def _blocked(cases: Sequence[Mapping[str, Any]], *, within: int) -> str:
    """Who never began, by how many devices were wanted."""
    sizes = list(dict.fromkeys(row["devices"] for one in cases for row in one["blocked"]))
    words = {"cores": "cores alone", "share": "a share", "1": "1 device"}
    rows = []
    for size in sizes:
        counts = [next((row for row in one["blocked"] if row["devices"] == size), None) for one in cases]
        came = max(row["came"] for row in counts if row is not None)
        rows.append(
            [
                words.get(size, f"{size} devices"),
                f"{came:,}",
                *(f"{row['refused']:,}" if row else "-" for row in counts),
            ]
        )
    return columns(["WANTED", "CAME", *(f"NEVER: {case_name(one)}" for one in cases)], rows, within=within)


def _beyond(cases: Sequence[Mapping[str, Any]]) -> str:
    """What no host could ever hold; which hosts are meant is said where other ones could."""
    fleets = {case_name({**case, "policy": ""}).strip() or "as it is": case["beyond"] for case in cases}
    told: dict[str, list[str]] = {}
    for name, rows in fleets.items():
        for row in rows[:_BEYOND_LISTED]:
            words = f"no host could hold {row['wanted']}, were it empty: {row['why']}; {row['came']:,} came in vain"
            told.setdefault(words, []).append(name)
    some = [(words, "" if len(names) == len(fleets) else f" ({', '.join(names)})") for words, names in told.items()]
    return "\n".join(f"{words[:1].upper()}{words[1:]}{where}." for words, where in some)


_BEYOND_LISTED = 10
"""So many of each case at most."""


def _plotted(case: Mapping[str, Any]) -> str:
    series = case["series"]
    if not series["hours"]:
        return case_name(case)
    most = max(series["waiting"], default=0.0)
    lines = [f"{case_name(case)}: devices allocated, from hour {series['hours'][0]:.3g} to {series['hours'][-1]:.3g}"]
    lines += area(series["allocation_percent"], most=100.0)
    lines.append(f"  no use {spark(series['useless_percent'])} at most {max(series['useless_percent']):.1f} %")
    lines.append(f"  wait   {spark(series['waiting'])} at most {most:,.0f} requests")
    return "\n".join(lines)


def area(values: Sequence[float], *, most: float) -> list[str]:
    """An area of `_ROWS` lines, with its scale."""
    heights = [round(min(1.0, value / most) * _ROWS * 8) for value in resampled(values)]
    lines = []
    for row in reversed(range(_ROWS)):
        scale = f"{most:4.0f} %" if row == _ROWS - 1 else f"{0:4.0f} %" if row == 0 else " " * 6
        lines.append(f"  {scale} │{''.join(_EIGHTHS[min(8, max(0, height - 8 * row))] for height in heights)}")
    return lines


def spark(values: Sequence[float]) -> str:
    """One line, scaled to its largest."""
    found = resampled(values)
    most = max(found, default=0.0) or 1.0
    return "".join(_EIGHTHS[round(value / most * 8)] for value in found)


def resampled(values: Sequence[float]) -> Sequence[float]:
    """At most `_WIDE` of them, each the mean of its part."""
    if len(values) <= _WIDE:
        return values
    edges = [round(n * len(values) / _WIDE) for n in range(_WIDE + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
