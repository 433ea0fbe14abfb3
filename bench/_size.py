"""What `size` found, read: the lines through its steps, and docs/size.md."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from _common import Figure, figure
from _page import markdown

OBJECTS, AGENTS, WATCHES = "objects", "agents", "watches"
RESIDENT, IDLE, GET = "resident", "a core's share at rest", "a neighbour's get, p99"
HOSTS = 10_000
BAR = 40
LINE_STEPS_MIN = 4
"""Fewer, and what lies off the line says nothing of how far it may be trusted."""
ERROR_SHARE_MAX = 0.25
"""A figure whose standard error is more of it than this is none."""
LINES_UNIT = {"KiB": "MiB", "MiB": "MiB", "%": "%"}
"""Of what is read off → of the steps."""
READ = f"""Nothing of {HOSTS:,} hosts was measured: it is where the straight line through the steps (but the first, of a
process that has just started) would be. ± is the standard error, by how far the steps lie off that line. Where they
are fewer than {LINE_STEPS_MIN}, or the error is more than {ERROR_SHARE_MAX:.0%}, there is no figure."""
_STEP = re.compile(r"([\d,]+) (objects|agents|watches): (.+)")


def _steps_of(figures: Sequence[Figure]) -> dict[tuple[str, str], dict[int, float]]:
    """(what grows, what is measured) → how many → value."""
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in figures:
        if match := _STEP.fullmatch(row.metric):
            found[match[2], match[3]][int(match[1].replace(",", ""))] = row.value
    return found


@dataclass(frozen=True, slots=True)
class Line:
    """The straight line (least squares) through steps; ``counts`` and ``values`` are these."""

    counts: Sequence[int]
    values: Sequence[float]
    slope: float
    base: float

    @classmethod
    def through(cls, by_count: Mapping[int, float]) -> Line:
        """Of all but the start, which is of a process that has done nothing yet. Two steps at least."""
        counts = [count for count in by_count if count]
        values = [by_count[count] for count in counts]
        return cls(counts, values, *statistics.linear_regression(counts, values))

    def at(self, count: float) -> float:
        return self.base + self.slope * count

    @property
    def off(self) -> float:
        """How far the step that lies farthest is from it."""
        return max(abs(value - self.at(count)) for count, value in zip(self.counts, self.values, strict=True))

    @property
    def slope_error(self) -> float:
        """The standard error of the slope."""
        return self._deviation / math.sqrt(self._spread)

    def error_at(self, count: float) -> float:
        """The standard error of what would be measured there."""
        away = (count - statistics.fmean(self.counts)) ** 2 / self._spread
        return self._deviation * math.sqrt(1 + 1 / len(self.counts) + away)

    @property
    def _deviation(self) -> float:
        squares = ((value - self.at(count)) ** 2 for count, value in zip(self.counts, self.values, strict=True))
        return math.sqrt(sum(squares) / (len(self.counts) - 2))

    @property
    def _spread(self) -> float:
        mean = statistics.fmean(self.counts)
        return sum((count - mean) ** 2 for count in self.counts)


@dataclass(frozen=True, slots=True)
class Reading:
    """One thing that is read off a line; ``refused`` says why it is not, "" where it is."""

    what: str
    unit: str
    value: float = 0.0
    error: float = 0.0
    steps: str = ""
    refused: str = ""


def readings(figures: Sequence[Figure]) -> list[Reading]:
    """What each more costs, and what 10,000 hosts would, as far as the steps bear it."""
    steps = _steps_of(figures)
    found = [
        _reading(f"each of the {what} adds", "KiB", steps[what, RESIDENT], lambda line: line.slope * 1024, _slope_error)
        for what in (OBJECTS, AGENTS, WATCHES)
    ]
    for measured, unit in ((RESIDENT, "MiB"), (IDLE, "%")):
        what = f"{HOSTS:,} hosts, by the line: {measured}"
        found.append(_reading(what, unit, steps[AGENTS, measured], _at_hosts, _error_at_hosts))
    return found


def _slope_error(line: Line) -> float:
    return line.slope_error * 1024


def _at_hosts(line: Line) -> float:
    return line.at(HOSTS)


def _error_at_hosts(line: Line) -> float:
    return line.error_at(HOSTS)


def _reading(
    what: str,
    unit: str,
    by_count: Mapping[int, float],
    read: Callable[[Line], float],
    error_of: Callable[[Line], float],
) -> Reading:
    later = [count for count in by_count if count]
    if len(later) < LINE_STEPS_MIN:
        return Reading(what, unit, refused=f"{len(later)} of the {LINE_STEPS_MIN} steps that a line takes")
    line = Line.through(by_count)
    value, error = read(line), error_of(line)
    steps = (
        f"{len(later)} from {later[0]:,} to {later[-1]:,}, off the line by {_cell(line.off)} {LINES_UNIT[unit]} at most"
    )
    if error > ERROR_SHARE_MAX * value:
        return Reading(what, unit, refused=f"it would be {_cell(value)} ± {_cell(error)} {unit}, of {steps}")
    return Reading(what, unit, value, error, steps)


def read_off(figures: Sequence[Figure]) -> list[Figure]:
    """`readings` that are not refused, each with its error."""
    found = list[Figure]()
    for one in readings(figures):
        if not one.refused:
            found += [figure(one.what, one.value, one.unit), figure(f"{one.what}, ±", one.error, one.unit)]
    return found


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
    parts += ["", "## Read off", "", READ, "", markdown([["figure", "value", "steps"], *map(_row, readings(figures))])]
    return "\n".join(parts) + "\n"


def _row(one: Reading) -> list[str]:
    if one.refused:
        return [one.what, "none", one.refused]
    return [one.what, f"{_cell(one.value)} ± {_cell(one.error)} {one.unit}", one.steps]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bars(values: dict[int, float], what: str, unit: str) -> list[str]:
    """A bar for each step."""
    most = max([*values.values(), 1e-9])
    lines = [f"{what}, {unit}"]
    for count, value in values.items():
        lines.append(f"{count:>9,} {'█' * max(1, round(value / most * BAR))} {_cell(value)}")
    return lines
