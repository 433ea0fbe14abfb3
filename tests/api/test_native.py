"""Kubernetes' own kinds beside ours: ConfigMaps, Leases, Namespaces, Events in both words, and definitions of kinds."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bessemer.api.protobuf import KINDS as TABLES
from bessemer.api.protobuf import MEDIA
from bessemer.api.shown import FILES_AT_ONCE
from bessemer.core.clock import FakeClock
from bessemer.core.resource import GROUP, Key
from bessemer.kinds import KINDS
from bessemer.kinds.kubernetes.files import BYTES_MAX
from tests.api.test_protobuf import encoded, enveloped
from tests.api.world import BASE, GATEWAY, World, instance, named, world

LAB = "/api/v1/namespaces/acme--lab"
MAPS, EVENTS = f"{LAB}/configmaps", f"{LAB}/events"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/acme--lab/leases"
NEW_EVENTS = "/apis/events.k8s.io/v1/namespaces/acme--lab/events"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


def body(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **fields}


# --- configmaps -------------------------------------------------------------------------------------------------------


async def test_a_configmap_is_kept_as_it_was_written(w: World) -> None:
    text = "\ufeff[a]\n\tx = \x1b[0m 'ü'\n"
    binary = base64.b64encode(bytes(range(256))).decode()
    made = await w.create(MAPS, body("c", data={"a.ini": text}, binaryData={"b": binary}))
    assert (made["apiVersion"], made["kind"], made["data"], made["binaryData"]) == (
        "v1",
        "ConfigMap",
        {"a.ini": text},
        {"b": binary},
    )
    assert not {"spec", "status", "immutable"} & made.keys()
    stored = await w.store.objects.get(Key("ConfigMap", "acme--lab", "c"))
    assert (await w.call("GET", f"{MAPS}/c")).body == stored.body, "what is stored is what is served"
    [row] = (await w.call("GET", MAPS, headers=TABLE)).json["rows"]
    assert row["cells"][:2] == ["c", 2]
    reply = await w.call("PUT", f"{MAPS}/c", {**made, "data": {"new": "x"}, "binaryData": None})
    assert (reply.json["data"], "binaryData" in reply.json, reply.json["metadata"]["generation"]) == (
        {"new": "x"},
        False,
        2,
    )
    reply = await w.call("PATCH", f"{MAPS}/c", {"data": None}, media=MERGE)
    assert "data" not in reply.json
    assert (await w.call("DELETE", f"{MAPS}/c")).json["status"] == "Success"
    assert (await w.call("GET", f"{MAPS}/c")).code == 404


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"data": {"a b": ""}}, "data[a b]"),
        ({"data": {"a": 1}}, "data.a"),
        ({"data": {"a": ""}, "binaryData": {"a": ""}}, "binaryData[a]"),
        ({"binaryData": {"a": "?"}}, "binaryData[a]"),
        ({"data": {"a": "x" * (BYTES_MAX + 1)}}, ""),
    ],
)
async def test_what_is_wrong_with_a_configmap_is_named(w: World, fields: Any, field: str) -> None:
    reply = await w.call("POST", MAPS, body("c", **fields))
    assert reply.code == 422, reply.body
    assert reply.json["details"]["causes"][0].get("field", "") == field


async def test_fields_that_no_configmap_has_are_refused(w: World) -> None:
    reply = await w.call("POST", MAPS, body("c", datas={}))
    assert (reply.code, reply.json["message"]) == (400, 'strict decoding error: unknown field "datas"')
    reply = await w.call("POST", f"{MAPS}?fieldValidation=Warn", body("c", datas={}, data={"a": "b"}))
    assert (reply.code, reply.json["data"], reply.headers["warning"]) == (
        201,
        {"a": "b"},
        '299 - "unknown field \\"datas\\""',
    )


async def test_configmaps_are_applied_field_by_field(w: World) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    reply = await w.call("PATCH", f"{MAPS}/c?fieldManager=a", {**config, "data": {"x": "1"}}, media=APPLY)
    assert reply.code == 201
    reply = await w.call("PATCH", f"{MAPS}/c?fieldManager=b", {**config, "data": {"y": "1"}}, media=APPLY)
    assert reply.json["data"] == {"x": "1", "y": "1"}
    reply = await w.call("PATCH", f"{MAPS}/c?fieldManager=b", {**config, "data": {"x": "2"}}, media=APPLY)
    assert (reply.code, reply.json["details"]["causes"][0]["field"]) == (409, ".data.x")
    reply = await w.call("PATCH", f"{MAPS}/c?fieldManager=a", config, media=APPLY)
    assert reply.json["data"] == {"y": "1"}


async def test_others_see_none_of_it(w: World) -> None:
    await w.create(MAPS, body("c", data={"a": "b"}))
    await w.create(LEASES, body("l", spec={"holderIdentity": "me"}))
    eve, rob = await w.login("eve"), await w.login("rob")
    for path in (f"{MAPS}/c", f"{LEASES}/l", MAPS, LEASES):
        assert (await w.call("GET", path, token=eve)).code == 404
        assert (await w.call("GET", path, token=rob)).code == 200
    for path in (f"{MAPS}/c", f"{LEASES}/l"):
        for method in ("PUT", "PATCH", "DELETE"):
            assert (await w.call(method, path, body("c"), token=eve, media=MERGE)).code == 404
            assert (await w.call(method, path, body("c"), token=rob, media=MERGE)).code == 403
    assert (await w.call("GET", "/api/v1/configmaps", token=eve)).json["items"] == []


# --- protobuf ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "version", "kind", "value"),
    [
        ("/api/v1/namespaces", "v1", "Namespace", {"metadata": {"name": "acme--pb", "labels": {"a": "b"}}}),
        (MAPS, "v1", "ConfigMap", {"metadata": {"name": "pb"}, "data": {"a": "b"}, "binaryData": {"c": "AP8="}}),
        (
            f"{LAB}/secrets",
            "v1",
            "Secret",
            {"metadata": {"name": "pb"}, "data": {"a": "AP8="}, "type": "helm.sh/release.v1"},
        ),
        (
            LEASES,
            "coordination.k8s.io/v1",
            "Lease",
            {
                "metadata": {"name": "pb"},
                "spec": {
                    "holderIdentity": "me",
                    "leaseDurationSeconds": 15,
                    "renewTime": "2026-01-01T00:00:00.123456Z",
                },
            },
        ),
        (
            EVENTS,
            "v1",
            "Event",
            {
                "metadata": {"name": "pb"},
                "involvedObject": {"kind": "Instance", "namespace": "acme--lab", "name": "vm"},
                "reason": "R",
                "firstTimestamp": "2026-01-01T00:00:00Z",
                "count": 1,
                "type": "Normal",
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value[0].isupper() else "",
)
async def test_typed_clients_write_protobuf(w: World, path: str, version: str, kind: str, value: Any) -> None:
    raw = enveloped(version, kind, encoded(value, TABLES[version, kind]))
    reply = await w.call("POST", path, raw, media=MEDIA, headers={"accept": f"{MEDIA},application/json"})
    assert reply.code == 201, reply.body

    def holds(said: Any, shown: Any) -> bool:
        return said == shown if not isinstance(said, dict) else all(holds(said[key], shown.get(key)) for key in said)

    assert holds(value, reply.json), reply.json


# --- strategic merge patches ------------------------------------------------------------------------------------------


async def test_strategic_patches_are_taken_for_kubernetes_own_kinds(w: World) -> None:
    await w.create(MAPS, {"metadata": {"name": "c", "finalizers": ["a.example/x"]}, "data": {"a": "1", "b": "2"}})
    for change, data, finalizers in (
        ({"data": {"a": None, "c": "3"}}, {"b": "2", "c": "3"}, ["a.example/x"]),
        ({"metadata": {"finalizers": ["b.example/y"]}}, {"b": "2", "c": "3"}, ["a.example/x", "b.example/y"]),
        (
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.example/x"]}},
            {"b": "2", "c": "3"},
            ["b.example/y"],
        ),
        (
            {"metadata": {"$setElementOrder/finalizers": ["b.example/y"]}, "data": {"$retainKeys": ["c"], "d": "4"}},
            {"c": "3", "d": "4"},
            ["b.example/y"],
        ),
        ({"data": {"$patch": "replace", "e": "5"}}, {"e": "5"}, ["b.example/y"]),
        ({"data": {"$patch": "delete"}}, None, ["b.example/y"]),
    ):
        reply = await w.call("PATCH", f"{MAPS}/c", change, media=STRATEGIC)
        assert (reply.code, reply.json.get("data")) == (200, data), change
        assert reply.json["metadata"]["finalizers"] == finalizers
    assert (await w.call("PATCH", f"{MAPS}/c", {"data": {"$patch": "x"}}, media=STRATEGIC)).code == 400
    assert (await w.call("PATCH", f"{MAPS}/c", [], media=STRATEGIC)).code == 422
    await w.create(f"{BASE}/namespaces/acme--lab/instances", instance("vm"))
    reply = await w.call("PATCH", f"{BASE}/namespaces/acme--lab/instances/vm", {}, media=STRATEGIC)
    assert reply.code == 415
    assert "strategic" not in reply.json["message"]


async def test_strategic_patches_of_strange_shapes_cost_nothing(w: World) -> None:
    await w.create(MAPS, {"metadata": {"name": "c"}, "data": {"a": "1"}})
    many = [f"x{n}" for n in range(30_000)]
    for change in (
        {"metadata": {"finalizers": many, "$deleteFromPrimitiveList/finalizers": many}},
        {"$retainKeys": many, "metadata": {"$retainKeys": [{}, None, *many]}},
        {"data": {"$deleteFromPrimitiveList/a": ["1"]}, "immutable": {"$patch": "replace"}},
        {"metadata": {"ownerReferences": [{"name": "no uid"}]}},
        {"metadata": {"finalizers": {"$patch": "delete"}, "labels": [{"$patch": "replace"}]}},
        {"$patch": "delete"},
        {"$deleteFromPrimitiveList/": 5, "$setElementOrder/": 5, "metadata": 5},
    ):
        began = time.process_time()
        reply = await w.call("PATCH", f"{MAPS}/c", change, media=STRATEGIC)
        assert reply.code < 500, (change, reply.body)
        assert time.process_time() - began < 1


async def test_large_files_are_listed_a_few_at_a_time(w: World) -> None:
    """So that nobody fills the server's memory with a list, or with watches of them."""
    for number in range(40):
        await w.create(MAPS, body(f"c{number:02}", data={"a": str(number)}))
    most, asked = 0, w.store.objects.list

    async def counted(scope: Any, **options: Any) -> Any:
        nonlocal most
        page = await asked(scope, **options)
        most = max(most, len(page.items))
        return page

    w.store.objects.list = counted  # type: ignore[method-assign]
    names = [f"c{number:02}" for number in range(40)]
    whole = (await w.call("GET", MAPS)).json
    assert ([item["metadata"]["name"] for item in whole["items"]], whole["metadata"].keys()) == (
        names,
        {"resourceVersion"},
    )
    async with w.watch(f"{MAPS}?watch=1") as events:
        assert [name for _, name in await events.names(40)] == names
    assert most == FILES_AT_ONCE
    found, after = [], ""
    while True:
        page = (await w.call("GET", f"{MAPS}?limit=30&continue={after}")).json
        found += [item["metadata"]["name"] for item in page["items"]]
        after = page["metadata"].get("continue", "")
        if not after:
            break
    assert (found, most) == (names, FILES_AT_ONCE)


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_of_two_that_want_a_lease_one_has_it(w: World) -> None:
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}
    lease = await w.create(LEASES, body("l", spec=spec))
    assert "status" not in lease
    first = await w.call(
        "PUT", f"{LEASES}/l", {**lease, "spec": {**spec, "holderIdentity": "b", "leaseTransitions": 1}}
    )
    second = await w.call("PUT", f"{LEASES}/l", {**lease, "spec": {**spec, "holderIdentity": "c"}})
    assert (first.code, second.code) == (200, 409)
    assert (await w.call("GET", f"{LEASES}/l")).json["spec"]["holderIdentity"] == "b"
    [row] = (await w.call("GET", LEASES, headers=TABLE)).json["rows"]
    assert row["cells"][:2] == ["l", "b"]
    for wrong, field in (
        ({"leaseDurationSeconds": 0}, "spec.leaseDurationSeconds"),
        ({"renewTime": "yesterday"}, "spec.renewTime"),
        ({"leaseTransitions": -1}, "spec.leaseTransitions"),
    ):
        reply = await w.call("PATCH", f"{LEASES}/l", {"spec": wrong}, media=MERGE)
        assert (reply.code, reply.json["details"]["causes"][0]["field"]) == (422, field)


