"""The shape of an answer is the one that was asked for, of every write too; what is not spoken is refused first."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from bessemer.core.resource import API_VERSION
from tests.api.world import ADMIN, BASE, Reply, World, instance

LAB = f"{BASE}/namespaces/acme--lab"
VM, CLAIM = f"{LAB}/instances/vm", f"{LAB}/claims/instance-vm-0/status"
APPLY, MERGE, JSON = "application/apply-patch+yaml", "application/merge-patch+json", "application/json-patch+json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
SAID = {"apiVersion": API_VERSION, "kind": "Instance", "metadata": {"name": "vm", "labels": {"x": "y"}}}
WRITES: dict[str, tuple[str, str, Any, str]] = {
    "create": ("POST", f"{LAB}/instances", instance("new"), "application/json"),
    "replace": ("PUT", VM, {}, "application/json"),
    "merge": ("PATCH", VM, {"metadata": {"labels": {"x": "y"}}}, MERGE),
    "patch": ("PATCH", VM, [{"op": "add", "path": "/metadata/labels", "value": {"x": "y"}}], JSON),
    "apply": ("PATCH", f"{VM}?fieldManager=m", {**SAID, "spec": {"flavor": "small", "image": "micro"}}, APPLY),
    "delete": ("DELETE", VM, None, ""),
    "status": ("PATCH", CLAIM, {"status": {"phase": "Running"}}, MERGE),
    "apply status": (
        "PATCH",
        f"{CLAIM}?fieldManager=m",
        {**SAID, "kind": "Claim", "metadata": {"name": "instance-vm-0"}, "status": {"phase": "Running"}},
        APPLY,
    ),
}


async def ask(w: World, way: str, accept: str) -> Reply:
    """One of the writes, in a world that has what it is about."""
    await w.create(f"{LAB}/instances", instance("vm"))
    agent = await w.host("h1")
    await w.claim("vm", "h1", "acme--lab")
    method, path, body, media = WRITES[way]
    if way == "replace":
        body = {**(await w.call("GET", path)).json}
        body["metadata"]["labels"] = {"x": "y"}
    before = w.store.revision
    peer = agent if "status" in way else ADMIN
    reply = await w.call(method, path, body, media=media, headers={"accept": accept}, peer=peer)
    assert (w.store.revision > before) == (reply.code < 400), reply.body
    return reply


@pytest.mark.parametrize("way", WRITES)
async def test_metadata_alone(w: World, way: str) -> None:
    reply = await ask(w, way, f"{PARTIAL},application/json")
    told = reply.json
    assert (reply.code < 300, told["apiVersion"], told["kind"]) == (True, "meta.k8s.io/v1", "PartialObjectMetadata")
    assert told.keys() == {"apiVersion", "kind", "metadata"}
    name = {"create": "new", "status": "instance-vm-0", "apply status": "instance-vm-0"}.get(way, "vm")
    assert told["metadata"]["name"] == name
    assert ("deletionTimestamp" in told["metadata"]) == (way == "delete")
    if way in ("replace", "merge", "patch", "apply"):
        assert told["metadata"]["labels"] == {"x": "y"}


@pytest.mark.parametrize("way", WRITES)
async def test_a_table(w: World, way: str) -> None:
    told = (await ask(w, way, f"{TABLE},application/json")).json
    assert (told["kind"], len(told["rows"])) == ("Table", 1)
    assert told["metadata"]["resourceVersion"] == told["rows"][0]["object"]["metadata"]["resourceVersion"]


@pytest.mark.parametrize("way", WRITES)
async def test_yaml(w: World, way: str) -> None:
    reply = await ask(w, way, "application/yaml")
    assert reply.headers["content-type"].partition(";")[0] == "application/yaml"
    assert yaml.safe_load(reply.body)["kind"] in ("Instance", "Claim")


@pytest.mark.parametrize("way", WRITES)
async def test_what_is_not_spoken_writes_nothing(w: World, way: str) -> None:
    reply = await ask(w, way, "application/vnd.kubernetes.protobuf")
    assert (reply.code, reply.json["reason"]) == (406, "NotAcceptable")


async def test_what_is_gone_is_a_status_in_every_shape(w: World) -> None:
    """As of Kubernetes: it is no object, and no row of any."""
    maps = "/api/v1/namespaces/acme--lab/configmaps"
    for accept in (PARTIAL, TABLE, "application/yaml"):
        await w.create(maps, {"metadata": {"name": "c"}})
        reply = await w.call("DELETE", f"{maps}/c", headers={"accept": accept})
        assert (reply.code, reply.json["kind"], reply.json["status"]) == (200, "Status", "Success")
