"""What is read off the steps of `size`, and what is not: by another way of reckoning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType

import numpy as np
import pytest

STEPS = {0: 124.0, 500: 301.0, 1_000: 478.0, 1_500: 667.0, 2_000: 843.0}


@pytest.fixture
def lines(of_bench: Callable[[str], ModuleType]) -> ModuleType:
    return of_bench("_size")


def resident(lines: ModuleType, by_count: Mapping[int, float], what: str = "agents") -> list[object]:
    return [lines.figure(f"{count:,} {what}: resident", value, "MiB") for count, value in by_count.items()]


def test_a_line_and_its_errors_are_those_of_least_squares(lines: ModuleType) -> None:
    x, y = np.array([*STEPS][1:], float), np.array([*STEPS.values()][1:])
    (slope, base), covariance = np.polyfit(x, y, 1, cov=True)
    variance = ((y - base - slope * x) ** 2).sum() / (len(x) - 2)
    there = np.array([10_000, 1.0])
    each, at = {one.what: one for one in lines.readings(resident(lines, STEPS)) if not one.refused}.values()
    assert (each.what, each.unit) == ("each of the agents adds", "KiB")
    assert each.value == pytest.approx(slope * 1024)
    assert each.error == pytest.approx(np.sqrt(covariance[0, 0]) * 1024)
    assert (at.what, at.unit) == ("10,000 hosts, by the line: resident", "MiB")
    assert at.value == pytest.approx(base + slope * 10_000)
    assert at.error == pytest.approx(np.sqrt(variance + there @ covariance @ there))
    assert at.steps == "4 from 500 to 2,000, off the line by 4 MiB at most"
    assert np.abs(y - base - slope * x).max() == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ({}, "0 of the 4 steps that a line takes"),
        ({0: 1.0, 500: 2.0, 1_000: 3.0, 1_500: 4.0}, "3 of the 4 steps that a line takes"),
        ({0: 1.0, 500: 2.0, 1_000: 9.0, 1_500: 2.0, 2_000: 8.0}, "it would be "),
        ({0: 9.0, 500: 8.0, 1_000: 7.0, 1_500: 6.0, 2_000: 5.0}, "it would be "),
    ],
)
def test_steps_that_are_few_or_noisy_bear_none(lines: ModuleType, steps: dict[int, float], why: str) -> None:
    figures = resident(lines, steps)
    assert lines.read_off(figures) == []
    assert {one.refused[: len(why)] for one in lines.readings(figures) if one.steps or "agents" in one.what} == {why}


def test_the_page_says_of_which_steps_or_why_not(lines: ModuleType) -> None:
    figures = [
        lines.figure(f"{count:,} {what}: {lines.IDLE}", 1.0, "%")
        for what in ("objects", "agents", "watches")
        for count in STEPS
    ]
    for what in ("objects", "agents", "watches"):
        figures += resident(lines, STEPS if what == "agents" else {0: 1.0, 500: 2.0}, what)
    page = lines.page([*figures, *lines.read_off(figures)], about="About.", how="today")
    rows = {row.split("|")[1].strip(): row for row in page.splitlines() if row.startswith("| ")}
    assert "4 from 500 to 2,000, off the line by 4 MiB at most" in rows["10,000 hosts, by the line: resident"]
    assert " ± " in rows["10,000 hosts, by the line: resident"]
    for what in ("objects", "watches"):
        assert rows[f"each of the {what} adds"].split("|")[2].strip() == "none"
        assert "1 of the 4 steps that a line takes" in rows[f"each of the {what} adds"]
