"""The pages of figures are whole, whichever programs were run: what was not run keeps its figures and its day."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def kept(value: float, date: str, **more: object) -> dict[str, Any]:
    row = {"metric": "speed", "value": value, "unit": "/s", "peer": "", "peer_value": None, "goal": "", "met": None}
    run = {"date": date, "machine": "a machine", "quick": False, "load_before": 0.1, "nice": 0, "figures": [row]}
    return {**run, **more}


@pytest.fixture
def report(
    of_bench: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, str]]:
    """Runs it over a folder of its own, with programs that say 2 or fail; the pages that are there after it."""
    module = of_bench("_report")
    monkeypatch.setattr(module, "DOCS", tmp_path)
    said: list[list[str]] = []

    def run(name: str, *more: str, quick: bool) -> dict[str, Any]:
        said.append([name, *more])
        if name == "waking":
            raise subprocess.CalledProcessError(1, name)
        return kept(2.0, "2026-02-02", quick=quick)

    monkeypatch.setattr(module, "_run", run)

    def wrote(*words: str, before: dict[str, Any]) -> dict[str, str]:
        (tmp_path / "performance.json").write_text(json.dumps(before))
        monkeypatch.setattr(sys, "argv", ["_report.py", *words])
        with pytest.raises(SystemExit) as ended:
            module.main()
        pages = {path.name: path.read_text() for path in tmp_path.iterdir()}
        return {**pages, "status": str(ended.value.code), "said": json.dumps(said)}

    return wrote


def test_what_is_not_run_keeps_its_figures_and_its_day(report: Callable[..., dict[str, str]]) -> None:
    before = {"gateway": kept(1.0, "2026-01-01", about="What it was then."), "startup": kept(3.0, "2026-01-03")}
    pages = report("throughput", "--quick", before=before)
    gateway, serving = pages["performance-gateway.md"], pages["performance-serving.md"]
    assert "What it was then." in gateway
    assert "| speed  | 1 /s  |" in gateway
    assert "*2026-01-01, a machine" in gateway
    assert "2026-02-02" not in gateway + pages["performance.md"]
    assert "*2026-02-02, a machine, load average before the run 0.1, --quick.*" in serving
    assert "| speed  | 2 /s  |" in serving
    assert "2026-01-03" in pages["performance.md"]
    assert "performance-scaling.md" not in pages, "of what was never run there is no page"
    assert pages["status"] == "0"


def test_one_that_fails_keeps_what_it_said_and_the_rest_is_run(report: Callable[..., dict[str, str]]) -> None:
    words = ("waking", "scaling", "gateway", "--traces", "/data", "--gateway-peer", "/peer")
    pages = report(*words, before={"waking": kept(1.0, "2026-01-01")})
    assert "2026-01-01" in pages["performance-serving.md"]
    assert "2026-02-02" in pages["performance-scaling.md"], "in a form of its own"
    assert pages["status"] == "Failed: waking"
    said = [["waking"], ["scaling", "--data", "/data"], ["gateway", "--peer", "/peer"]]
    assert json.loads(pages["said"]) == said


def test_the_page_of_scaling_has_the_best_of_each_peer_and_a_plot(of_bench: Callable[[str], ModuleType]) -> None:
    scaling, scaled = of_bench("scaling"), of_bench("_scaled")
    came = [
        scaling.Came(policy, given, attained, hours)
        for policy, given, attained, hours in (
            ("slo", (), 90.0, 40.0),
            ("knative", (), 50.0, 30.0),
            ("knative", (0.05, 60.0), 91.0, 60.0),
            ("knative", (0.03, 60.0), 99.0, 80.0),
            ("knative", (0.2, 60.0), 80.0, 70.0),
            ("queue length", (), 70.0, 100.0),
            ("fixed", (4.0,), 95.0, 38.0),
            ("foreseen", (0.7, 1.0), 95.0, 20.0),
        )
    ]
    page = scaled.page(list(scaling._rows("a trace", came)), about="About.", how="today")
    row = next(line for line in page.splitlines() if line.startswith("| a trace"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == [
        "90.0 % for 40.0 h",
        "50.0 % for 30.0 h",
        "60.0 h: 0.05 of slots, 60 s",
        "70.0 % for 100.0 h",
        "none: 70.0 % for 100.0 h at most",
        "38.0 h: 4",
        "20.0 h: 0.7 used, 1 of work",
    ]
    plot = page[page.index("```") :]
    assert plot.count("●") == 1
    assert plot.count("k") == 2, "what attains little is not drawn"
    assert [one.hours for one in scaling.frontier(came[1:5])] == [30.0, 60.0, 80.0]
