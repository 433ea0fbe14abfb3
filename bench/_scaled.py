"""docs/performance-scaling.md, from what `scaling` said: one table of all loads, and of each load a plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from _common import Figure
from _page import markdown

COLUMNS, LINES = 84, 8
SIGNS = {"slo": "●", "knative": "k", "queue length": "q", "fixed": "f", "foreseen": "+"}
LEAST_PERCENT = 60.0
"""Below, nothing is drawn."""
READ = """The table: what each attains (%) for how many GPU-hours; of peers that are swept, the cheapest setting that
attains as much as ours, or the most that any attains. The plots: ● ours, k Knative, q queue length, f a fixed number,
+ foreseen; of each only settings than which none of the same attains as much for less."""


class _Point(NamedTuple):
    policy: str
    hours: float
    attained: float


def page(figures: Sequence[Figure], *, about: str, how: str) -> str:
    """The whole page."""
    titles = list(dict.fromkeys(row.metric.partition(": ")[0] for row in figures if ": within" in row.metric))
    parts = ["# Performance of scaling", "", "Written by `python bench/_report.py scaling --traces DIR`; no figure is"]
    parts += ["written by hand.", "", about.strip(), "", f"*{how}.*", "", READ, ""]
    head = ["load", "ours", "Knative, default", "Knative, best", "queue, default", "queue, best", "fixed", "foreseen"]
    parts.append(markdown([head, *(_row(title, figures) for title in titles)]))
    parts += ["", "```"]
    for title in titles:
        parts += _plot(title, _points(title, figures))
    return "\n".join([*parts, "```"]) + "\n"


def _row(title: str, figures: Sequence[Figure]) -> list[str]:
    here = [row for row in figures if row.metric.startswith(f"{title}: ")]
    own = " for ".join(f"{row.value:.1f} {row.unit}" for row in here[:2])
    said = {row.peer: str(row.peer_value) for row in here if row.peer}

    def of(name: str) -> str:
        return next((words for peer, words in said.items() if peer.startswith(name)), "")

    names = (
        "knative, default",
        "knative, best",
        "queue length, default",
        "queue length, best",
        "fixed, b",
        "foreseen, b",
    )
    return [title, own, *map(of, names)]


def _points(title: str, figures: Sequence[Figure]) -> list[_Point]:
    found = []
    for row in figures:
        of, _, said = row.metric.partition("; ")
        if of == title and said and isinstance(row.peer_value, float | int):
            found.append(_Point(said.partition(",")[0], float(row.peer_value), row.value))
    return [one for one in found if one.attained >= LEAST_PERCENT]


def _plot(title: str, points: Sequence[_Point]) -> list[str]:
    """Percent upwards, GPU-hours to the right; whoever comes first in `SIGNS` is above the others."""
    if not points:
        return []
    # What costs much more than ours is not drawn.
    most = 2.5 * next((one.hours for one in points if one.policy == "slo"), points[0].hours)
    drawn = [one for one in points if one.hours <= most]
    grid = [[" "] * COLUMNS for _ in range(LINES)]
    for sign in reversed(SIGNS):
        for one in (one for one in drawn if one.policy == sign):
            line = round((100 - one.attained) / (100 - LEAST_PERCENT) * (LINES - 1))
            grid[line][min(COLUMNS - 1, int(one.hours / most * COLUMNS))] = SIGNS[sign]
    lines = [f"{title}: % within the target over GPU-hours"]
    for number, row in enumerate(grid):
        percent = 100 - number * (100 - LEAST_PERCENT) / (LINES - 1)
        lines.append(f"{percent:4.0f} │{''.join(row).rstrip()}")
    axis = f"0{'─' * (COLUMNS // 2 - 4)} {most / 2:.1f} {'─' * (COLUMNS // 2 - 8)} {most:.1f}"
    return [*lines, f"     {axis}", ""]
