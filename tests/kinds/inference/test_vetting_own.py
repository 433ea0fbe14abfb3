"""Vetting of a project's own model: where it is, by whose other projects, and what of it is said to whom."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bessemer.kinds.fleet.host import FAKE_TAINT
from bessemer.kinds.inference.projectmodel import ProjectModel
from tests.kinds.inference.test_projectmodel import SPEC as OWN
from tests.kinds.inference.test_projectmodel import bring
from tests.kinds.world import PROJECT, World

SPEC: dict[str, Any] = {"model": "tuned", "flavor": "serve", "load": {"rates": [4.0], "seconds": 1}}
TWO = "acme--two"


async def vetted(world: World, *, namespace: str = PROJECT) -> dict[str, Any]:
    await world.create("Vetting", "v", SPEC, namespace=namespace)
    await world.until_ready("Vetting", "v", namespace=namespace)
    found = await world.object("Vetting", "v", namespace=namespace)
    assert found is not None
    return found


async def told(world: World, *, namespace: str = PROJECT) -> Any:
    body = await world.object("ProjectModel", "tuned", namespace=namespace)
    assert body is not None
    return body["status"].get("vetted")


async def test_it_is_measured_in_its_project_and_says_what_was_found() -> None:
    async with World() as world:
        own = await bring(world)
        found = (await vetted(world))["status"]["vetted"]
        assert found["digest"] == own["status"]["digest"]

        async def says() -> bool:
            return bool(await told(world) == found)

        await world.until(says)
        await world.delete("Vetting", "v")
        await world.until_gone("Vetting", "v")

        async def forgotten() -> bool:
            return await told(world) is None

        await world.until(forgotten)


async def test_one_that_is_shared_is_measured_by_another_project_at_its_own_cost() -> None:
    async with World() as world:
        await world.create("Project", TWO, {}, namespace="")
        own = await bring(world, namespace=TWO, shared=True)
        found = await vetted(world)
        assert found["status"]["vetted"]["digest"] == own["status"]["digest"]
        rows = await world.store.ledger.entries()
        assert {row.project for row in rows if row.workload_kind == "Vetting"} == {PROJECT}
        assert await told(world, namespace=TWO) is None, "what another project found stays with it"


async def test_one_that_is_not_shared_is_none_for_another_project() -> None:
    async with World() as world:
        await world.create("Tenant", "other", {"tolerations": [{"key": FAKE_TAINT}]}, namespace="")
        for project in (TWO, "other--lab"):
            await world.create("Project", project, {}, namespace="")
        await bring(world, namespace=TWO)
        for project in (PROJECT, "other--lab"):
            await world.create("Vetting", "v", SPEC, namespace=project)
            await world.until_reason("Vetting", "v", "ModelNotFound", namespace=project)
        # Who waits for it hears when it is theirs, too.
        await world.patch("ProjectModel", "tuned", namespace=TWO, shared=True)
        await world.until_ready("Vetting", "v", seconds=60)
        said = await world.condition("Vetting", "v", namespace="other--lab")
        assert said["reason"] == "ModelNotFound"


def test_a_stored_one_may_name_a_project_and_a_new_one_may_not() -> None:
    spec = {**OWN, "vettedIn": PROJECT}
    body = {"kind": "ProjectModel", "metadata": {"name": "m", "namespace": PROJECT}, "spec": spec}
    with pytest.raises(ValidationError):
        ProjectModel.model_validate(body)
    stored = {**body, "metadata": {**body["metadata"], "uid": "u"}}  # type: ignore[dict-item]
    assert "vettedIn" not in ProjectModel.model_validate(stored).dump()["spec"]
    assert stored["spec"] == spec, "what was handed in stays as it is"
