"""The table at the end of `make test-long`: of each test what it shows, how many rounds of it ran, what they counted.

`tests/conftest.py` registers `LongTable` for runs with ``-m long``. What a test shows is the first line of its
docstring; what it counts it says with ``record_property``, and rounds are added up. With ``BESSEMER_LONG_TABLE=write``
what passed is kept in docs/long-tests.md, beside what other runs have kept there: the tier takes an hour, and may be
run in parts. A test of which not all rounds passed loses its row, as does one that is no more; who picks rounds or
tests by name keeps nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bench._page import machine, markdown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "long-tests.md"
WRITE = "BESSEMER_LONG_TABLE"

_HEAD = """\
# Long tests

What `make test-long` came to, of each test when all its rounds passed last: on which day, and at which commit.
Written by `make test-long TABLE=write`, whole or in parts (`ARGS=tests/store`); no figure is written by hand. Seconds
are of all rounds together, setting up included.
"""

_COLUMNS = ("test", "shows", "rounds", "counted", "seconds", "longest", "passed")


def head() -> str:
    """The commit of the checkout, short; none outside of one."""
    said = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=ROOT, capture_output=True, check=False)
    return said.stdout.decode().strip()


@dataclass
class Row:
    """One test function and its rounds."""

    shows: str
    rounds: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    counted: Counter[str] = field(default_factory=Counter)

    def cells(self, test: str, passed: str) -> Sequence[str]:
        counted = ", ".join(f"{number:,} {name}" for name, number in self.counted.items())
        took = f"{self.seconds:.0f}", f"{self.longest:.0f}"
        return (f"`{test}`", self.shows, str(self.rounds), counted, *took, passed)


@dataclass(eq=False)
class LongTable:
    """A plugin of pytest, for one run."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    commit: str = field(default_factory=head)
    """From which it ran: what is committed meanwhile it has not seen."""
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
        if picks(config):
            terminalreporter.write_line(f"{PAGE.name} stays as it is: tests were picked by name.")
            return
        good = self.good()
        kept = {test: cells for test, cells in read(PAGE).items() if test not in self.rows and stands(test)}
        kept |= {test: self.rows[test].cells(test, self.passed_at()) for test in good}
        PAGE.write_text(f"{_HEAD}\n{self.about()}.\n\n{markdown([_COLUMNS, *(kept[test] for test in sorted(kept))])}\n")
        terminalreporter.write_line(f"Written: docs/{PAGE.name}, {len(good)} of {len(self.rows)} tests anew")

    def good(self) -> Sequence[str]:
        """The tests of which every round was run, and passed."""
        bad = {_function(nodeid) for nodeid in self.asked - self.passed}
        return [test for test in self.rows if test not in bad]

    def _add(self, report: pytest.TestReport) -> None:
        row, seconds = self.rows[_function(report.nodeid)], self._seconds[report.nodeid]
        row.rounds += 1
        row.seconds += seconds
        row.longest = max(row.longest, seconds)
        row.counted.update({name: int(str(number)) for name, number in report.user_properties})

    def about(self) -> str:
        """On what it ran, and how long."""
        minutes = sum(row.seconds for row in self.rows.values()) / 60
        return (
            f"Last: {len(self.rows)} tests in {minutes:.0f} minutes on {machine()}, load average before {self.load:.1f}"
        )

    def passed_at(self) -> str:
        """The day, and the commit where there is one."""
        return f"{self.started.date().isoformat()} {self.commit}".strip()

    def table(self) -> str:
        """All rows of this run as a Markdown table."""
        good = self.good()
        rows = [row.cells(test, "yes" if test in good else "no") for test, row in self.rows.items()]
        return markdown([_COLUMNS, *rows])


def picks(config: pytest.Config) -> bool:
    """Whether single tests or rounds were picked, so that what ran of a module need not be all there is."""
    named = any("::" in word for word in config.args)
    return named or any(config.getoption(name, None) for name in ("keyword", "deselect", "lf"))


def read(page: Path) -> Mapping[str, Sequence[str]]:
    """The rows of a page, by test; none where it has other columns."""
    if not page.exists():
        return {}
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    if not cells or tuple(cells[0]) != _COLUMNS:
        return {}
    return {row[0].strip("`"): row for row in cells[2:]}


def stands(test: str) -> bool:
    """Whether there is such a test still."""
    file, name = test.split("::")[:2]
    module = ROOT / file
    return module.exists() and re.search(rf"\b{name}\b", module.read_text()) is not None


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]