async def test_the_trail_tells_who_took_a_lease_and_not_that_they_kept_it(w: World) -> None:
    lease = await w.create(LEASES, body("l", spec={"holderIdentity": "a"}))
    for holder, second in (("a", 1), ("a", 2), ("b", 3)):
        lease["spec"] = {"holderIdentity": holder, "renewTime": f"2026-01-01T00:00:0{second}.000000Z"}
        lease = (await w.call("PUT", f"{LEASES}/l", lease)).json
    rows = [row.verb for row in await w.store.audit.rows() if row.key == "Lease acme--lab/l"]
    assert rows == ["create", "update"]


# --- namespaces -------------------------------------------------------------------------------------------------------


async def test_a_namespace_is_a_project(w: World) -> None:
    made = await w.create("/api/v1/namespaces", {"metadata": {"name": "acme--new", "labels": {"name": "x"}}})
    assert (made["kind"], made["spec"], made["status"]) == (
        "Namespace",
        {"finalizers": ["kubernetes"]},
        {"phase": "Active"},
    )
    project = (await w.call("GET", f"{BASE}/projects/acme--new")).json
    assert (project["metadata"]["uid"], project["metadata"]["labels"]) == (made["metadata"]["uid"], {"name": "x"})
    await w.create(f"{BASE}/namespaces/acme--new/instances", instance("vm"))
    assert (await w.call("POST", "/api/v1/namespaces", body("acme--new"))).code == 409
    assert (await w.call("DELETE", "/api/v1/namespaces/acme--new")).json["status"] == {"phase": "Terminating"}
    assert (await w.call("GET", "/api/v1/namespaces/acme--new")).json["status"] == {"phase": "Terminating"}
    reply = await w.call("POST", f"{BASE}/namespaces/acme--new/instances", instance("b"))
    assert (reply.code, "being terminated" in reply.json["message"]) == (403, True)


