"""``simulate … --plot FILE``: a page that holds what it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bessemer.cli.plot import charts_of, require_place, write
from bessemer.core.errors import Invalid
from tests.cli.test_rehearse import CASE, FOUND, called

FILLED: dict[str, Any] = {
    "policy": "FGD",
    "trace": {"requests": 8152, "hosts": 1213},
    "levels": [
        {"arrived_percent": 50.0, "allocation_percent": 49.5},
        {"arrived_percent": 100.0, "allocation_percent": 95.2},
    ],
    "blocked": [{"devices": "share", "came": 10, "refused": 1}, {"devices": "8", "came": 4, "refused": 3}],
}


def charts_in(page: str) -> list[dict[str, Any]]:
    (data,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    found: list[dict[str, Any]] = json.loads(data)
    return found


def test_a_page_has_all_figures_and_fetches_nothing(tmp_path: Path) -> None:
    write(tmp_path / "p.html", FOUND, text="a < b @library@")
    page = (tmp_path / "p.html").read_text()
    assert not re.search(
        r"(src|href)\s*=|https?://(?!www\.w3\.org)|@import|fetch\(", page.replace("https://github.com", "")
    )
    assert "a &lt; b @library@" in page, "what is put in is not looked at again"
    assert "Permission is hereby granted" in page, "of what is handed on with it"
    charts = charts_in(page)
    assert [chart["title"] for chart in charts] == [
        "Devices allocated",
        "Free, and of no use for what is asked for",
        "Requests that wait",
        "How long at most they waited",
        "Money, an hour",
        "Moves",
        "Never began, by devices wanted",
    ]
    for chart in charts:
        assert [line["name"] for line in chart["lines"]] == ["LPG", "LPG h100+20"]
        assert {len(line["values"]) for line in chart["lines"]} == {len(chart["x"])}
        assert chart["x"] == sorted(chart["x"])
    allocated, waits = charts[0], charts[3]
    assert (allocated["x"], allocated["lines"][0]["values"]) == (
        CASE["series"]["hours"],
        CASE["series"]["allocation_percent"],
    )
    assert [value for value in waits["lines"][1]["values"] if value is not None] == [0.0, 1.5, 9.25, 20.0]
    assert [round(at) for at in waits["x"]] == [0, 0, 1, 1, 2, 2, 3, 3], "bars of one place stand about it"


def test_names_from_files_end_no_script(tmp_path: Path) -> None:
    found = {**FOUND, "history": "</script><b>", "claims": 3, "cases": [{**CASE, "policy": "</script>"}]}
    write(tmp_path / "p.html", found, text="")
    page = (tmp_path / "p.html").read_text()
    assert page.count("</script>") == 3
    assert charts_in(page)[0]["lines"][0]["name"] == "</script>"


def test_of_a_trace_what_had_come_and_who_was_refused() -> None:
    first, second = charts_of(FILLED)
    assert (first["x"], first["lines"][0]["values"]) == ([50.0, 100.0], [49.5, 95.2])
    assert (second["names"], second["lines"][0]["values"]) == (["share", "8"], [10.0, 75.0])
    assert [chart["title"] for chart in charts_of({**FILLED, "levels": []})] == ["Refused, by devices wanted"]


def test_where_nothing_can_be_written_is_said_before_anything_is_replayed(tmp_path: Path) -> None:
    for name, words in (("p.png", "ends with .html"), ("none/p.html", "there is no folder"), ("d.html", "is a folder")):
        (tmp_path / "d.html").mkdir(exist_ok=True)
        with pytest.raises(Invalid, match=words):
            require_place(tmp_path / name)
    asked, result = called("fleet --fleet f.yaml --plot p.png")
    assert (asked, result.exit_code) == (None, 1)
    asked, result = called(f"fleet --fleet f.yaml --queue --moves-per-hundred 2 --plot {tmp_path / 'q.html'}")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "q.html").stat().st_size > 50_000
    assert getattr(asked, "waits", "") == "queued"


def test_where_the_page_cannot_be_written_the_figures_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(_: Path, *_words: object, **_more: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    _, result = called(f"fleet --fleet f.yaml --json --plot {tmp_path / 'p.html'}")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["cases"], "what took long to find is not lost"
    assert "No space left" in str(result.exception)
