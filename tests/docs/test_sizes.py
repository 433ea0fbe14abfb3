"""The sizes in docs/dependencies.md are those of what is pinned, and of what was measured last."""

from __future__ import annotations

import json
import re

import pytest

from tests.docs.papers import ROOT

PAGE = ROOT / "docs" / "dependencies.md"
NOISE = 0.03
"""A bytecode cache, a file system's blocks: no reason to write the page anew."""


def rows() -> dict[str, tuple[int, int]]:
    """What the page says of each set: packages and megabytes."""
    found = re.findall(r"^\| (?:\+ )?`?(\w+)`? \|[^|]*\| (\d+) \| (\d+) MB", PAGE.read_text(), re.MULTILINE)
    return {name: (int(packages), int(size)) for name, packages, size in found}


def pins(name: str) -> int:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return len(re.findall(r"^[a-z0-9][a-z0-9._-]*(?:\[[a-z,]+\])?==", text, re.MULTILINE))


def test_packages_are_those_that_are_pinned() -> None:
    said = {name: packages for name, (packages, _) in rows().items()}
    assert said["base"] == pins("base")
    assert said["base"] + said["engine"] + said["demo"] == pins("demo")
    assert sum(said.values()) == pins("dev")


def test_the_base_weighs_what_was_measured() -> None:
    kept = json.loads((ROOT / "docs" / "performance.json").read_text())
    (measured,) = [row["value"] for row in kept["startup"]["figures"] if row["metric"].startswith("base install")]
    assert rows()["base"][1] == pytest.approx(measured, rel=NOISE)
