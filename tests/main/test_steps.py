"""Progress where nobody looks: a plain line per step, with its time and what came of it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bessemer.main.steps import Steps


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def steps(out: io.StringIO) -> Steps:
    return Steps(Console(file=out, width=200))


def test_a_step_is_a_line_with_its_time_and_its_note(steps: Steps, out: io.StringIO) -> None:
    with steps.step("Building") as step:
        step.update(50, "half of it")
        step.note = "42 files"
    line = out.getvalue()
    assert line.startswith("✓ Building")
    assert line.endswith("s  42 files\n")
    assert [title for title, _ in steps.taken] == ["Building"]


def test_one_that_raises_is_marked_and_the_error_goes_on(steps: Steps, out: io.StringIO) -> None:
    def divide() -> None:
        with steps.step("Dividing") as step:
            step.note = "never shown"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        divide()
    assert out.getvalue().startswith("✗ Dividing")
    assert "never shown" not in out.getvalue()


def test_on_a_terminal_there_is_a_bar_and_then_the_line() -> None:
    out = io.StringIO()
    steps = Steps(Console(file=out, force_terminal=True, width=120))
    with steps.step("Building") as step:
        step.update(50, "half of it")
    assert "✓" in out.getvalue()
    assert "Building" in out.getvalue()