async def test_of_a_namespace_the_metadata_is_written_and_the_project_keeps_the_rest(w: World) -> None:
    await w.create(f"{BASE}/projects", named("acme--p", displayName="P", quota={"instances": 3}))
    path = "/api/v1/namespaces/acme--p"
    one = (await w.call("GET", path)).json
    one["metadata"]["labels"] = {"a": "1"}
    assert (await w.call("PUT", path, one)).json["metadata"]["labels"] == {"a": "1"}
    assert (await w.call("PUT", path, one)).code == 409, "the revision has moved on"
    for change, media in (
        ({"metadata": {"labels": {"b": "2"}}}, MERGE),
        ({"metadata": {"annotations": {"c": "3"}}}, STRATEGIC),
        ([{"op": "add", "path": "/metadata/labels/d", "value": "4"}], "application/json-patch+json"),
        ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acme--p", "labels": {"e": "5"}}}, APPLY),
    ):
        reply = await w.call("PATCH", f"{path}?fieldManager=m", change, media=media)
        assert reply.code == 200, reply.body
    project = (await w.call("GET", f"{BASE}/projects/acme--p")).json
    assert project["metadata"]["labels"] == {"a": "1", "b": "2", "d": "4", "e": "5"}
    assert project["metadata"]["annotations"] == {"c": "3"}
    assert (project["spec"]["displayName"], project["spec"]["quota"]["instances"]) == ("P", 3)
    assert project["metadata"]["finalizers"] == ["bessemer.dev/project"]
    versions = {entry["apiVersion"] for entry in project["metadata"]["managedFields"]}
    assert versions == {"v1", f"{GROUP}/v1alpha1"}, "each view's writers are kept"
    again = await w.call("PATCH", f"{path}?fieldManager=m", change, media=APPLY)
    assert again.json["metadata"]["resourceVersion"] == project["metadata"]["resourceVersion"]
    reply = await w.call("PATCH", f"{path}?dryRun=All", {"metadata": {"labels": {"z": "9"}}}, media=MERGE)
    assert (reply.json["kind"], reply.json["metadata"]["labels"]["z"]) == ("Namespace", "9")
    assert "z" not in (await w.call("GET", path)).json["metadata"]["labels"]


