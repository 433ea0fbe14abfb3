"""Progress for a person: a line per step with its time, a bar where it is long, plain lines where nobody looks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Step:
    """A step that is being taken. ``done`` is what its line says in the end."""

    def __init__(self, progress: Progress | None, task: object) -> None:
        self._progress = progress
        self._task = task
        self.note = ""

    def update(self, percent: float, text: str = "") -> None:
        """Show how far it is."""
        if self._progress is not None:
            self._progress.update(self._task, completed=percent, note=escape(text))  # type: ignore[arg-type]


class Steps:
    """Steps in a row. A step that raises is marked as failed, and the error goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.taken: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Take one step."""
        began = time.monotonic()
        ok = False
        try:
            with self._bar() as progress:
                task = progress.add_task(title, total=100, note="") if progress is not None else None
                step = Step(progress, task)
                yield step
            ok = True
        finally:
            took = time.monotonic() - began
            self.taken.append((title, took))
            mark, colour = ("✓", "green") if ok else ("✗", "red")
            note = f"  [dim]{escape(step.note)}[/dim]" if ok and step.note else ""
            self._console.print(f"[{colour}]{mark}[/{colour}] {title} [dim]{took:6.1f} s[/dim]{note}", highlight=False)

    @contextmanager
    def _bar(self) -> Iterator[Progress | None]:
        if not self._console.is_terminal:
            yield None
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("[dim]{task.fields[note]}[/dim]"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield progress

    def say(self, text: str) -> None:
        """A line between steps, as it is: a path that is broken in two cannot be copied."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
