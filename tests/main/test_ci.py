"""What CI runs agrees with the tests about where their pictures are, and with the demo's promise."""

from __future__ import annotations

import re
from pathlib import Path

from tests.portal.conftest import PICTURES

ROOT = Path(__file__).parents[2]
CI = (ROOT / ".ci" / "run").read_text()


def test_the_demo_is_given_four_minutes() -> None:
    assert re.findall(r"^timeout .* (\d+) make demo", CI, re.MULTILINE) == ["240"]


def test_pictures_are_named_where_the_tests_put_them() -> None:
    assert CI.count(str(PICTURES.relative_to(ROOT))) == 2
