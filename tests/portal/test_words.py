"""Numbers and times as the portal writes them, and the tokens that stand twice."""

from __future__ import annotations

import re

import pytest

from bessemer.portal import words
from bessemer.portal.assets import STATIC
from bessemer.portal.pages.drill import in_ranges
from bessemer.portal.pages.invoices import month_of


@pytest.mark.parametrize(
    ("micro", "shown"),
    [
        (1_487_440_000, "€ 1,487.44"),
        (-9_020_000, "−€ 9.02"),
        (130, "€ 0.000130"),
        (0, "€ 0.00"),
    ],
)
def test_money(micro: int, shown: str) -> None:
    assert words.money(micro) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.012, "12 ms"), (1.94, "1.9 s"), (14.2, "14 s"), (95, "1 min 35 s"), (2520, "42 min"), (11_460, "3 h 11 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert words.duration(seconds) == shown


def test_device_models_as_one_says_them() -> None:
    assert words.device("NVIDIA H100 80GB HBM3") == "H100 80GB"
    assert words.device("H100-SXM5-80GB") == "H100 80GB"


def test_a_month_ends_now_or_at_its_end() -> None:
    now = 1_763_000_000.0  # 13 Nov 2025
    present = month_of("", now)
    assert (present.name, present.end, present.open) == ("November 2025", int(now), True)
    past = month_of("2025-01", now)
    assert (past.name, past.end - past.start, past.before, past.after) == (
        "January 2025",
        31 * 86_400,
        "2024-12",
        "2025-02",
    )
    assert month_of("2031-05", now) == present
    assert month_of("no month", now) == present


@pytest.mark.parametrize("text", ["0001-01", "1969-12", "1970-01", "1970-02"])
def test_no_month_is_before_the_first(text: str) -> None:
    first = month_of(text, 1_763_000_000.0)
    assert (first.key, first.before, first.after) == ("1970-02", "", "1970-03")
    assert first.start > 0


def test_ranges_of_rows_are_bounded() -> None:
    assert in_ranges("3-5,9") == {3, 4, 5, 9}
    for text in ("", "a", "1-9999999", "3-"):
        if text == "3-":
            assert in_ranges(text) == {3}
            continue
        with pytest.raises(ValueError):
            in_ranges(text)


def test_the_dark_tokens_stand_twice_and_are_equal() -> None:
    """CSS cannot say "or" across a media query and an attribute."""
    text = (STATIC / "tokens.css").read_text()
    blocks = re.findall(
        r":root(?::not\(\[data-theme=\"light\"\]\)|\[data-theme=\"dark\"\]) \{(.*?)\n\s*\}", text, re.DOTALL
    )
    assert len(blocks) == 2
    first, second = (re.findall(r"(--[\w-]+):\s*([^;]+);", block) for block in blocks)
    assert first == second
    assert len(first) > 40


def test_every_class_of_a_part_has_a_rule() -> None:
    """A misspelt class draws nothing and fails nowhere else."""
    style = "".join(path.read_text() for path in STATIC.glob("*.css"))
    macros = (STATIC.parent / "templates" / "parts.html").read_text()
    named = {name for group in re.findall(r'class="([a-z_ -]+)"', macros) for name in group.split()}
    known = set(re.findall(r"\.([a-z][\w-]*)", style))
    assert named - known <= {"figure", "took", "rowlink"}, named - known
