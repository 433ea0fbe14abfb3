"""What CI asks a second time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.again import main


@pytest.mark.parametrize(("failed", "status"), [(0, 1), (1, 0), (2, 0), (3, 1)])
def test_few_are_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str], failed: int, status: int) -> None:
    kept = tmp_path / "lastfailed"
    kept.write_text(json.dumps({f"tests/test_x.py::test_{number}": True for number in range(failed)}))
    assert main(2, kept) == status
    assert capsys.readouterr().out.count("::test_") == failed


def test_a_run_that_kept_nothing_did_not_fail_by_a_test(tmp_path: Path) -> None:
    assert main(2, tmp_path / "lastfailed") == 1
