"""The command from its files to its figures: over a small trace, in one process and in several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bench._trace import drawn

from bessemer.cli.verbs import ChurnOptions, FillOptions
from bessemer.core.errors import Invalid
from bessemer.main.simulate import simulate

SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def files(tmp_path: Path) -> FillOptions:
    lines = drawn(3, hosts=5)
    (tmp_path / "nodes.csv").write_text("\n".join(lines.nodes))
    (tmp_path / "pods.csv").write_text("\n".join(lines.pods))
    return FillOptions(nodes=tmp_path / "nodes.csv", pods=tmp_path / "pods.csv", seeds=2, inflate=1.2, processes=1)


def churning(files: FillOptions, **more: float) -> ChurnOptions:
    return ChurnOptions(nodes=files.nodes, pods=files.pods, seeds=2, processes=1, warm_up=0.5, stays=1.0, **more)


def test_a_fleet_is_filled(files: FillOptions) -> None:
    told: list[float] = []
    found = simulate(files, told.append)
    assert {"allocation_percent", "allocation_percent_at_100", "unallocated_gpus", "policy", "seeds"} <= set(found)
    assert (found["seeds"], found["first_seed"], found["moves"]) == (2, 42, 0)
    assert 50 < found["allocation_percent_at_100"] <= found["allocation_percent"] <= 100
    devices = found["trace"]["devices"]
    assert found["unallocated_gpus"] == pytest.approx(devices * (1 - found["allocation_percent"] / 100), abs=1e-2)
    assert 0 < found["useless_gpus"] <= found["unallocated_gpus"]
    assert [row["arrived_percent"] for row in found["levels"]] == [50, 60, 70, 80, 90, 95, 100, 110, 120]
    assert found["levels"][-1]["allocation_percent"] == found["allocation_percent"]
    assert sum(row["came"] for row in found["blocked"]) > 2 * found["trace"]["requests"]
    assert (told[-1], told) == (1.0, sorted(told))
    json.dumps(found)


def test_what_did_not_arrive_has_no_figure(files: FillOptions) -> None:
    found = simulate(replace(files, inflate=0.6, seeds=1), lambda _: None)
    assert found["allocation_percent_at_100"] is None
    assert [row["arrived_percent"] for row in found["levels"]] == [50, 60]
    assert found["allocation_percent_deviation"] == 0.0


@pytest.mark.parametrize("churn", [False, True])
def test_moves_make_room_as_far_as_they_are_allowed(files: FillOptions, *, churn: bool) -> None:
    lines = drawn(3, hosts=25, picky=0.4)
    files.nodes.write_text("\n".join(lines.nodes))
    files.pods.write_text("\n".join(lines.pods))
    options = churning(files, load=1.1) if churn else replace(files, inflate=1.0)
    still = simulate(options, lambda _: None)
    found = simulate(replace(options, moves_per_hundred=3.0, moves_at_once=2), lambda _: None)
    assert (still["moves"], still["moves_per_100_arrivals"]) == (0, 0.0)
    assert found["moves"] > 0
    assert 0 < found["moves_per_100_arrivals"] <= 3.0
    none = simulate(replace(options, moves_per_hundred=3.0, moves_gain=9.0), lambda _: None)
    assert none == still, "no request here is worth that much a move"
    if churn:
        unsaved = simulate(replace(options, moves_per_hundred=3.0, moves_saved=0), lambda _: None)
        assert unsaved == still, "what may not be kept is not there when it is wanted"
    # While nobody leaves, each move lets one more in; whoever comes and leaves may be worse off later.
    assert churn or found["allocation_percent"] > still["allocation_percent"]


def test_what_is_said_of_moves_where_none_are_is_no_word_for_nothing(files: FillOptions) -> None:
    with pytest.raises(Invalid, match="--moves-per-hundred"):
        simulate(replace(churning(files, load=1.1), moves_saved=200), lambda _: None)


def test_visits_come_and_leave(files: FillOptions) -> None:
    found = simulate(churning(files, load=1.1), lambda _: None)
    assert found["load"] == 1.1
    assert 0 < found["blocked_percent"] < 100
    assert 50 < found["allocation_percent"] <= 100


def test_equal_words_have_equal_figures_in_however_many_processes(files: FillOptions) -> None:
    one = simulate(files, lambda _: None)
    assert simulate(replace(files, processes=2), lambda _: None) == one
    assert simulate(replace(files, first_seed=7), lambda _: None) != one
    passing = churning(files)
    assert simulate(passing, lambda _: None) == simulate(passing, lambda _: None)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"policy": "magic"}, "no policy is called 'magic'; there are "),
        ({"nodes": Path("none.csv")}, "--nodes none.csv: there is no such file; name a CSV file"),
        ({"pods": Path("/")}, "--pods /: there is no such file"),
        ({"pods": Path(sys.executable)}, "this is no text; name a CSV file"),
    ],
)
def test_what_is_wrong_says_what_to_do(files: FillOptions, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        simulate(replace(files, **wrong), lambda _: None)  # type: ignore[arg-type]
    assert said in str(refused.value)


def test_files_that_are_mixed_up_are_told_apart(files: FillOptions) -> None:
    with pytest.raises(Invalid, match=r"pods\.csv, line 1: there is no column sn, gpu, model; its first line must"):
        simulate(replace(files, nodes=files.pods), lambda _: None)


def test_a_fleet_without_devices_has_nothing_to_fill(files: FillOptions) -> None:
    files.nodes.write_text("sn,cpu_milli,memory_mib,gpu,model\nn1,64000,65536,0,\n")
    with pytest.raises(Invalid, match="no host has a device"):
        simulate(files, lambda _: None)


def test_the_command_prints_one_object(files: FillOptions) -> None:
    words = ("simulate", "openb", "--nodes", files.nodes, "--pods", files.pods, "--inflate", "1.2", "--seeds", "2")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])}
    asked = [sys.executable, "-m", "bessemer", *map(str, words), "--processes", "1", "--json"]
    done = subprocess.run(asked, env=env, capture_output=True, check=True)
    assert json.loads(done.stdout) == simulate(files, lambda _: None)
    assert done.stderr == b""
