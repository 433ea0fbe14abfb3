"""``bessemer consolidate`` against a server on which this test plays the controller."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.errors import NotFound
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from tests.api.test_planning import furnished
from tests.cli.conftest import Cli, shown
from tests.kinds.world import USER, body

GOLDEN = Path(__file__).with_name("golden")
PATIENCE_SECONDS = 30.0


def step(name: str, **more: Any) -> dict[str, Any]:
    return {
        "project": "acme--lab",
        "workloadKind": "Instance",
        "workload": name,
        "workloadUid": f"w-{name}",
        "claim": f"instance-{name}-0",
        "claimUid": f"c-{name}",
        "source": "node-1",
        "target": "node-2",
        "place": {"host": "node-2"},
        "how": "Restart",
        "devicesMilli": 2000,
        "lostDeviceSeconds": 12_000,
        **more,
    }


PLAN = {
    "phase": "Planned",
    "hosts": ["node-1"],
    "places": 2,
    "there": 1,
    "devicesMilli": 8000,
    "lostDeviceSeconds": 12_000,
    "moves": 2,
    "steps": [step("vm"), step("chat", how="Replace", workloadKind="Endpoint", lostDeviceSeconds=0)],
}


@pytest.fixture(scope="module")
def known(cli: Cli) -> Iterator[Cli]:
    """The server knows a few hosts, on which nothing is."""
    with cli.beside(furnished(cli.world)):
        yield cli


def make(cli: Cli, name: str, spec: dict[str, Any], **status: Any) -> None:
    async def work(w: Any) -> None:
        await w.store.objects.create(body("Consolidation", name, namespace="", spec=spec), USER)

    cli.do(work)
    cli.status(Key("Consolidation", "", name), **status)


def spec(cli: Cli, name: str) -> dict[str, Any]:
    async def work(w: Any) -> dict[str, Any]:
        try:
            return dict(json.loads((await w.store.objects.get(Key("Consolidation", "", name))).body)["spec"])
        except NotFound:
            return {}

    return cli.do(work)


def test_a_story(cli: Cli) -> None:
    """What people see, line by line: a plan, one that is done, one that failed, none, and what is no question."""
    opens = {"open": {"flavor": "small", "count": 2}}
    make(cli, "tidy", opens, **PLAN)
    steps = [one | {"phase": "Done"} for one in (step("vm"),)]
    make(cli, "done", {"empty": {"count": 1}}, **PLAN | {"phase": "Succeeded", "steps": steps, "message": "it is so"})
    failed = {"phase": "Failed", "message": "after 0 of 2 moves: there is no place any more", "steps": [step("vm")]}
    make(cli, "gone", {"empty": {"hosts": ["node-1"]}}, **PLAN | failed)
    ready = {"type": "Ready", "status": "False", "reason": "NoPlan", "message": "0 of 2 places of Flavor small"}
    said = {"phase": "Pending", "conditions": [{**ready, "lastTransitionTime": "2025-06-15T15:06:40Z"}]}
    make(cli, "none", opens, **said)
    commands = (
        ("consolidate", "tidy"),
        ("consolidate", "done"),
        ("consolidate", "done", "--yes"),
        ("consolidate", "gone", "--yes"),
        ("consolidate", "none"),
        ("consolidate",),
        ("consolidate", "--open", "small", "--empty", "node-1"),
    )
    told = [cli(*words) for words in commands]
    found = "\n".join(one.transcript for one in told)
    golden = GOLDEN / "consolidate.txt"
    if os.environ.get("BESSEMER_GOLDEN") == "write":
        golden.write_text(found)
    assert found == golden.read_text()
    assert [one.code for one in told] == [0, 0, 0, 1, 1, 1, 1]
    assert [bool(spec(cli, name).get("approved")) for name in ("tidy", "done")] == [False, True]
    assert json.loads(cli("consolidate", "tidy", "-o", "json").raw)["status"]["places"] == 2


@pytest.mark.parametrize("ended", [True, False])
def test_a_new_one_is_made_planned_approved_and_followed(known: Cli, ended: bool) -> None:
    """Ctrl-C leaves it to itself, and says how to look."""
    cli = known
    name = "opened" if ended else "left"
    words = ("consolidate", name, "--open", "pair", "--count", "2", "--max-moves", "3", "--tolerate", "a/b", "--yes")
    with cli.start(*words) as running:
        until(lambda: bool(spec(cli, name)))
        cli.status(Key("Consolidation", "", name), **PLAN)
        until(lambda: bool(spec(cli, name).get("approved")))
        if ended:
            cli.status(Key("Consolidation", "", name), **PLAN | {"phase": "Succeeded", "message": "2 places are open"})
        else:
            running.send_signal(signal.SIGINT)
        out, err = running.communicate()
    made = spec(cli, name)
    assert made["open"] == {"flavor": "pair", "count": 2, "tolerations": [{"key": "a/b"}]}
    assert made["maxMoves"] == 3
    assert "acme--lab/vm" in shown(out.decode())
    if ended:
        assert running.returncode == 0
        assert out.decode().splitlines()[-1] == f"consolidation/{name} Succeeded: 2 places are open"
    else:
        assert running.returncode == 130
        assert f"`bessemer why consolidation {name}`" in err.decode()


def test_a_host_is_drained_by_a_consolidation_that_empties_it(known: Cli) -> None:
    cli, before = known, names(known)
    with cli.start("host", "drain", "h1", "--yes") as running:
        until(lambda: bool(names(cli) - before))
        (name,) = names(cli) - before
        made = spec(cli, name)
        cli.status(Key("Consolidation", "", name), **PLAN)
        until(lambda: bool(spec(cli, name).get("approved")))
        cli.status(Key("Consolidation", "", name), **PLAN | {"phase": "Succeeded", "message": "h1 is empty"})
        out, _ = running.communicate()
    assert (made["empty"]["hosts"], made["maxMoves"]) == (["h1"], 64)
    assert out.decode().splitlines()[-1] == f"consolidation/{name} Succeeded: h1 is empty"
    assert running.returncode == 0


def test_what_is_asked_without_yes_leaves_nothing(known: Cli) -> None:
    """Nor does what has no plan, with it or without."""
    before = names(known)
    commands = (
        ("host", "drain", "h1"),
        ("consolidate", "--open", "pair", "--count", "5"),
        ("consolidate", "tidier", "--cheapest"),
        ("host", "drain", "nowhere"),
        ("host", "drain", "nowhere", "--yes"),
        ("consolidate", "--open", "large", "--yes"),
        ("consolidate", "--open", "none"),
    )
    told = [known(*words) for words in commands]
    found = "\n".join(one.transcript for one in told)
    golden = GOLDEN / "consolidate-dry.txt"
    if os.environ.get("BESSEMER_GOLDEN") == "write":
        golden.write_text(found)
    assert found == golden.read_text()
    assert [one.code for one in told] == [0, 0, 0, 1, 1, 1, 1]
    assert names(known) == before


def test_one_that_has_no_plan_after_all_is_deleted_again(known: Cli) -> None:
    """It is there for as long as somebody plans it."""
    with known.start("consolidate", "vain", "--empty", "h1", "--yes") as running:
        until(lambda: "vain" in names(known))
        ready = {"type": "Ready", "status": "False", "reason": "NoPlan", "message": "somebody came"}
        said = {"phase": "Pending", "conditions": [{**ready, "lastTransitionTime": "2025-06-15T15:06:40Z"}]}
        known.status(Key("Consolidation", "", "vain"), **said)
        _, err = running.communicate()
    assert (running.returncode, "there is no plan: somebody came" in err.decode()) == (1, True)
    assert "vain" in names(known, deleting=True), "its control side, which is not here, has the last word"


def names(cli: Cli, *, deleting: bool = False) -> set[str]:
    """Of the consolidations that there are, or of those of them whose end was asked for."""

    async def work(w: Any) -> set[str]:
        found = (await w.store.objects.list(Scope(kind="Consolidation"))).items
        return {one.key.name for one in found if not deleting or b'"deletionTimestamp"' in one.body}

    return cli.do(work)


def until(holds: Any) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
