"""``simulate fleet`` and ``history`` from their files to their figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bessemer.cli.verbs import FleetOptions
from bessemer.core.errors import Invalid
from bessemer.main.simulate import simulate

GROUP = {"name": "h100", "count": 3, "model": "H100", "devices": 4, "cores": 64, "memory": "512Gi", "price": 2.0}
ASKS = [
    {"weight": 3, "devices": 1, "cores": 4, "memory": "8Gi", "hours": 2},
    {"devices": 4, "cores": 16, "memory": "64Gi", "hours": 4},
]


@pytest.fixture
def options(tmp_path: Path) -> FleetOptions:
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump({"groups": [GROUP], "asks": ASKS}))
    return FleetOptions(fleet=tmp_path / "fleet.yaml", hours=20.0, warm_up=5.0, seeds=2, processes=1)


def test_cases_stand_beside_each_other_under_one_load(options: FleetOptions) -> None:
    found = simulate(replace(options, policies=("fgd", "LPG"), more={"h100": 2}), lambda _: None)
    cases = found["cases"]
    assert [(case["policy"], case["more"], case["hosts"], case["devices"]) for case in cases] == [
        ("FGD", {}, 3, 12),
        ("FGD", {"h100": 2}, 5, 20),
        ("LPG", {}, 3, 12),
        ("LPG", {"h100": 2}, 5, 20),
    ]
    came = [[row["came"] for row in case["blocked"]] for case in cases]
    assert came == [came[0]] * 4
    for case in cases:
        assert case["earned_per_hour"] == pytest.approx(
            case["worth_per_hour"] * case["allocation_percent"] / 100, rel=1e-3
        )
        assert len(case["series"]["hours"]) == len(case["series"]["waiting"]) == 60
    less, more = cases[:2]
    assert more["mean_wait_hours"] <= less["mean_wait_hours"]
    assert (less["worth_per_hour"], more["worth_per_hour"]) == (24.0, 40.0)
    assert json.loads(json.dumps(found)) == found
    assert simulate(replace(options, policies=("fgd", "LPG"), more={"h100": 2}), lambda _: None) == found


def test_what_no_host_could_hold_is_told_with_why(options: FleetOptions, tmp_path: Path) -> None:
    wide = {"devices": 8, "cores": 4, "memory": "8Gi", "hours": 2}
    large = {"name": "large", "count": 0, "model": "H100", "devices": 8, "cores": 64, "memory": "512Gi"}
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump({"groups": [GROUP, large], "asks": [*ASKS, wide]}))
    as_it_is, more = simulate(replace(options, more={"large": 1}), lambda _: None)["cases"]
    (row,) = as_it_is["beyond"]
    sizes = {one["devices"]: one for one in as_it_is["blocked"]}
    assert row == {
        "wanted": "8 devices, 4 cores, 8 GiB",
        "came": sizes["8"]["came"],
        "why": "with fewer than 8 GPUs (4 there)",
    }
    assert sizes["8"]["refused"] == sizes["8"]["came"]
    assert more["beyond"] == []
    assert as_it_is["came"] - as_it_is["began"] == sum(one["refused"] for one in as_it_is["blocked"])
    assert 0 < as_it_is["waited"] <= as_it_is["began"]


def test_policies_differ_with_the_file_of_the_documentation(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text()
    (tmp_path / "fleet.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    day = FleetOptions(fleet=tmp_path / "fleet.yaml", policies=("lpg", "fgd"), seeds=1, processes=1)
    first, second = simulate(day, lambda _: None)["cases"]
    assert first["came"] == second["came"] > 1000
    assert first["blocked_percent"] < second["blocked_percent"] - 1
    assert first["useless_percent"] < second["useless_percent"]
    assert first["beyond"] == second["beyond"] == []


def test_history_comes_again_as_it_was(options: FleetOptions, tmp_path: Path) -> None:
    line = {"start": 0, "stop": 7200, "milliCores": 1000, "memoryBytes": 1, "devices": 4, "model": "H100"}
    lines = [line, line, line, {**line, "start": 3600, "stop": 7200}, {"start": 3600, "stop": 14_400}]
    (tmp_path / "claims.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = simulate(replace(options, history=tmp_path / "claims.jsonl", seeds=1, more={"h100": 1}), lambda _: None)
    tight, wide = found["cases"]
    assert (found["claims"], found["hours"]) == (5, 4.0)
    # Twelve devices are held for two hours; the fourth claim waits for an hour, and then stays for one.
    assert (tight["allocation_percent"], tight["mean_wait_hours"]) == (pytest.approx(100 * 28 / 48, abs=1e-3), 1.0)
    assert (wide["allocation_percent"], wide["waited_percent"]) == (pytest.approx(100 * 28 / 64, abs=1e-3), 0.0)
    lost = simulate(replace(options, history=tmp_path / "claims.jsonl", seeds=1, waits="lost"), lambda _: None)
    assert lost["cases"][0]["blocked_percent"] == 25.0


def test_what_makes_no_sense_is_refused(options: FleetOptions, tmp_path: Path) -> None:
    for more, words in (
        ({"fleet": tmp_path / "none.yaml"}, "no such file"),
        ({"policies": ("best",)}, "no policy is called"),
        ({"more": {"x": 1}}, "no group is called x"),
        ({"more": {"h100": -3}}, "no host has a device"),
        ({"more": {"h100": -4}}, "h100 -4: it has 3 hosts; no more can be left out"),
        ({"more": {"h100": 99_998}}, r"h100 \+99998: it has 3 hosts; a group has 100,000 at most"),
        ({"history": tmp_path / "none.jsonl"}, "no such file"),
        ({"moves_gain": 2.0}, "--moves-per-hundred"),
    ):
        with pytest.raises(Invalid, match=words):
            simulate(replace(options, **more), lambda _: None)  # type: ignore[arg-type]
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump({"groups": [GROUP]}))
    with pytest.raises(Invalid, match="asks says nothing"):
        simulate(replace(options, fleet=tmp_path / "bare.yaml"), lambda _: None)
