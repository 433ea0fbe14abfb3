"""The table of the long tier says what ran; of what passed it is kept, beside what other runs have kept."""

from __future__ import annotations

import re
from datetime import UTC, datetime
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
    monkeypatch.setattr(long_table, "ROOT", pytester.path)
    monkeypatch.setattr(long_table, "PAGE", pytester.path / "long-tests.md")
    monkeypatch.setenv(long_table.WRITE, "write")
    return pytester


def page_of(run: pytest.Pytester) -> str:
    return re.sub(" +", " ", (run.path / "long-tests.md").read_text())


def test_what_passed_is_kept(run: pytest.Pytester) -> None:
    result = run.runpytest_inprocess(plugins=[long_table.LongTable()])
    today = datetime.now(UTC).date().isoformat()
    assert f"| `test_a.py::test_soak` | Nothing is lost. | 2 | 3,000 kills | 0 | 0 | {today} |" in page_of(run)
    assert str(Path.home()) not in page_of(run)
    result.stdout.fnmatch_lines(["*Nothing is lost.*", "Written: docs/long-tests.md, 3 of 3 tests anew"])


def test_a_part_is_kept_beside_what_others_kept(run: pytest.Pytester) -> None:
    run.runpytest_inprocess(plugins=[long_table.LongTable()])
    (run.path / "test_a.py").write_text(TESTS.replace("1000", "5"))
    run.runpytest_inprocess("test_a.py", plugins=[long_table.LongTable()])
    assert "| 15 kills |" in page_of(run)
    assert "`other/test_c.py::test_it`" in page_of(run)
    (run.path / "other" / "test_c.py").unlink()
    run.runpytest_inprocess("test_a.py", plugins=[long_table.LongTable()])
    assert "other/test_c.py" not in page_of(run), "it is no more"


@pytest.mark.parametrize(
    "words", [["-k", "soak"], ["test_a.py::test_soak[1]"], ["--deselect", "test_a.py::test_other"]]
)
def test_who_picks_by_name_keeps_nothing(run: pytest.Pytester, words: list[str]) -> None:
    result = run.runpytest_inprocess(*words, plugins=[long_table.LongTable()])
    assert not (run.path / "long-tests.md").exists()
    result.stdout.fnmatch_lines(["*Nothing is lost.*", "*stays as it is*"])


@pytest.mark.parametrize("line", ["assert n == 1", "import pytest; n == 1 or pytest.skip()"])
def test_of_what_did_not_pass_whole_nothing_is_kept(run: pytest.Pytester, line: str) -> None:
    run.runpytest_inprocess(plugins=[long_table.LongTable()])
    (run.path / "test_a.py").write_text(TESTS.replace("    record_property", f"    {line}\n    record_property"))
    run.runpytest_inprocess(plugins=[long_table.LongTable()])
    assert "test_soak" not in page_of(run)
    assert "test_other" in page_of(run)


def test_a_page_of_another_form_is_written_anew(run: pytest.Pytester) -> None:
    (run.path / "long-tests.md").write_text("| test | shows |\n|---|---|\n| `test_a.py::test_old` | x |\n")
    run.runpytest_inprocess(plugins=[long_table.LongTable()])
    assert "test_old" not in page_of(run)
    assert "test_soak" in page_of(run)
