"""A kind in two versions over HTTP: each client sees and writes what it knows, and loses nothing of the rest."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import yaml

from bessemer.core.resource import Key
from tests.api.world import Reply, World

OLD, NEW = "/apis/bessemer.dev/v1alpha1/flavors", "/apis/bessemer.dev/v1beta1/flavors"
APPLY, MERGE, PATCH = "application/apply-patch+yaml", "application/merge-patch+json", "application/json-patch+json"
KEPT = "conversion.bessemer.dev/v1beta1"
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
WARNING = '299 - "bessemer.dev/v1alpha1 Flavor is deprecated; use bessemer.dev/v1beta1 Flavor"'


def old(name: str = "f", **spec: Any) -> dict[str, Any]:
    said = {"cpus": 4, "memory": "1Gi", **spec}
    return {"apiVersion": "bessemer.dev/v1alpha1", "kind": "Flavor", "metadata": {"name": name}, "spec": said}


def new(name: str = "f", **spec: Any) -> dict[str, Any]:
    said = {"cores": 4, "memory": "1Gi", **spec}
    return {"apiVersion": "bessemer.dev/v1beta1", "kind": "Flavor", "metadata": {"name": name}, "spec": said}


async def spec(w: World, path: str = NEW, name: str = "f") -> Any:
    return (await w.call("GET", f"{path}/{name}")).json["spec"]


async def apply(w: World, body: Any, manager: str, *, force: bool = False) -> Reply:
    path = OLD if body["apiVersion"].endswith("v1alpha1") else NEW
    query = f"fieldManager={manager}{'&force=true' if force else ''}"
    return await w.call("PATCH", f"{path}/f?{query}", body, media=APPLY)


def owners(body: Any) -> dict[str, tuple[str, Any]]:
    return {e["manager"]: (e["apiVersion"], e["fieldsV1"].get("f:spec")) for e in body["metadata"]["managedFields"]}


async def test_what_one_version_makes_the_other_shows(w: World) -> None:
    made = await w.create(OLD, old(gpus=2, gpuModel="H100", sameSwitch=True))
    assert made["apiVersion"] == "bessemer.dev/v1alpha1"
    assert made["spec"]["gpus"] == 2
    assert (await spec(w))["devices"] == {"count": 2, "model": "H100", "together": ["switch"]}
    stored = orjson.loads((await w.store.objects.get(Key("Flavor", "", "f"))).body)
    assert stored == (await w.call("GET", f"{NEW}/f")).json
    await w.create(NEW, new("g", offered=False))
    shown = (await w.call("GET", f"{OLD}/g")).json
    assert (shown["spec"]["cpus"], shown["metadata"]["annotations"]) == (4, {KEPT: '{"offered":false}'})


async def test_lists_tables_and_yaml_in_either_version(w: World) -> None:
    await w.create(NEW, new(devices={"count": 8}))
    listed = (await w.call("GET", OLD)).json
    assert (listed["apiVersion"], listed["items"][0]["spec"]["gpus"]) == ("bessemer.dev/v1alpha1", 8)
    assert (await w.call("GET", NEW)).json["items"][0]["spec"]["devices"]["count"] == 8
    heads = [[c["name"] for c in (await w.call("GET", p, headers=TABLE)).json["columnDefinitions"]] for p in (OLD, NEW)]
    assert heads[0][:5] == ["Name", "CPUs", "Memory", "Disk", "GPUs"]
    assert heads[1][:5] == ["Name", "Cores", "Memory", "Disk", "Devices"]
    assert (await w.call("GET", OLD, headers=TABLE)).json["rows"][0]["cells"][1:5] == [4, "1Gi", "0", 8]
    text = await w.call("GET", f"{OLD}/f", headers={"accept": "application/yaml"})
    assert yaml.safe_load(text.body)["spec"]["cpus"] == 4


async def test_a_watch_of_either_version(w: World) -> None:
    async with w.watch(f"{OLD}?watch=1") as before, w.watch(f"{NEW}?watch=1") as after:
        await w.create(OLD, old())
        first, second = await before.next(), await after.next()
    assert (first["type"], first["object"]["spec"]["cpus"]) == ("ADDED", 4)
    assert (second["type"], second["object"]["spec"]["cores"]) == ("ADDED", 4)
    assert first["object"]["apiVersion"] == "bessemer.dev/v1alpha1"


async def test_a_client_of_the_older_version_loses_nothing_that_it_cannot_say(w: World) -> None:
    await w.create(NEW, new(offered=False))
    body = (await w.call("GET", f"{OLD}/f")).json
    body["spec"]["cpus"] = 8
    assert (await w.call("PUT", f"{OLD}/f", body)).code == 200
    assert (await spec(w))["offered"] is False
    assert (await w.call("PATCH", f"{OLD}/f", {"spec": {"gpus": 1}}, media=MERGE)).code == 200
    change = [{"op": "replace", "path": "/spec/cpus", "value": 16}]
    patched = await w.call("PATCH", f"{OLD}/f", change, media=PATCH)
    assert (patched.code, patched.json["spec"]["cpus"]) == (200, 16)
    now = await spec(w)
    assert (now["cores"], now["offered"], now["devices"]["count"]) == (16, False, 1)
    assert (await apply(w, old(cpus=16, gpus=1), "old")).code == 200
    assert (await spec(w))["offered"] is False
    body = (await w.call("GET", f"{OLD}/f")).json
    del body["metadata"]["annotations"]
    await w.call("PUT", f"{OLD}/f", body)
    assert (await spec(w))["offered"] is True


async def test_writing_back_what_was_read_changes_nothing(w: World) -> None:
    made = await w.create(NEW, new(offered=False, devices={"count": 2}))
    for path in (OLD, NEW):
        body = (await w.call("GET", f"{path}/f")).json
        again = await w.call("PUT", f"{path}/f", body)
        assert (again.code, again.json["metadata"]["resourceVersion"]) == (200, made["metadata"]["resourceVersion"])


@pytest.mark.parametrize(
    ("path", "body", "code", "words"),
    [
        (OLD, old(gpuModel="H100", sameSwitch=True), 422, ["spec.gpuModel", "spec.sameSwitch"]),
        (OLD, old(cpus=0), 422, ["spec.cpus"]),
        (OLD, old(memory="1Ki"), 422, ["spec.memory"]),
        (NEW, new(cores=0), 422, ["spec.cores"]),
        (NEW, new(devices={"count": 0}), 422, ["spec.devices.count"]),
        (OLD, old(cores=3), 400, []),
        (NEW, new(cpus=3), 400, []),
        (OLD, new(), 400, []),
        (NEW, old(), 400, []),
    ],
)
async def test_each_version_is_refused_in_its_own_words(
    w: World, path: str, body: Any, code: int, words: list[str]
) -> None:
    reply = await w.call("POST", f"{path}?fieldValidation=Strict", body)
    assert (reply.code, [c["field"] for c in reply.json.get("details", {}).get("causes", ())]) == (code, words)


@pytest.mark.parametrize("said", ["7", "[]", "{", "null", '{"offered": "perhaps"}'])
async def test_what_was_kept_and_is_nonsense_is_refused(w: World, said: str) -> None:
    body = old()
    body["metadata"]["annotations"] = {KEPT: said}
    assert (await w.call("POST", OLD, body)).code == 422


async def test_the_newest_version_says_itself_what_the_older_keeps(w: World) -> None:
    body = new()
    body["metadata"]["annotations"] = {KEPT: "{}"}
    reply = await w.call("POST", NEW, body)
    assert (reply.code, reply.json["details"]["causes"][0]["field"]) == (422, f"metadata.annotations[{KEPT}]")


async def test_the_old_version_says_that_it_is_old(w: World) -> None:
    assert (await w.call("POST", OLD, old())).headers["warning"] == WARNING
    for path in (OLD, f"{OLD}/f", f"{OLD}/nothing"):
        assert (await w.call("GET", path)).headers["warning"] == WARNING
    for path in (NEW, f"{NEW}/f", "/apis/bessemer.dev/v1alpha1/hosts"):
        assert "warning" not in (await w.call("GET", path)).headers


async def test_both_are_told_of_and_the_newest_is_preferred(w: World) -> None:
    group = (await w.call("GET", "/apis/bessemer.dev")).json
    assert group["preferredVersion"]["version"] == "v1beta1"
    hashes = set()
    for version, field in (("v1alpha1", "gpus"), ("v1beta1", "devices")):
        listed = (await w.call("GET", f"/apis/bessemer.dev/{version}")).json["resources"]
        hashes |= {r["storageVersionHash"] for r in listed if r["name"] == "flavors"}
        schemas = (await w.call("GET", f"/openapi/v3/apis/bessemer.dev/{version}")).json["components"]["schemas"]
        assert field in schemas[f"dev.bessemer.{version}.Flavor"]["properties"]["spec"]["properties"]
    assert len(hashes) == 1
    both = (await w.call("GET", "/openapi/v2")).json["definitions"]
    assert {"dev.bessemer.v1alpha1.Flavor", "dev.bessemer.v1beta1.Flavor"} <= both.keys()


# --- who set which field ------------------------------------------------------------------------------------------


async def test_each_author_is_kept_in_the_version_in_which_they_wrote(w: World) -> None:
    await w.create(f"{OLD}?fieldManager=maker", old(gpus=1))
    body = (await w.call("PATCH", f"{NEW}/f?fieldManager=other", {"spec": {"cores": 8}}, media=MERGE)).json
    found = owners(body)
    assert found["other"] == ("bessemer.dev/v1beta1", {"f:cores": {}})
    version, fields = found["maker"]
    assert version == "bessemer.dev/v1alpha1"
    assert "f:cpus" not in fields
    assert "f:gpus" in fields


async def test_a_conflict_is_found_across_versions(w: World) -> None:
    assert (await apply(w, old(), "one")).code == 201
    refused = await apply(w, new(cores=8), "two")
    assert refused.code == 409
    assert refused.json["details"]["causes"][0]["message"] == 'conflict with "one"'
    assert (await apply(w, new(cores=8), "two", force=True)).code == 200
    found = owners((await w.call("GET", f"{NEW}/f")).json)
    assert found == {
        "one": ("bessemer.dev/v1alpha1", {"f:memory": {}}),
        "two": ("bessemer.dev/v1beta1", {"f:cores": {}, "f:memory": {}}),
    }


async def test_who_applies_in_another_version_is_the_same(w: World) -> None:
    await apply(w, old(gpus=2, sameSwitch=True, disk="1Gi"), "one")
    await apply(w, old(disk="1Gi"), "two")
    reply = await apply(w, new(), "one")
    assert (reply.code, "devices" in reply.json["spec"]) == (200, False)
    assert reply.json["spec"]["disk"] == "1Gi", "the other one owns it, in the older version"
    assert owners(reply.json)["one"] == ("bessemer.dev/v1beta1", {"f:cores": {}, "f:memory": {}})
    assert len(reply.json["metadata"]["managedFields"]) == 2
    again = await apply(w, new(), "one")
    assert again.json["metadata"]["resourceVersion"] == reply.json["metadata"]["resourceVersion"]


@pytest.mark.parametrize(
    "fields",
    [
        {"f:metadata": {}, "f:spec": {}},
        {"f:metadata": {".": {}}, "f:spec": {".": {}}},
        {"f:spec": {"f:gpus": {".": {}}, "f:cpus": {"f:x": {}}}},
        {"f:metadata": {"f:name": {}, "f:annotations": {}}, "f:kind": {}},
    ],
)
async def test_entries_of_hostile_clients_are_looked_at_in_either_version(w: World, fields: Any) -> None:
    body = new(offered=False, devices={"count": 1})
    entry = {"manager": "m", "operation": "Apply", "apiVersion": "bessemer.dev/v1alpha1", "fieldsType": "FieldsV1"}
    made = await w.create(NEW, body)
    made["metadata"]["managedFields"] = [{**entry, "fieldsV1": fields}]
    assert (await w.call("PUT", f"{NEW}/f", made)).code == 200
    for manager in ("m", "n"):
        for said in (new(offered=False), old()):
            assert (await apply(w, said, manager)).code in (200, 409)
    wrong = new()
    wrong["metadata"]["annotations"] = "text"
    assert (await apply(w, wrong, "m")).code == 422


@pytest.mark.parametrize("said", [[], "x", {"devices": 7}, {"devices": {"together": 7}}, {"cores": {}}])
async def test_an_apply_of_nonsense_across_versions_is_refused(w: World, said: Any) -> None:
    await apply(w, old(gpus=1), "one")
    body = {**new(), "spec": said}
    assert (await apply(w, body, "two")).code in (400, 409, 422)
    assert (await apply(w, body, "two", force=True)).code in (400, 422)