async def test_a_namespace_has_a_projects_name_and_its_makers_rights(w: World) -> None:
    for name in ("plain", "a--b--c", "--x", "acme--" + "x" * 60):
        reply = await w.call("POST", "/api/v1/namespaces", body(name))
        assert (reply.code, reply.json["reason"]) == (422, "Invalid"), name
        assert reply.json["details"]["causes"][0]["field"] == "metadata.name"
    assert "TENANT--PROJECT" in (await w.call("POST", "/api/v1/namespaces", body("plain"))).json["message"]
    for user, code in (("ann", 201), ("mia", 403), ("rob", 403), ("eve", 403)):
        token = await w.login(user)
        assert (await w.call("POST", "/api/v1/namespaces", body(f"acme--{user}"), token=token)).code == code, user
    assert (await w.call("DELETE", "/api/v1/namespaces/acme--lab", token=await w.login("mia"))).code == 403
    assert (await w.call("DELETE", "/api/v1/namespaces/acme--lab", token=await w.login("eve"))).code == 404


async def test_a_watch_of_namespaces_tells_of_projects(w: World) -> None:
    async with w.watch("/api/v1/namespaces?watch=1&fieldSelector=metadata.name%3Dacme--new") as events:
        await w.create(f"{BASE}/projects", named("acme--new"))
        event = await events.next()
        assert (event["type"], event["object"]["kind"]) == ("ADDED", "Namespace")
        await w.call("PATCH", "/api/v1/namespaces/acme--new", {"metadata": {"labels": {"a": "b"}}}, media=MERGE)
        event = await events.next()
        assert (event["type"], event["object"]["metadata"]["labels"]) == ("MODIFIED", {"a": "b"})


