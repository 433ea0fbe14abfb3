"""simulate inference from its file to its figures, in processes of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bessemer.cli import plot
from bessemer.cli.scaled import shown
from bessemer.cli.verbs import InferenceOptions
from bessemer.core.errors import Invalid
from bessemer.main.simulate import simulate
from tests.kinds.inference.traces import chat


@pytest.fixture
def options(tmp_path: Path) -> InferenceOptions:
    asked = chat(seconds=200, a_second=3)
    lines = [
        f'{{"timestamp": {1000 * a.at:.0f}, "input_length": {a.reads}, "output_length": {a.writes}}}' for a in asked
    ]
    (tmp_path / "trace.jsonl").write_text("\n".join(lines))
    return InferenceOptions(trace=tmp_path / "trace.jsonl", policies=("slo", "Knative"), most=8)


def test_each_policy_has_its_figures_and_they_are_shown_and_plotted(options: InferenceOptions, tmp_path: Path) -> None:
    told: list[float] = []
    found = simulate(options, told.append)
    assert [one["policy"] for one in found["replays"]] == ["slo", "knative"]
    assert all(0 < one["attained_percent"] <= 100 and one["device_hours"] > 0 for one in found["replays"])
    assert told[-1] == 1.0
    text = shown(json.loads(json.dumps(found)))
    assert "WITHIN TARGET" in text
    assert "roofline of 4 H100" in text
    titles = [chart["title"] for chart in plot.charts_of(found)]
    assert titles == [
        "Answered within the target",
        "Device-hours",
        "To the first token",
        "Requests",
        "Replicas that answer",
    ]
    plot.write(tmp_path / "page.html", found, text=text)
    assert "Replicas that answer" in (tmp_path / "page.html").read_text()


def test_speeds_that_are_said_are_taken_and_told(options: InferenceOptions) -> None:
    said = replace(options, policies=("fixed",), most=1, speeds={"slots": 8.0, "alone": 0.03}, model="8b")
    found = simulate(said, lambda _: None)
    replica = found["replica"]
    assert (replica["slots"], replica["alone"], replica["devices"]) == (8, 0.03, 1)
    assert replica["source"].startswith("as said (slots 8, alone 0.03); the rest: roofline")
    assert "never" not in shown(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trace": Path("/nowhere.csv")}, "--trace /nowhere.csv: there is no such file"),
        (
            {"policies": ("magic",)},
            "--policy magic: there is none of this name; there are slo, knative, waiting, fixed",
        ),
        ({"model": "900b"}, "--model 900b: its speeds are not known; those of 8b, 70b are"),
        ({"least": 9}, "--min 9 is more than --max 8"),
    ],
)
def test_what_makes_no_sense_is_told(options: InferenceOptions, change: dict[str, object], words: str) -> None:
    with pytest.raises(Invalid) as raised:
        simulate(replace(options, **change), lambda _: None)  # type: ignore[arg-type]
    assert words in str(raised.value)


def test_what_is_no_text_is_told(options: InferenceOptions) -> None:
    options.trace.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Invalid, match="this is no text"):
        simulate(options, lambda _: None)
