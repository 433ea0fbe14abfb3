"""The pages of the kinds say what is so: the table, the examples, every phase, every reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

import bessemer
from bessemer.core.resource import Kind
from bessemer.kinds import KINDS
from tests.kinds import pages

AREAS = sorted({pages.area(kind) for kind in KINDS} - {""})
MADE_BY_THE_PLATFORM = {"Claim", "Session", "Event"}
SOURCE = Path(bessemer.__file__).parent
PLAIN = {"Ready", "Terminating", "Gone", "Deleted", "Heartbeat"}
"""Reasons that say no more than the phase, and wait for nothing."""

by_area = pytest.mark.parametrize("area", AREAS)


def kinds_of(area: str) -> list[Kind[Any, Any]]:
    return [kind for kind in KINDS if pages.area(kind) == area]


def test_the_table_is_that_of_the_source() -> None:
    text = (pages.FOLDER / "README.md").read_text(encoding="utf-8")
    assert text == pages.filled(text), "python -m tests.kinds.pages writes it anew"


def test_every_area_has_a_page_and_every_page_an_area() -> None:
    assert {path.stem for path in pages.FOLDER.glob("*.md")} == {*AREAS, "README"}


@by_area
def test_the_examples_would_be_admitted(area: str) -> None:
    shown = pages.examples(area)
    for body in shown:
        kind = next(kind for kind in KINDS if kind.name == body["kind"])
        assert body["apiVersion"] == kind.api_version
        assert bool(body["metadata"].get("namespace")) == kind.namespaced
        assert list(kind.validate(kind.resource.model_validate(body), None)) == []
    assert {body["kind"] for body in shown} == {kind.name for kind in kinds_of(area)} - MADE_BY_THE_PLATFORM


@by_area
def test_every_phase_is_explained_and_no_other(area: str) -> None:
    kinds = kinds_of(area)
    told: dict[str, set[str]] = {kind.name: set() for kind in kinds}
    for row in pages.rows(area):
        name, phase = (row[0], row[1]) if len(kinds) > 1 else (kinds[0].name, row[0])
        told[name] |= set(pages.ticked(phase))
    text = pages.page(area)
    for kind in kinds:
        if "status" not in kind.resource.model_fields:
            continue
        if phases := set(get_args(kind.resource.model_fields["status"].annotation.model_fields["phase"].annotation)):  # type: ignore[union-attr]
            unexplained = phases - told[kind.name] - {"Pending"}
            assert unexplained == set(), kind.name
            assert told[kind.name] <= phases, kind.name
        assert kind.name in text


@by_area
def test_every_reason_is_explained_and_no_other(area: str) -> None:
    column = 2 if len(kinds_of(area)) > 1 else 1
    told = {reason for row in pages.rows(area) for reason in pages.ticked(row[column])}
    source = "\n".join(path.read_text() for path in sorted((SOURCE / "kinds" / area).rglob("*.py")))
    given = set(re.findall(r'(?:\breason=|\bHold\(|_enrolling\(host, |_missing\(\w+, )"([A-Z]\w+)"', source))
    assert given - told - PLAIN == set(), "reasons that the page leaves out"
    others = [*(SOURCE / "drivers").rglob("*.py"), *(SOURCE / "kinds").glob("*.py"), SOURCE / "core" / "notices.py"]
    source += "\n".join(path.read_text() for path in sorted(others))
    unknown = [reason for reason in sorted(told) if f'"{reason}"' not in source]
    assert unknown == [], "reasons that nothing gives"
