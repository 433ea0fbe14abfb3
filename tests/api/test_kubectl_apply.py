"""``kubectl apply --server-side`` by the real kubectl: who owns what, conflicts, force, and what goes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import yaml

from tests.api.test_kubectl import MANIFEST, Stage, compare, stage

pytestmark = pytest.mark.real

__all__ = ["stage"]
PLACE = ("get", "instance", "vm", "-o", "json", "--show-managed-fields")


def manifest(**spec: Any) -> str:
    return yaml.safe_dump({**MANIFEST, "spec": {"flavor": "small", "image": "micro", **spec}})


async def applied(stage: Stage, *arguments: str, code: int = 0, **spec: Any) -> str:
    return await stage.k.run("apply", "--server-side", "-f", "-", *arguments, text=manifest(**spec), code=code)


async def test_server_side_apply(stage: Stage) -> None:
    assert await applied(stage, running=False) == "instance.bessemer.dev/vm serverside-applied\n"
    first = orjson.loads(await stage.k.run(*PLACE))
    assert await applied(stage, running=False) == "instance.bessemer.dev/vm serverside-applied\n"
    assert orjson.loads(await stage.k.run(*PLACE)) == first
    (entry,) = first["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("kubectl", "Apply")
    assert "managedFields" not in await stage.k.run("get", "instance", "vm", "-o", "yaml")
    compare("apply-conflict", await applied(stage, "--field-manager=other", code=1, running=True))
    shown = await stage.k.run(
        "diff", "--server-side", "--force-conflicts", "-f", "-", text=manifest(running=True), code=1
    )
    assert "-  running: false" in shown
    assert "+  running: true" in shown
    assert await applied(stage, "--field-manager=other", "--force-conflicts", running=True)
    last = orjson.loads(await stage.k.run(*PLACE))
    assert [entry["manager"] for entry in last["metadata"]["managedFields"]] == ["kubectl", "other"]
    assert last["spec"]["running"] is True


async def test_a_field_that_is_applied_no_more_goes(stage: Stage) -> None:
    labelled = {**MANIFEST, "metadata": {"name": "vm", "labels": {"tier": "web"}}}
    run = stage.k.run
    await run("apply", "--server-side", "-f", "-", text=yaml.safe_dump(labelled))
    await run("label", "instance", "vm", "by=hand")
    await applied(stage)
    assert orjson.loads(await run(*PLACE))["metadata"]["labels"] == {"by": "hand"}


async def test_what_was_applied_by_the_client_goes_over_to_the_server(stage: Stage) -> None:
    await stage.apply(running=False)
    assert await applied(stage, running=False) == "instance.bessemer.dev/vm serverside-applied\n"
    managers = {
        e["manager"]: e["operation"] for e in orjson.loads(await stage.k.run(*PLACE))["metadata"]["managedFields"]
    }
    assert managers == {"kubectl": "Apply", "kubectl-last-applied": "Apply"}
