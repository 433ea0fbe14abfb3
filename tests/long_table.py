"""The table at the end of `make test-long`: of each test what it shows, how many rounds of it ran, what they counted.

`tests/conftest.py` registers `LongTable` for runs with ``-m long``. What a test shows is the first line of its
docstring; what it counts it says with ``record_property``, and rounds are added up. With ``BESSEMER_LONG_TABLE=write``
a run of the whole tier in which everything passed is kept in docs/long-tests.md; of any other nothing is kept.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bench._page import machine, markdown

PAGE = Path(__file__).parents[1] / "docs" / "long-tests.md"
WRITE = "BESSEMER_LONG_TABLE"

_HEAD = """\
# Long tests

What `make test-long` ran last as a whole, with everything passed. Written by `make test-long TABLE=write`; no figure is
written by hand. Seconds are of all rounds together, setting up included.
"""


@dataclass
class Row:
    """One test function and its rounds."""

    shows: str
    rounds: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    counted: Counter[str] = field(default_factory=Counter)

    def cells(self, test: str) -> Sequence[str]:
        counted = ", ".join(f"{number:,} {name}" for name, number in self.counted.items())
        return (f"`{test}`", self.shows, str(self.rounds), counted, f"{self.seconds:.0f}", f"{self.longest:.0f}")


@dataclass(eq=False)
class LongTable:
    """A plugin of pytest, for one run."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    rows: dict[str, Row] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    _seconds: Counter[str] = field(default_factory=Counter)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.asked.add(item.nodeid)
            doc = (getattr(item, "function", None).__doc__ or "").strip() if hasattr(item, "function") else ""
            self.rows.setdefault(_function(item.nodeid), Row(doc.partition("\n")[0]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        if not report.passed:
            self.passed.discard(report.nodeid)
        if report.when == "teardown":
            self._add(report)

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
    ) -> None:
        terminalreporter.section("long tests")
        terminalreporter.write_line(self.table())
        if os.environ.get(WRITE) != "write":
            return
        if exitstatus or self.passed != self.asked or not is_whole(config):
            terminalreporter.write_line(f"{PAGE.name} stays as it is: this was not the whole tier, or not all passed.")
            return
        PAGE.write_text(f"{_HEAD}\n*{self.about()}.*\n\n{self.table()}\n")
        terminalreporter.write_line(f"Written: docs/{PAGE.name}")

    def _add(self, report: pytest.TestReport) -> None:
        row, seconds = self.rows[_function(report.nodeid)], self._seconds[report.nodeid]
        row.rounds += 1
        row.seconds += seconds
        row.longest = max(row.longest, seconds)
        row.counted.update({name: int(str(number)) for name, number in report.user_properties})

    def about(self) -> str:
        """When, on what, and how long."""
        minutes = sum(row.seconds for row in self.rows.values()) / 60
        day = self.started.date().isoformat()
        return f"{day}, {machine()}, load average before the run {self.load:.1f}, {minutes:.0f} minutes"

    def table(self) -> str:
        """All rows as a Markdown table."""
        head = ("test", "shows", "rounds", "counted", "seconds", "longest")
        return markdown([head, *(row.cells(test) for test, row in self.rows.items())])


def is_whole(config: pytest.Config) -> bool:
    """Whether the run was of the tier and left nothing of it out."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return whole and not any(config.getoption(name, None) for name in ("keyword", "deselect", "ignore", "lf"))


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]
