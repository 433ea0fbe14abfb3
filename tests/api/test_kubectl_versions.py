"""The real kubectl and a kind of two versions: it prefers the newest, speaks either, and is told which is old."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import yaml

from tests.api.test_kubectl import Stage, stage

pytestmark = pytest.mark.real

__all__ = ["stage"]
OLD = "flavors.v1alpha1.bessemer.dev"


def manifest(version: str, **spec: Any) -> str:
    body = {"apiVersion": f"bessemer.dev/{version}", "kind": "Flavor", "metadata": {"name": "f"}, "spec": spec}
    return yaml.safe_dump(body)


async def test_a_flavor_in_either_version(stage: Stage) -> None:
    run, place = stage.k.run, ("get", "flavor", "f", "-o", "json", "--show-managed-fields")
    old, new = manifest("v1alpha1", cpus=4, memory="1Gi", gpus=1), manifest("v1beta1", cores=4, memory="1Gi")
    applied = ("apply", "--server-side", "-f", "-")
    assert await run(*applied, text=old) == "flavor.bessemer.dev/f serverside-applied\n"
    made = orjson.loads(await run(*place))
    assert (made["apiVersion"], made["spec"]["devices"]["count"]) == ("bessemer.dev/v1beta1", 1)
    await run(*applied, text=new)
    left = orjson.loads(await run(*place))
    assert "devices" not in left["spec"], "the same one applied it in the older version, and says it no more"
    assert [(e["manager"], e["apiVersion"]) for e in left["metadata"]["managedFields"]] == [
        ("kubectl", left["apiVersion"])
    ]
    await run("patch", "flavor", "f", "--type=merge", "-p", '{"spec": {"offered": false}}')
    await run("label", OLD, "f", "by=hand")
    asked = await stage.k.start("get", OLD, "f", "-o", "jsonpath={.spec.cpus} {.metadata.annotations}")
    out, err = await asked.communicate()
    assert out == b'4 {"conversion.bessemer.dev/v1beta1":"{\\"offered\\":false}"}'
    assert b"Warning: bessemer.dev/v1alpha1 Flavor is deprecated; use bessemer.dev/v1beta1 Flavor" in err
    assert orjson.loads(await run(*place))["spec"]["offered"] is False
    assert "one PCIe switch" in await run("explain", "flavor.spec.devices.together")
    assert "PCIe switch" in await run("explain", "flavor.spec.sameSwitch", "--api-version=bessemer.dev/v1alpha1")
