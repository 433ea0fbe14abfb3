"""``bessemer plan`` against a server that knows a few hosts."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.api.test_planning import furnished
from tests.api.world import BASE
from tests.cli.conftest import PROJECT, Cli

GOLDEN = Path(__file__).with_name("golden")
VM = """\
kind: Instance
metadata: {name: vm}
spec: {flavor: pair, image: micro}
"""
CHAT = """\
kind: Endpoint
metadata: {name: chat}
spec: {model: smol, flavor: pair, replicas: 4}
"""
TRAIN = """\
kind: Job
metadata: {name: train}
spec: {flavor: pair, members: 4, script: "true", topology: {perHost: 2}}
"""


@pytest.fixture(scope="module")
def told(cli: Cli) -> Iterator[Cli]:
    with cli.beside(furnished(cli.world)):
        yield cli


def test_a_story(told: Cli, tmp_path: Path) -> None:
    """What people see, line by line."""
    said = []
    files = {
        "vm": VM,
        "chat": CHAT,
        "many": CHAT.replace("4", "9"),
        "both": f"{CHAT}---\n{VM}",
        "train": TRAIN,
        "wide": TRAIN.replace("4", "9"),
        "none": VM.replace("pair", "none").replace("micro", "none"),
        "apart": TRAIN.replace("{flavor", "{subnet: 10.1.0.0/16, flavor"),
        "far": TRAIN.replace("{flavor", "{subnet: 10.1.0.0/16, flavor").replace(
            "perHost: 2", "level: leaf, policy: required"
        ),
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        with contextlib.chdir(tmp_path):
            said.append(told("plan", "-f", f"{name}.yaml", "-n", PROJECT))
    found = "\n".join(one.transcript for one in said)
    golden = GOLDEN / "plan.txt"
    if os.environ.get("BESSEMER_GOLDEN") == "write":
        golden.write_text(found)
    assert found == golden.read_text()
    assert [one.code for one in said] == [0, 0, 3, 0, 0, 3, 3, 3, 3]


def test_a_quota_that_is_in_the_way_is_no_want_of_room(told: Cli) -> None:
    def bound(devices: int) -> None:
        change = {"spec": {"quota": {"devices": {"H100": devices}}}}
        told.do(lambda w: w.call("PATCH", f"{BASE}/tenants/acme", change, media="application/merge-patch+json"))

    bound(1)
    said = told("plan", "-f", "-", "-n", PROJECT, stdin=VM).out.splitlines()
    bound(1000)
    assert said[0] == "instance/vm: there is room, but a quota is in the way"
    assert "  start   not before the quota has room for it" in said


def test_documents_are_whole(told: Cli) -> None:
    said = told("plan", "-f", "-", "-n", PROJECT, "-o", "json", stdin=VM)
    review = json.loads(said.out)
    assert (said.code, review["kind"], review["status"]["replicas"][0]["host"]) == (0, "PlacementReview", "h3")
    said = told("plan", "-f", "-", "-n", PROJECT, "-o", "yaml", stdin=f"{CHAT}---\n{VM}")
    both = yaml.safe_load(said.out)["items"]
    taken = [
        (one["host"], device["id"])
        for review in both
        for one in review["status"]["replicas"]
        for device in one["devices"]
    ]
    assert len(taken) == len(set(taken)) == 10


def test_what_is_wrong_is_said_with_its_line(told: Cli) -> None:
    said = told("plan", "-f", "-", "-n", PROJECT, stdin=VM.replace("pair", "none"))
    assert (said.code, "there is no Flavor none" in said.out) == (3, True)
    said = told("plan", "-f", "-", "-n", PROJECT, stdin=VM.replace("flavor: pair", "flavour: pair"))
    assert (said.code, "standard input:3" in said.err) == (1, True)
    said = told("plan", "-f", "-", "-n", PROJECT, stdin="kind: Project\nmetadata: {name: acme--x}\n")
    assert (said.code, "plan is of Endpoint, Instance, Job" in said.err) == (1, True)
    said = told("plan", "-f", "-", "-n", PROJECT, stdin=f"{VM}---\nkind: Project\nmetadata: {{name: acme--x}}\n")
    assert (said.code, "project/acme--x" in said.err) == (0, True)
    assert told("plan", "-f", "-", "-n", "acme--none", stdin=VM).code == 1


def test_the_fleet_by_model(told: Cli) -> None:
    said = told("fleet")
    golden = GOLDEN / "fleet.txt"
    if os.environ.get("BESSEMER_GOLDEN") == "write":
        golden.write_text(said.transcript)
    assert said.transcript == golden.read_text()
    assert json.loads(told("fleet", "-o", "json").out)["models"][0]["uselessMilli"] == 500