# --- events -----------------------------------------------------------------------------------------------------------

TOLD = {
    "metadata": {"generateName": "kopf-event-"},
    "action": "Action?",
    "type": "Normal",
    "reason": "Logging",
    "message": "Handler 'create' succeeded.",
    "reportingComponent": "kopf",
    "reportingInstance": "dev",
    "source": {"component": "kopf"},
    "involvedObject": {"apiVersion": f"{GROUP}/v1alpha1", "kind": "Instance", "name": "vm", "namespace": "acme--lab"},
    "firstTimestamp": "2026-01-01T00:00:00.000000Z",
    "lastTimestamp": "2026-01-01T00:00:00.000000Z",
    "eventTime": "2026-01-01T00:00:00.000000Z",
}


async def test_an_event_is_one_under_both_names(w: World) -> None:
    mia = await w.login("mia")
    made = await w.create(EVENTS, TOLD, token=mia)
    name = made["metadata"]["name"]
    newer = (await w.call("GET", f"{NEW_EVENTS}/{name}")).json
    assert (newer["apiVersion"], newer["note"], newer["regarding"]["name"]) == (
        "events.k8s.io/v1",
        TOLD["message"],
        "vm",
    )
    assert (newer["reportingController"], newer["deprecatedSource"]["component"]) == ("kopf", "kopf")
    said = {**newer, "metadata": {"name": "second"}, "action": "Started"}
    del said["deprecatedFirstTimestamp"], said["deprecatedLastTimestamp"]
    await w.create(NEW_EVENTS, said, token=mia)
    older = (await w.call("GET", f"{EVENTS}/second")).json
    assert (older["message"], older["firstTimestamp"], older["action"]) == (
        TOLD["message"],
        TOLD["eventTime"],
        "Started",
    )
    counted = {"count": 2, "lastTimestamp": "2026-01-01T00:00:09Z"}
    reply = await w.call("PATCH", f"{EVENTS}/second", counted, media=STRATEGIC, token=mia)
    assert (reply.code, reply.json["count"], reply.json["message"]) == (200, 2, TOLD["message"])
    for path, selector in ((EVENTS, "involvedObject.name"), (NEW_EVENTS, "regarding.name")):
        found = (await w.call("GET", f"{path}?fieldSelector={selector}%3Dvm")).json["items"]
        assert {event["metadata"]["name"] for event in found} == {name, "second"}
        assert (await w.call("GET", f"{path}?fieldSelector={selector}%3Dother")).json["items"] == []
    async with w.watch(f"{NEW_EVENTS}?watch=1") as events:
        assert (await events.next())["object"]["apiVersion"] == "events.k8s.io/v1"
    assert not [row for row in await w.store.audit.rows() if row.key.startswith("Event") and row.verb != "delete"]


