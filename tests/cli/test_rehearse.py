"""simulate fleet and history: what is asked reaches whoever replays, what comes of it is shown, files are written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from bessemer.cli.app import build
from bessemer.cli.rehearse import area, resampled, shown, spark
from bessemer.cli.verbs import ChurnOptions, Document, FillOptions, FleetOptions, SimulateOptions, Told, Verbs
from bessemer.cli.work import history
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import API_VERSION, Key
from bessemer.placement.replay.described import read_fleet, read_history
from tests.api.test_planning import furnished, stand
from tests.api.world import BASE, World
from tests.cli.conftest import PROJECT, START, Cli
from tests.placement.hosts import inventory

INSTANCES = f"{BASE}/namespaces/{PROJECT}/instances"
SPEC = {"flavor": "pair", "image": "micro"}
GOLDEN = Path(__file__).with_name("golden") / "rehearse.txt"
SERIES = {
    "hours": [1.0, 2.0, 3.0, 4.0],
    "allocation_percent": [0.0, 50.0, 97.0, 100.0],
    "useless_percent": [0.0, 1.0, 2.0, 0.5],
    "waiting": [0.0, 0.0, 3.0, 12.0],
}
CASE = {
    "policy": "LPG",
    "more": {},
    "hosts": 36,
    "devices": 1240,
    "allocation_percent": 91.5,
    "useless_percent": 0.26,
    "blocked_percent": 12.24,
    "came": 1244,
    "began": 1236,
    "waited": 206,
    "waited_percent": 16.67,
    "mean_wait_hours": 3.03,
    "wait_hours": {"p50": 0.0, "p90": 1.5, "p99": 9.25, "most": 20.0},
    "earned_per_hour": 500.82,
    "worth_per_hour": 523.2,
    "blocked": [{"devices": "share", "came": 1205, "refused": 0}, {"devices": "8", "came": 39, "refused": 8}],
    "beyond": [],
    "moves": 0,
    "series": SERIES,
}
FOUND = {
    "seeds": 3,
    "first_seed": 42,
    "currency": "EUR",
    "load": 0.95,
    "hours": 24.0,
    "cases": [CASE, {**CASE, "more": {"h100": 20}, "hosts": 56}],
}


def called(words: str) -> tuple[SimulateOptions | None, Result]:
    asked: list[SimulateOptions] = []

    def replayed(options: SimulateOptions, _told: Told) -> Document:
        asked.append(options)
        return FOUND

    def never(_: Any) -> int:
        raise AssertionError

    names = ("up", "down", "server", "agent", "demo", "doctor")
    verbs = Verbs(**dict.fromkeys(names, never), kubeconfig=lambda _: Path("none"), simulate=replayed)  # type: ignore[arg-type]
    result = CliRunner().invoke(build(verbs), ["simulate", *words.split()])
    return (asked[0] if asked else None), result


def test_options_are_handed_on() -> None:
    asked, result = called(
        "fleet --fleet f.yaml --churn 0.9 --more h100=20 --more l40s=-2 --policy lpg --policy fgd --lose"
    )
    assert result.exit_code == 0, result.output
    assert asked == FleetOptions(
        fleet=Path("f.yaml"), churn=0.9, more={"h100": 20, "l40s": -2}, policies=("lpg", "fgd"), waits="lost"
    )
    asked, _ = called("history --fleet f.yaml --history h.jsonl --json")
    assert asked == FleetOptions(fleet=Path("f.yaml"), history=Path("h.jsonl"), seeds=1)
    asked, result = called("fleet --fleet f.yaml --more h100")
    assert asked is None
    assert "write GROUP=N" in str(result.exception)
    assert json.loads(called("fleet --fleet f.yaml --json")[1].output) == FOUND


def test_openb_comes_and_goes_at_a_load_too() -> None:
    asked, _ = called("openb --nodes n.csv --pods p.csv --churn 0.95 --seeds 4 --json")
    same, _ = called("churn --nodes n.csv --pods p.csv --load 0.95 --seeds 4 --json")
    assert asked == same == ChurnOptions(nodes=Path("n.csv"), pods=Path("p.csv"), load=0.95, seeds=4)
    asked, _ = called("openb --nodes n.csv --pods p.csv --churn 0.95 --moves-gain 2 --moves-saved 200")
    assert asked == ChurnOptions(nodes=Path("n.csv"), pods=Path("p.csv"), load=0.95, moves_gain=2.0, moves_saved=200)
    asked, result = called("openb --nodes n.csv --pods p.csv --moves-saved 200")
    assert (asked, "say --churn too" in str(result.exception)) == (None, True)
    asked, _ = called("openb --nodes n.csv --pods p.csv --moves-at-once 3")
    assert asked == FillOptions(nodes=Path("n.csv"), pods=Path("p.csv"), moves_at_once=3)
    asked, _ = called("churn --nodes n.csv --pods p.csv --moves-gain 2 --moves-saved 200")
    assert asked == ChurnOptions(nodes=Path("n.csv"), pods=Path("p.csv"), moves_gain=2.0, moves_saved=200)


def test_the_cases_are_shown_and_plotted() -> None:
    found = shown(FOUND) + "\n"
    if os.environ.get("BESSEMER_GOLDEN") == "write":
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text()
    assert max(map(len, shown(FOUND, within=80).splitlines())) <= 80


def test_who_never_began_waited_for_no_hours_and_what_no_host_could_hold_is_said() -> None:
    vain = {"wanted": "16 H100, 8 cores, 64 GiB", "came": 1244, "why": "with fewer than 16 H100 (8 there)"}
    nobody = {**CASE, "began": 0, "waited": 0, "waited_percent": 0.0, "beyond": [vain]}
    lines = shown({**FOUND, "cases": [nobody]}).splitlines()
    assert [line.split() for line in lines if line.startswith(("waited", "never", "  longest"))] == [
        ["never", "began", "1,244"],
        ["waited", "and", "began", "0", "of", "0"],
        ["longest", "-"],
    ]
    words = "No host could hold 16 H100, 8 cores, 64 GiB, were it empty: with fewer than 16 H100 (8 there)"
    assert f"{words}; 1,244 came in vain." in lines
    # Other hosts could: it is said of which ones it is true.
    more = {**nobody, "more": {"b200": 1}, "beyond": []}
    assert f"{words}; 1,244 came in vain (as it is)." in shown({**FOUND, "cases": [nobody, more]}).splitlines()


def test_plots_are_to_scale() -> None:
    assert spark([0.0, 1.0, 2.0]) == " ▄█"
    assert spark([0.0, 0.0]) == "  "
    assert [line.partition("│")[2] for line in area([0.0, 100.0, 50.0], most=100.0)] == [
        " █ ",
        " █ ",
        " █ ",
        " ██",
        " ██",
        " ██",
    ]
    assert list(resampled([1.0] * 600)) == [1.0] * 60
    assert resampled([float(n) for n in range(120)])[0] == 0.5


@pytest.fixture(scope="module")
def told(cli: Cli) -> Iterator[Cli]:
    with cli.beside(furnished(cli.world)):
        yield cli


def test_this_fleet_is_described(told: Cli) -> None:
    said = told("simulate", "describe")
    assert said.code == 0, said.err
    found = read_fleet(yaml.safe_load(said.out))
    groups = sorted((one.devices, one.count, one.model, one.price, one.numa) for one in found.groups)
    assert groups == [(2, 1, "H100", 2.5, 2), (4, 2, "H100", 2.5, 2), (8, 1, "H100", 2.5, 2)]
    assert all(one.cores == 16 for one in found.groups)
    assert said.err == ""


def test_who_is_left_out_of_it_is_said(told: Cli) -> None:
    async def more(w: World) -> None:
        for name in ("toy-0", "toy-1"):
            await stand(w, name, inventory(gpus=3, fake=True, model="T4"))
        body = {"apiVersion": API_VERSION, "kind": "Host", "metadata": {"name": "silent"}, "spec": {}}
        await w.store.objects.create(body, CONTROLLER)

    told.do(more)
    silent = "1 host left out: nothing has been reported of it yet."
    said = told("simulate", "describe")
    assert said.err.splitlines() == [silent, "2 hosts left out, being fake; --fake describes them too."]
    assert "T4" not in said.out
    said = told("simulate", "describe", "--fake")
    assert said.err.splitlines() == [silent, "2 hosts of it are fake: no such hardware stands anywhere."]
    groups = {one.model: one.count for one in read_fleet(yaml.safe_load(said.out)).groups}
    assert groups["T4"] == 2


async def test_where_there_are_none_but_fake_ones_they_stand_and_that_nothing_can_be_filled_is_said(
    monkeypatch,
) -> None:
    reports = [inventory(gpus=2, fake=True), inventory()]
    bodies = [[{"status": {"report": report.dump()}}] for report in reports]

    async def listed(_client: object, _scope: object) -> list[dict[str, Any]]:
        return bodies.pop(0)

    async def prices(_client: object) -> tuple[dict[str, int], str]:
        return {}, "EUR"

    monkeypatch.setattr(history, "list_all", listed)
    monkeypatch.setattr(history, "_prices", prices)
    text, notes = await history.described(None, fakes=False)  # type: ignore[arg-type]
    assert [one.devices for one in read_fleet(yaml.safe_load(text)).groups] == [2]
    assert notes == ["1 host of it is fake: no such hardware stands anywhere."]
    _, notes = await history.described(None, fakes=False)  # type: ignore[arg-type]
    assert notes == ["No host of it has a device: there is nothing that a load could fill."]


def test_what_ran_is_exported(told: Cli) -> None:
    async def ran(w: World) -> None:
        await w.create(
            f"/apis/bessemer.dev/v1alpha1/namespaces/{PROJECT}/instances", {"metadata": {"name": "a"}, "spec": SPEC}
        )
        await w.claim("a", "h1", PROJECT)
        await w.clock.advance(3600)  # type: ignore[attr-defined]
        key = Key("Claim", PROJECT, "instance-a-0")
        await w.store.capacity.release(key, CONTROLLER, fenced=True)
        await w.create(
            f"/apis/bessemer.dev/v1alpha1/namespaces/{PROJECT}/instances", {"metadata": {"name": "b"}, "spec": SPEC}
        )
        await w.claim("b", "h1", PROJECT)
        await w.clock.advance(60)  # type: ignore[attr-defined]

    told.do(ran)
    said = told("simulate", "export", "--since", "2025-06-01", "--until", "2025-07-01")
    assert (said.code, said.err) == (0, "2 claims.")
    first, second = read_history(said.raw.splitlines())
    assert (first.start, first.stop, first.workload, first.project) == (START, START + 3600, "Instance/a", PROJECT)
    assert (second.start, second.stop) == (START + 3600, None)
