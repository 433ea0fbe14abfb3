"""What simulate is asked reaches whoever replays, and what that found is shown: as tables, whole, and as it goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bessemer.cli.app import build
from bessemer.cli.simulate import shown
from bessemer.cli.verbs import ChurnOptions, Document, FillOptions, SimulateOptions, Told, Verbs

GOLDEN = Path(__file__).with_name("golden") / "simulate.txt"
FILES = {"nodes": Path("n.csv"), "pods": Path("p.csv")}
WORDS = "--nodes n.csv --pods p.csv"

BLOCKED = [
    {"devices": "cores", "came": 11208, "refused": 0, "refused_percent": 0.0, "came_gpus": 0.0, "refused_gpus": 0.0},
    {"devices": "share", "came": 3000, "refused": 2, "refused_percent": 0.0667, "came_gpus": 9.5, "refused_gpus": 1.6},
    {"devices": "1", "came": 3, "refused": 1, "refused_percent": 33.3333, "came_gpus": 3.0, "refused_gpus": 1.0},
    {"devices": "8", "came": 45, "refused": 9, "refused_percent": 20.0, "came_gpus": 360.0, "refused_gpus": 72.0},
]
ABOUT = {"policy": "fgd", "seeds": 10, "first_seed": 42, "trace": {"hosts": 1213, "devices": 6212, "requests": 8152}}
FILLED = {
    **ABOUT,
    "inflate": 1.3,
    "allocation_percent": 96.2468,
    "allocation_percent_deviation": 0.0312,
    "allocation_percent_at_100": 96.1512,
    "allocation_percent_at_100_deviation": 0.0201,
    "unallocated_gpus": 233.1487,
    "unallocated_gpus_deviation": 1.9,
    "useless_gpus": 201.5,
    "useless_gpus_deviation": 2.25,
    "first_refusal_percent": 96.1,
    "levels": [
        {"arrived_percent": 50.0, "allocation_percent": 50.01, "allocation_percent_deviation": 0.004},
        {"arrived_percent": 100.0, "allocation_percent": 96.1512, "allocation_percent_deviation": 0.0201},
        {"arrived_percent": 130.0, "allocation_percent": 96.2468, "allocation_percent_deviation": 0.0312},
    ],
    "blocked": BLOCKED,
    "moves": 0,
    "moves_per_100_arrivals": 0.0,
}
CHURNED = {
    **ABOUT,
    "seeds": 1,
    "load": 0.95,
    "allocation_percent": 94.512,
    "allocation_percent_deviation": 0.0,
    "blocked_percent": 0.4612,
    "blocked_percent_deviation": 0.0,
    "useless_gpus": 17.25,
    "useless_gpus_deviation": 0.0,
    "blocked": BLOCKED,
    "moves": 12,
    "moves_per_100_arrivals": 0.3812,
}


def said(words: str, found: Document) -> tuple[list[SimulateOptions], Result]:
    """What reached whoever replays, and how the command ended."""
    heard: list[SimulateOptions] = []

    def replay(options: SimulateOptions, told: Told) -> Document:
        heard.append(options)
        told(0.5)
        return found

    def never(_: Any) -> int:
        raise AssertionError

    verbs = Verbs(
        up=never,
        down=never,
        server=never,
        agent=never,
        demo=never,
        doctor=never,
        kubeconfig=lambda _: Path("none/kubeconfig"),
        simulate=replay,
    )
    return heard, CliRunner().invoke(build(verbs), ["simulate", *words.split()])


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (f"openb {WORDS}", FillOptions(**FILES)),
        (
            f"openb {WORDS} --inflate 1.1 --seeds 3 --first-seed 7 --policy fgd --processes 2",
            FillOptions(**FILES, inflate=1.1, seeds=3, first_seed=7, policy="fgd", processes=2),
        ),
        (f"churn {WORDS}", ChurnOptions(**FILES)),
        (f"churn {WORDS} --load 1.0 --warm-up 1 --stays 2", ChurnOptions(**FILES, load=1.0, warm_up=1.0, stays=2.0)),
    ],
)
def test_words_are_read(words: str, wanted: SimulateOptions) -> None:
    heard, done = said(words, FILLED if words.startswith("openb") else CHURNED)
    assert (heard, done.exit_code, done.stderr) == ([wanted], 0, "")


@pytest.mark.parametrize(
    "words",
    ["openb", "openb --nodes n", f"openb {WORDS} --seeds 0", f"openb {WORDS} --inflate 0", f"churn {WORDS} --load x"],
)
def test_misuse_is_refused(words: str) -> None:
    heard, done = said(words, FILLED)
    assert (heard, done.exit_code) == ([], 2)


@pytest.mark.parametrize("how", ["--json", "-o json"])
def test_json_is_the_whole_and_nothing_else(how: str) -> None:
    for words, found in (("openb", FILLED), ("churn", CHURNED)):
        _, done = said(f"{words} {WORDS} {how}", found)
        assert json.loads(done.stdout) == found


def test_tables_are_for_people() -> None:
    parts = [f"$ bessemer simulate {kind}\n{shown(found)}\n" for kind, found in (("openb", FILLED), ("churn", CHURNED))]
    text = "\n".join([*parts, f"$ bessemer simulate openb\n{shown(FILLED | {'first_refusal_percent': None})}\n"])
    if os.environ.get("BESSEMER_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_a_verb_that_is_not_there_says_so() -> None:
    def never(_: Any) -> int:
        raise AssertionError

    verbs = Verbs(
        up=never, down=never, server=never, agent=never, demo=never, doctor=never, kubeconfig=lambda _: Path("none")
    )
    done = CliRunner().invoke(build(verbs), ["simulate", "openb", *WORDS.split()])
    assert "nothing is replayed here" in str(done.exception)