async def test_what_nobody_may_tell(w: World) -> None:
    mia = await w.login("mia")
    for change, field in (
        ({"involvedObject": {"namespace": "other--lab"}}, "involvedObject.namespace"),
        ({"reportingComponent": "bessemer"}, "reportingComponent"),
        ({"source": {"component": "bessemer"}}, "source.component"),
        ({"message": "x" * 9000}, "message"),
    ):
        reply = await w.call("POST", EVENTS, {**TOLD, **change}, token=mia)
        assert (reply.code, reply.json["details"]["causes"][0]["field"]) == (422, field)
    reply = await w.call("POST", NEW_EVENTS, {"metadata": {"name": "x"}, "type": "Bad"}, token=mia)
    fields = {cause["field"] for cause in reply.json["details"]["causes"]}
    assert fields == {"eventTime", "reportingController", "action", "reportingInstance", "reason", "type"}
    assert (await w.call("POST", EVENTS, TOLD, token=await w.login("rob"))).code == 403
    assert (await w.call("POST", EVENTS, TOLD, token=await w.login("eve"))).code == 404
    vm = Key("Instance", "acme--lab", "vm")
    await w.store.events.emit(vm, "u", "Placed", "on host h1")
    [ours] = (await w.call("GET", EVENTS)).json["items"]
    reply = await w.call("PATCH", f"{EVENTS}/{ours['metadata']['name']}", {"message": "x"}, media=MERGE, token=mia)
    assert reply.code == 422, "what the platform told stays as it was told"


async def test_what_stands_under_a_name_of_ours_gives_way(w: World) -> None:
    vm = Key("Instance", "acme--lab", "vm")
    await w.store.events.emit(vm, "u", "Placed", "on host h1")
    [ours] = (await w.call("GET", EVENTS)).json["items"]
    name = ours["metadata"]["name"]
    await w.call("DELETE", f"{EVENTS}/{name}")
    await w.create(EVENTS, {**TOLD, "metadata": {"name": name}, "message": "forged"})
    await w.store.events.emit(vm, "u", "Placed", "on host h1")
    [event] = (await w.call("GET", EVENTS)).json["items"]
    assert (event["message"], event["count"]) == ("on host h1", 1)


