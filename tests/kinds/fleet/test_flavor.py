"""Flavor: a size, and nothing that moves."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bessemer.core.resource import Metadata
from bessemer.kinds.fleet import flavor_v1alpha1
from bessemer.kinds.fleet.flavor import KIND, Flavor, FlavorDevices, FlavorSpec, validate
from tests.kinds.five import Case, check_is_denied_to_another_tenant
from tests.kinds.fleet.yard import Yard

SPEC = {"cores": 2, "memory": "4Gi"}
CASE = Case("Flavor", "small", SPEC, namespace="")


def flavor(name: str = "small", **spec: Any) -> Flavor:
    return Flavor(metadata=Metadata(name=name), spec=FlavorSpec(**{**SPEC, **spec}))


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({}, []),
        ({"devices": {"count": 8, "model": "H100", "together": ["nvlink", "switch"]}}, []),
        ({"devices": {"count": 1, "share": "0.25"}}, []),
        ({"devices": {"count": 1, "profile": "1g.10gb"}}, []),
        ({"devices": {"count": 2, "share": "0.25"}}, ["spec.devices.count"]),
        ({"devices": {"count": 2, "profile": "1g.10gb"}}, ["spec.devices.count"]),
        ({"devices": {"count": 1, "share": "0.5", "profile": "1g.10gb"}}, ["spec.devices.share"]),
        ({"devices": {"count": 1, "share": "0.000"}}, ["spec.devices.share"]),
        ({"devices": {"count": 1, "memory": "20Gi"}}, []),
        ({"devices": {"count": 2, "memory": "20Gi"}}, ["spec.devices.count"]),
        ({"devices": {"count": 1, "memory": "20Gi", "share": "0.5"}}, ["spec.devices.memory"]),
        ({"devices": {"count": 1, "memory": "20Gi", "profile": "1g.10gb"}}, ["spec.devices.memory"]),
        ({"devices": {"count": 1, "memory": "1Ki"}}, ["spec.devices.memory"]),
        ({"memory": "1Mi"}, ["spec.memory"]),
        ({"hugepages": "1Gi", "cpuPolicy": "cores", "companions": [{"kind": "nic"}, {"kind": "disk"}]}, []),
        ({"hugepages": "4Gi"}, ["spec.hugepages"]),
        ({"hugepages": "1Gi", "memory": "1.5Gi"}, ["spec.memory"]),
        ({"companions": [{"kind": "nic", "near": "switch"}]}, ["spec.companions[0]"]),
        ({"devices": {"count": 1}, "companions": [{"kind": "nic", "near": "switch"}]}, []),
        ({"companions": [{"kind": "nic"}, {"kind": "nic", "model": "x7"}]}, ["spec.companions[1]"]),
        ({"companions": [{"kind": "nic", "model": "x6"}, {"kind": "nic", "model": "x7"}]}, []),
        ({"companions": [{"kind": "gpu"}]}, ["spec.companions[0]"]),
        ({"memory": "100Ti", "disk": "2Pi"}, ["spec.memory", "spec.disk"]),
    ],
)
def test_validate(spec: dict[str, Any], fields: list[str]) -> None:
    assert [cause.field for cause in validate(flavor(**spec), None)] == fields
    assert [cause.field for cause in validate(flavor(**spec), flavor())] == fields


def test_a_name_is_a_label() -> None:
    assert [cause.field for cause in validate(flavor("a.b"), None)] == ["metadata.name"]


@pytest.mark.parametrize(("share", "milli"), [("", 1000), ("0.25", 250), ("0.5", 500), ("0.125", 125), ("0.001", 1)])
def test_a_share_is_a_decimal_fraction(share: str, milli: int) -> None:
    assert FlavorDevices(count=1, share=share).milli == milli


@pytest.mark.parametrize("share", ["1", "1.0", "0", "0.", ".5", "0.1234", "-0.5", "50%", "0,5"])
def test_what_is_no_fraction_of_one_device_is_refused(share: str) -> None:
    with pytest.raises(ValidationError):
        FlavorDevices(count=1, share=share)


def test_whoever_speaks_the_older_version_keeps_the_part() -> None:
    spec = flavor(devices={"count": 1, "model": "H100", "share": "0.25"}).spec.dump()
    older, kept = flavor_v1alpha1.down(spec)
    assert older["gpus"] == 1
    assert flavor_v1alpha1.up({**older, "cpus": 9}, kept)["devices"]["share"] == "0.25"
    assert "share" not in flavor_v1alpha1.up({**older, "gpus": 2}, kept)["devices"], "it is of one device"
    sized = flavor(devices={"count": 1, "memory": "20Gi"}).spec.dump()
    older, kept = flavor_v1alpha1.down(sized)
    assert flavor_v1alpha1.up({**older, "cpus": 9}, kept)["devices"]["memory"] == "20Gi"
    whole = flavor(devices={"count": 1}).spec.dump()
    assert {"share", "memory"} & whole["devices"].keys() == set()
    assert flavor_v1alpha1.down(whole)[1] == {}


async def test_converges() -> None:
    """What has no control side is what it should be as soon as it is there, whoever runs."""
    async with Yard() as yard:
        await yard.create("Flavor", "small", SPEC)
        revision = yard.store.revision
        await yard.advance(400)
        assert yard.store.revision == revision


async def test_converges_when_run_twice() -> None:
    async with Yard() as yard:
        await yard.create("Flavor", "small", SPEC)
        before = await yard.body("Flavor", "small")
        await yard.crash()
        await yard.advance(20)
        assert await yard.body("Flavor", "small") == before


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    async with Yard() as yard:
        await yard.create("Flavor", "small", SPEC)
        await yard.patch("Flavor", "small", cores=4)
        assert yard.points.names["driver"] == [], "there is none"


async def test_deletes_cleanly() -> None:
    async with Yard() as yard:
        await yard.create("Flavor", "small", SPEC)
        await yard.delete("Flavor", "small")
        assert not await yard.there("Flavor", "small")


async def test_is_denied_to_another_tenant() -> None:
    """Flavors are the platform's: every tenant reads, none writes."""
    await check_is_denied_to_another_tenant(CASE)
    assert not set(KIND.rights) & {"agent", "gateway", "portal"}


def test_columns() -> None:
    body = flavor(devices={"count": 1}).dump()
    shown = {column.name: column.value(body) for column in KIND.columns}
    assert (shown["Cores"], shown["Memory"], shown["Devices"]) == (2, "4Gi", 1)
