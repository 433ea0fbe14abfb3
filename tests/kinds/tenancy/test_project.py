"""Project: a namespace of one tenant that goes only when it is empty."""

from __future__ import annotations

import json

import pytest

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key, Metadata, tenant_of
from bessemer.kinds.tenancy.project import Project, ProjectSpec, validate
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
)
from tests.kinds.world import PROJECT, World

CASE = Case("Project", "acme--second", {"quota": {"endpoints": 2}}, namespace="")


async def test_converges() -> None:
    found = await check_converges(CASE)
    assert found["status"]["phase"] == "Active"


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


async def test_without_its_tenant_it_waits_for_it() -> None:
    async with World() as world:
        await world.create("Project", "late--lab", {}, namespace="")
        said = await world.until_reason("Project", "late--lab", "TenantNotFound", namespace="")
        assert said["message"] == "there is no Tenant late"
        await world.create("Tenant", "late", {}, namespace="")
        await world.until_ready("Project", "late--lab", namespace="", seconds=5)


async def test_it_says_what_is_left_in_it() -> None:
    async with World() as world:
        await world.create("Instance", "vm", {"flavor": "small", "image": "micro"})
        await world.create("ApiKey", "k1", {})
        await world.create("ApiKey", "k2", {})
        await world.until_ready("Instance", "vm")
        await world.delete("Project", PROJECT, namespace="")
        said = await world.until_reason("Project", PROJECT, "NotEmpty", namespace="")
        for words in ("2 apikeys (k1, k2)", "1 instance (vm)", "1 claim (instance-vm-0)"):
            assert words in said["message"]
        for kind, name in (("Instance", "vm"), ("ApiKey", "k1"), ("ApiKey", "k2")):
            await world.delete(kind, name)
        await world.until_gone("Project", PROJECT, namespace="")
        await world.check_clean()


async def test_what_is_written_down_goes_with_it() -> None:
    async with World() as world:
        await world.create("ApiKey", "k1", {})
        for kind, version in (("ConfigMap", "v1"), ("Secret", "v1"), ("Lease", "coordination.k8s.io/v1")):
            for number in range(3):
                metadata = {"name": f"p{number}", "namespace": PROJECT}
                await world.store.objects.create(
                    {"apiVersion": version, "kind": kind, "metadata": metadata}, CONTROLLER
                )
        held = {"name": "held", "namespace": PROJECT, "finalizers": ["clients.example/x"]}
        await world.store.objects.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": held}, CONTROLLER)
        await world.delete("Project", PROJECT, namespace="")
        await world.until_reason("Project", PROJECT, "NotEmpty", namespace="")
        assert await world.store.objects.get(Key("Secret", PROJECT, "p0")), "while anything else is there, they stay"
        await world.delete("ApiKey", "k1")
        await world.until_reason("Project", PROJECT, "PapersLeft", namespace="")
        kept = json.loads((await world.store.objects.get(Key("ConfigMap", PROJECT, "held"))).body)
        kept["metadata"]["finalizers"] = []
        await world.store.objects.replace(kept, CONTROLLER)
        await world.until_gone("Project", PROJECT, namespace="")
        await world.check_clean()


@pytest.mark.parametrize("name", ["acme", "acme--", "--lab", "a--b--c", "acme---lab", "A--b", "acme--" + "x" * 60])
def test_names_that_two_tenants_could_share_are_refused(name: str) -> None:
    found = validate(Project(metadata=Metadata(name=name), spec=ProjectSpec()), None)
    assert "metadata.name" in [cause.field for cause in found]


def test_the_name_says_the_tenant() -> None:
    assert tenant_of("acme--research-1") == "acme"
    assert [tenant_of(name) for name in ("acme", "--x", "acme--", "")] == ["", "", "", ""]
    assert validate(Project(metadata=Metadata(name="acme--lab-1"), spec=ProjectSpec()), None) == []