async def test_the_oldest_event_of_a_project_gives_way(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = w.store.objects._kinds["Event"]  # type: ignore[attr-defined]
    from dataclasses import replace

    monkeypatch.setitem(w.store.objects._kinds, "Event", replace(facts, most=3))  # type: ignore[attr-defined]
    for number in range(5):
        await w.create(EVENTS, {**TOLD, "metadata": {"name": f"e{number}"}})
    found = (await w.call("GET", EVENTS)).json["items"]
    assert [event["metadata"]["name"] for event in found] == ["e2", "e3", "e4"]


# --- definitions ------------------------------------------------------------------------------------------------------


async def test_each_kind_of_ours_has_a_definition(w: World) -> None:
    new = await w.login("new")
    listed = (await w.call("GET", DEFINITIONS, token=new)).json
    assert (listed["kind"], listed["apiVersion"]) == ("CustomResourceDefinitionList", "apiextensions.k8s.io/v1")
    ours = [kind for kind in KINDS if kind.group == GROUP]
    assert {d["metadata"]["name"] for d in listed["items"]} == {f"{kind.plural}.{GROUP}" for kind in ours}
    one = (await w.call("GET", f"{DEFINITIONS}/instances.{GROUP}", token=new)).json
    assert one in listed["items"]
    assert (one["spec"]["scope"], one["spec"]["names"]["shortNames"]) == ("Namespaced", ["vm", "inst"])
    assert {c["type"]: c["status"] for c in one["status"]["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    [version] = one["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    assert schema["properties"]["spec"]["properties"]["flavor"]["type"] == "string"
    assert (version["subresources"], version["served"], version["storage"]) == ({"status": {}}, True, True)
    several = (await w.call("GET", f"{DEFINITIONS}/flavors.{GROUP}", token=new)).json
    new_one, old_one = several["spec"]["versions"]
    assert (new_one["name"], new_one["storage"], "deprecated" in new_one) == ("v1beta1", True, False)
    assert (old_one["name"], old_one["served"], old_one["storage"]) == ("v1alpha1", True, False)
    assert old_one["deprecated"]
    assert "v1beta1" in old_one["deprecationWarning"]
    for version, field in ((new_one, "cores"), (old_one, "cpus")):
        assert field in version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert several["status"]["storedVersions"] == ["v1beta1"]
    assert (await w.call("GET", f"{DEFINITIONS}/none.{GROUP}")).code == 404
    assert (await w.call("POST", DEFINITIONS, body("x"))).code == 403
    assert (await w.call("DELETE", f"{DEFINITIONS}/instances.{GROUP}")).code == 405
    selected = f"{DEFINITIONS}?fieldSelector=metadata.name%3Dinstances.{GROUP}"
    assert len((await w.call("GET", selected)).json["items"]) == 1
    assert len((await w.call("GET", selected, headers=TABLE)).json["rows"]) == 1


async def test_definitions_are_read_by_people_and_by_credentials_within_their_bounds(w: World) -> None:
    agent = await w.host("h")
    for peer in (agent, GATEWAY):
        assert (await w.call("GET", DEFINITIONS, peer=peer)).code == 403
        assert (await w.call("GET", f"{DEFINITIONS}/instances.{GROUP}", peer=peer)).code == 404
    mia, own = await w.login("mia"), f"{BASE}/namespaces/acme--lab/applicationcredentials"
    name = f"instances.{GROUP}"
    bounds: list[tuple[dict[str, Any], int | None]] = [
        ({}, len([kind for kind in KINDS if kind.group == GROUP])),
        ({"roles": ["reader"]}, len([kind for kind in KINDS if kind.group == GROUP])),
        ({"names": [name]}, 1),
        ({"kinds": ["Instance"]}, None),
    ]
    for number, (bound, shown) in enumerate(bounds):
        spec = {"expiresAt": "2099-01-01T00:00:00Z", **bound}
        await w.create(own, {**body(f"c{number}"), "spec": spec}, token=mia)
        token = (await w.call("POST", f"{own}/c{number}/token", {}, token=mia)).json["token"]
        reply = await w.call("GET", DEFINITIONS, token=token)
        assert (len(reply.json["items"]) if reply.code == 200 else None) == shown, bound
        one = await w.call("GET", f"{DEFINITIONS}/{name}", token=token)
        assert one.code == (200 if shown else 403), bound
        for method, path in (("POST", DEFINITIONS), ("DELETE", f"{DEFINITIONS}/{name}")):
            assert (await w.call(method, path, body("x"), token=token)).code in (403, 405), bound


async def test_a_watch_of_definitions_begins_with_them_and_tells_nothing_more() -> None:
    async with world(FakeClock()) as w:
        count = len([kind for kind in KINDS if kind.group == GROUP])
        query = "watch=1&allowWatchBookmarks=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        async with w.watch(f"{DEFINITIONS}?{query}") as events:
            assert len(await events.names(count)) == count
            assert (await events.next())["type"] == "BOOKMARK"
        listed = (await w.call("GET", DEFINITIONS)).json["metadata"]["resourceVersion"]
        async with w.watch(f"{DEFINITIONS}?watch=1&allowWatchBookmarks=1&resourceVersion={listed}") as events:
            await w.create(MAPS, body("c"))
            clock = w.clock
            assert isinstance(clock, FakeClock)
            await clock.advance(61)
            event = await events.next()
            assert (event["type"], event["object"]["kind"]) == ("BOOKMARK", "CustomResourceDefinition")


async def test_both_forms_of_discovery_know_them(w: World) -> None:
    core = {r["name"]: r for r in (await w.call("GET", "/api/v1")).json["resources"]}
    assert {"configmaps", "secrets", "events", "namespaces"} == set(core)
    verbs = {"create", "delete", "get", "list", "patch", "update", "watch"}
    assert set(core["secrets"]["verbs"]) == {*verbs, "deletecollection"}
    assert set(core["namespaces"]["verbs"]) == verbs
    assert (core["configmaps"]["shortNames"], core["namespaces"]["namespaced"]) == (["cm"], False)
    [crds] = (await w.call("GET", "/apis/apiextensions.k8s.io/v1")).json["resources"]
    assert crds["verbs"] == ["get", "list", "watch"]
    aggregated = {"accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    groups = {g["metadata"]["name"]: g for g in (await w.call("GET", "/apis", headers=aggregated)).json["items"]}
    assert {"coordination.k8s.io", "events.k8s.io", "apiextensions.k8s.io", GROUP} <= groups.keys()
    document = (await w.call("GET", "/openapi/v3/api/v1")).json
    assert "io.k8s.api.core.v1.Secret" in document["components"]["schemas"]
    patch = document["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"]
    assert STRATEGIC in patch["requestBody"]["content"]
