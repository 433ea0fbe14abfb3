"""The page of faults is the list of faults, and each test that it names exists."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.faults.table import FAULTS, page

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_list() -> None:
    written = (ROOT / "docs" / "faults.md").read_text()
    assert written == page(), "write it anew: python -m tests.faults.table > docs/faults.md"


@pytest.mark.parametrize("node", sorted({test for fault in FAULTS for test in fault.tests}))
def test_each_test_that_is_named_exists(node: str) -> None:
    file, _, name = node.partition("::")
    assert name in functions(ROOT / file), node


def test_each_fault_has_a_test_and_says_what_it_looks_like() -> None:
    for fault in FAULTS:
        assert fault.tests, fault.fault
        assert fault.shows_as, fault.fault
        assert fault.recovers, fault.fault
    assert len({fault.fault for fault in FAULTS}) == len(FAULTS)


@cache
def functions(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text())
    return frozenset(n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
