"""ProjectModel: a project's own, counted before it comes, and seen by nobody of another tenant."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.inference import AdapterFacts
from bessemer.core.resource import Metadata
from bessemer.drivers.fetch.protocol import Place
from bessemer.kinds import contents
from bessemer.kinds.context import Imported
from bessemer.kinds.fleet.host import FAKE_TAINT
from bessemer.kinds.inference.projectmodel import ProjectModel, ProjectModelSpec, validate
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
)
from tests.kinds.world import MODEL_SHA, PROJECT, World

SPEC: dict[str, Any] = {"source": {"hub": {"repository": "acme/tuned"}}, "memory": "256Mi"}
CASE = Case("ProjectModel", "tuned", SPEC)
SIZE = 98_000_000


async def test_converges() -> None:
    found = await check_converges(CASE)
    assert (found["status"]["sizeBytes"], found["status"]["heldBytes"]) == (SIZE, SIZE)


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


async def quota(world: World, **spec: Any) -> None:
    await world.patch("Project", PROJECT, namespace="", quota=spec)


async def used(world: World, scope: str = f"project/{PROJECT}") -> int:
    return sum(use.used for use in await world.store.capacity.use(scope) if use.meter == "content_bytes")


async def bring(world: World, name: str = "tuned", *, namespace: str = PROJECT, **spec: Any) -> dict[str, Any]:
    await world.create("ProjectModel", name, {**SPEC, **spec}, namespace=namespace)
    await world.until_ready("ProjectModel", name, namespace=namespace)
    found = await world.object("ProjectModel", name, namespace=namespace)
    assert found is not None
    return found


# --- the quota ----------------------------------------------------------------------------------------------------


async def test_it_is_counted_before_it_comes_and_given_back_as_it_goes() -> None:
    async with World() as world:
        counted: list[int] = []
        bring_one = world.importer.model

        async def watched(uid: str, place: Place, *, revision: str = "", room: int | None = None) -> Imported | None:
            counted.append(await used(world))
            return await bring_one(uid, place, revision=revision, room=room)

        world.importer.model = watched  # type: ignore[method-assign]
        found = await bring(world)
        assert world.importer.rooms[:2] == [0, SIZE]
        assert counted[:2] == [0, SIZE]
        assert (await used(world), await used(world, "tenant/acme")) == (SIZE, SIZE)
        await world.delete("ProjectModel", "tuned")
        await world.until_gone("ProjectModel", "tuned")
        assert (await used(world), await used(world, "tenant/acme")) == (0, 0)
        ((uid, named),) = set(world.importer.released)
        assert uid == found["metadata"]["uid"]
        assert f"sha256:{MODEL_SHA}" in named  # what the platform's models name stays


async def test_what_does_not_fit_stops_at_what_is_left_and_says_so() -> None:
    async with World() as world:
        await quota(world, contentBytes=SIZE + 5)
        await bring(world, "first")
        await world.create("ProjectModel", "second", SPEC)
        said = await world.until_reason("ProjectModel", "second", "QuotaExceeded")
        assert said["message"] == (
            f"it has 93.5 MiB, and project {PROJECT} holds 93.5 MiB of 93.5 MiB of models' content"
        )
        found = await world.object("ProjectModel", "second")
        assert found is not None
        assert (found["status"]["phase"], found["status"].get("heldBytes", 0)) == ("Pending", 0)
        assert await used(world) == SIZE
        await world.delete("ProjectModel", "first")
        await world.until_ready("ProjectModel", "second")
        assert await used(world) == SIZE


async def test_a_source_that_does_not_say_its_size_gets_what_is_left_and_no_more() -> None:
    async with World() as world:
        await quota(world, contentBytes=1000)
        world.importer.size_bytes, world.importer.exact = 2500, False
        await world.create("ProjectModel", "tuned", SPEC)
        said = await world.until_reason("ProjectModel", "tuned", "QuotaExceeded")
        assert "it has more than 1000 B" in said["message"]
        assert set(world.importer.rooms) == {0, 1000}
        assert await used(world) == 1000
        await quota(world, contentBytes=10_000)
        await world.until_ready("ProjectModel", "tuned")
        assert await used(world) == 2500


async def test_of_two_that_come_at_once_the_tenants_quota_gives_one_its_room() -> None:
    async with World() as world:
        await world.create("Project", "acme--two", {}, namespace="")
        await world.patch("Tenant", "acme", namespace="", quota={"contentBytes": SIZE})
        await world.create("ProjectModel", "tuned", SPEC)
        await world.create("ProjectModel", "tuned", SPEC, namespace="acme--two")

        async def settled() -> bool:
            said = [
                (await world.condition("ProjectModel", "tuned", namespace=name)).get("reason")
                for name in (PROJECT, "acme--two")
            ]
            return sorted(map(str, said)) == ["QuotaExceeded", "Ready"]

        await world.until(settled)
        assert await used(world, "tenant/acme") == SIZE


# --- which one is meant -------------------------------------------------------------------------------------------


async def digest_served(world: World, *, namespace: str = PROJECT) -> str:
    await world.create("Endpoint", "chat", {"model": "tuned", "flavor": "serve"}, namespace=namespace)
    await world.until_ready("Endpoint", "chat", namespace=namespace)
    (claim,) = [one for one in await world.bodies("Claim") if one["metadata"]["namespace"] == namespace]
    return str(claim["spec"]["intent"]["model"])


async def platforms(world: World) -> str:
    """A Model of the same name."""
    wheel = {"package": "m", "version": "1.0", "member": "m/m.gguf"}
    await world.create("Model", "tuned", {"source": {"wheel": wheel}, "sha256": "ab" * 32}, namespace="")
    await world.until_ready("Model", "tuned", namespace="")
    return "sha256:" + "ab" * 32


async def test_a_projects_own_comes_before_the_platforms() -> None:
    async with World() as world:
        await platforms(world)
        own = await bring(world)
        assert await digest_served(world) == own["status"]["digest"]


async def test_one_that_is_shared_serves_the_tenants_other_projects_and_nobody_elses() -> None:
    async with World() as world:
        theirs = await platforms(world)
        for project in ("acme--two", "other--lab"):
            if project.startswith("other"):
                await world.create("Tenant", "other", {"tolerations": [{"key": FAKE_TAINT}]}, namespace="")
            await world.create("Project", project, {}, namespace="")
        shared = await bring(world, namespace="acme--two", shared=True)
        assert await digest_served(world) == shared["status"]["digest"]
        assert await digest_served(world, namespace="other--lab") == theirs


async def test_one_that_is_not_shared_is_none_for_another_project() -> None:
    async with World() as world:
        await world.create("Project", "acme--two", {}, namespace="")
        await bring(world, namespace="acme--two")
        await world.create("Endpoint", "chat", {"model": "tuned", "flavor": "serve"})
        said = await world.until_reason("Endpoint", "chat", "ModelNotFound")
        assert "there is no Model tuned" in said["message"]
        # Who waits for it hears when it is there.
        await world.patch("ProjectModel", "tuned", namespace="acme--two", shared=True)
        await world.until_ready("Endpoint", "chat", seconds=20)


async def test_what_serves_goes_on_when_its_model_is_gone() -> None:
    async with World() as world:
        own = await bring(world)
        await digest_served(world)
        await world.delete("ProjectModel", "tuned")
        await world.until_gone("ProjectModel", "tuned")
        assert (await world.condition("Endpoint", "chat"))["status"] == "True"
        ((_, named),) = set(world.importer.released)
        assert own["status"]["digest"] in named  # a replica is made of it


async def test_an_adapter_of_the_platforms_model_is_none_of_a_projects_of_its_name() -> None:
    async with World() as world:
        await platforms(world)
        await bring(world)
        world.importer.adapter = AdapterFacts(rank=8, base="")
        wheel = {"package": "m", "version": "1.0", "member": "m/l.gguf"}
        spec = {"source": {"wheel": wheel}, "sha256": "cd" * 32, "adapterOf": "tuned"}
        await world.create("Model", "style", spec, namespace="")
        await world.until_ready("Model", "style", namespace="")
        await world.create("Endpoint", "chat", {"model": "tuned", "flavor": "serve", "adapters": ["style"]})
        said = await world.until_reason("Endpoint", "chat", "AdapterUnfit")
        assert "adapter of the platform's Model tuned" in said["message"]


# --- what may be said ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"wheel": {"package": "m", "version": "1.0", "member": "m/m.gguf"}}, "spec.source.wheel"),
        ({"path": {"path": "/srv/models"}}, "spec.source.path"),
    ],
)
def test_the_control_planes_own_places_are_the_platforms_alone(source: dict[str, Any], field: str) -> None:
    spec = ProjectModelSpec.model_validate({"source": source, "sha256": "ab" * 32})
    made = ProjectModel(metadata=Metadata(name="m", namespace=PROJECT), spec=spec)
    assert field in [cause.field for cause in validate(made, None)]


def test_its_source_is_kept_for_good() -> None:
    def of(repository: str) -> ProjectModel:
        spec = ProjectModelSpec.model_validate({"source": {"hub": {"repository": repository}}})
        return ProjectModel(metadata=Metadata(name="m", namespace=PROJECT), spec=spec)

    assert not validate(of("a/b"), of("a/b"))
    assert [cause.field for cause in validate(of("a/b"), of("a/c"))] == ["spec.source"]


def test_what_it_names_by_digest_is_not_its_to_keep() -> None:
    body = {"kind": "ProjectModel", "spec": {"sha256": "ab" * 32}, "status": {"digest": "sha256:" + "cd" * 32}}
    assert set(contents.of_holder(body)) == {"sha256:" + "cd" * 32}
    assert "sha256:" + "ab" * 32 in set(contents.of_holder({**body, "kind": "Model"}))
