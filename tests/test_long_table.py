"""The table of the long tier says what ran, and is kept only of a run that is worth keeping."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import long_table

pytest_plugins = ["pytester"]

TESTS = '''
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_soak(n, record_property):
    """Nothing is lost."""
    record_property("kills", n * 1000)

def test_other(): ...
'''


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A checkout of its own, whose table is kept beside it."""
    pytester.makepyfile(test_a=TESTS)
    # A conftest that is not everybody's: with one, pytest asks each plugin whether it is that.
    other = pytester.mkpydir("other")
    (other / "conftest.py").write_text("")
    (other / "test_c.py").write_text("def test_it(): ...")
    pytester.makeini("[pytest]\ntestpaths = .\nasyncio_default_fixture_loop_scope = function\n")
    monkeypatch.setattr(long_table, "PAGE", pytester.path / "long-tests.md")
    monkeypatch.setenv(long_table.WRITE, "write")
    return pytester


def test_a_whole_run_is_kept(run: pytest.Pytester) -> None:
    result = run.runpytest_inprocess(plugins=[long_table.LongTable()])
    page = (run.path / "long-tests.md").read_text()
    assert "| `test_a.py::test_soak` | Nothing is lost. | 2 | 3,000 kills | 0 | 0 |" in re.sub(" +", " ", page)
    assert str(Path.home()) not in page
    result.stdout.fnmatch_lines(["*Nothing is lost.*", "Written: docs/long-tests.md"])


@pytest.mark.parametrize("words", [["-k", "soak"], ["test_a.py"], ["--deselect", "test_a.py::test_other"]])
def test_a_part_of_it_is_not(run: pytest.Pytester, words: list[str]) -> None:
    result = run.runpytest_inprocess(*words, plugins=[long_table.LongTable()])
    assert not (run.path / "long-tests.md").exists()
    result.stdout.fnmatch_lines(["*Nothing is lost.*", "*stays as it is*"])


@pytest.mark.parametrize("line", ["assert False", "import pytest; pytest.skip()"])
def test_nor_one_in_which_something_did_not_pass(run: pytest.Pytester, line: str) -> None:
    run.makepyfile(test_b=f"def test_it():\n    {line}\n")
    run.runpytest_inprocess(plugins=[long_table.LongTable()])
    assert not (run.path / "long-tests.md").exists()
