"""What `size` found, read: the lines through its steps, and docs/size.md."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Sequence

from _common import Figure, figure
from _page import markdown

OBJECTS, AGENTS, WATCHES = "objects", "agents", "watches"
RESIDENT, IDLE, GET = "resident", "a core's share at rest", "a neighbour's get, p99"
HOSTS = 10_000
BAR = 40
_STEP = re.compile(r"([\d,]+) (objects|agents|watches): (.+)")


def _steps_of(figures: Sequence[Figure]) -> dict[tuple[str, str], dict[int, float]]:
    """(what grows, what is measured) → how many → value."""
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in figures:
        if match := _STEP.fullmatch(row.metric):
            found[match[2], match[3]][int(match[1].replace(",", ""))] = row.value
    return found


def read_off(figures: Sequence[Figure]) -> list[Figure]:
    """The lines through the steps: what each more costs, and what 10,000 hosts would."""
    steps, found = _steps_of(figures), list[Figure]()
    for what in (OBJECTS, AGENTS, WATCHES):
        slope, _ = statistics.linear_regression(*_points(steps[what, RESIDENT]))
        found.append(figure(f"each of the {what} adds", max(slope, 0.0) * 1024, "KiB"))
    for measured, unit in ((RESIDENT, "MiB"), (IDLE, "%")):
        # The first step is of a process that has just started.
        later = {count: value for count, value in steps[AGENTS, measured].items() if count}
        slope, base = statistics.linear_regression(*_points(later))
        found.append(figure(f"{HOSTS:,} hosts, by the line: {measured}", max(base + slope * HOSTS, 0.0), unit))
    return found


def _points(by_count: dict[int, float]) -> tuple[list[int], list[float]]:
    return list(by_count), list(by_count.values())


def page(figures: Sequence[Figure], *, about: str, how: str) -> str:
    """docs/size.md: the steps as bars and tables, then what is read off them."""
    parts = ["# How big", "", "Written by `python bench/_report.py size`; no figure is written by hand.", ""]
    parts += [about.strip(), "", f"*{how}.*"]
    steps = _steps_of(figures)
    for what in (OBJECTS, AGENTS, WATCHES):
        rows = {measured: values for (grows, measured), values in steps.items() if grows == what}
        counts = list(rows[RESIDENT])
        parts += ["", f"## {what.capitalize()}", "", "```", *_bars(rows[RESIDENT], RESIDENT, "MiB")]
        parts += ["", *_bars(rows[IDLE], IDLE, "%"), "```", ""]
        units = {match[3]: row.unit for row in figures if (match := _STEP.fullmatch(row.metric)) and match[2] == what}
        head = [what, *(f"{count:,}" for count in counts)]
        body = [
            [f"{name}, {units[name]}" if units[name] else name, *(_cell(values.get(count)) for count in counts)]
            for name, values in rows.items()
        ]
        parts.append(markdown([head, *body]))
    rest = [row for row in figures if not _STEP.fullmatch(row.metric)]
    parts += ["", "## Read off", "", markdown([["figure", "value"], *([r.metric, _with_unit(r)] for r in rest)])]
    return "\n".join(parts) + "\n"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _with_unit(row: Figure) -> str:
    return f"{_cell(row.value)} {row.unit}"


def _bars(values: dict[int, float], what: str, unit: str) -> list[str]:
    """A bar for each step."""
    most = max([*values.values(), 1e-9])
    lines = [f"{what}, {unit}"]
    for count, value in values.items():
        lines.append(f"{count:>9,} {'█' * max(1, round(value / most * BAR))} {_cell(value)}")
    return lines
