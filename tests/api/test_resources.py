"""Objects over HTTP, story by story: request, answer, in the words of a Kubernetes server."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest

from bessemer.api.warnings import WARNING_MAX
from bessemer.core.errors import Conflict
from bessemer.core.ports import CONTROLLER, Stored
from bessemer.core.resource import Key
from tests.api.world import BASE, World, instance, named

LAB = f"{BASE}/namespaces/acme--lab/instances"
MERGE, JSON = "application/merge-patch+json", "application/json-patch+json"
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
PARTIAL = {"accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}

LET = "an administrator lets it by spec.tolerations of its Tenant"


async def test_create_fills_in_defaults_and_answers_what_is_stored(w: World) -> None:
    made = await w.create(LAB, {**instance("a"), "status": {"phase": "Running"}})
    assert (made["kind"], made["apiVersion"]) == ("Instance", "bessemer.dev/v1alpha1")
    assert made["spec"]["running"] is True
    assert "status" not in made
    assert made["metadata"]["generation"] == 1
    reply = await w.call("GET", f"{LAB}/a")
    assert reply.json == made
    assert reply.body == (await w.store.objects.get(Key("Instance", "acme--lab", "a"))).body


async def test_create_what_exists(w: World) -> None:
    await w.create(LAB, instance("a"))
    reply = await w.call("POST", LAB, instance("a"))
    assert reply.code == 409
    assert reply.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'instances.bessemer.dev "a" already exists',
        "reason": "AlreadyExists",
        "details": {"name": "a", "group": "bessemer.dev", "kind": "instances"},
        "code": 409,
    }


async def test_create_without_a_name(w: World) -> None:
    reply = await w.call("POST", LAB, {"metadata": {}, "spec": {"flavor": "s", "image": "i"}})
    assert reply.code == 422
    assert reply.json["message"] == (
        'Instance.bessemer.dev "" is invalid: metadata.name: Required value: name or generateName is required'
    )
    assert reply.json["details"] == {
        "group": "bessemer.dev",
        "kind": "Instance",
        "causes": [
            {
                "reason": "FieldValueRequired",
                "message": "Required value: name or generateName is required",
                "field": "metadata.name",
            }
        ],
    }


async def test_a_generated_name_is_unique(w: World) -> None:
    body = {"metadata": {"generateName": "run-"}, "spec": {"flavor": "s", "image": "i"}}
    names = {(await w.create(LAB, body))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("run-") for name in names)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"kind": "Foo"}, 422, 'kind: Invalid value: "Foo": must be Instance'),
        ({"apiVersion": "bessemer.dev/v2"}, 400, "does not match the expected API version"),
        (
            {"metadata": {"name": "a", "namespace": "other--lab"}},
            400,
            "does not match the namespace sent",
        ),
        ({"metadata": []}, 422, "metadata"),
        ({"spec": None}, 422, "spec"),
        ({"spec": {"flavor": "s"}}, 422, "spec.image: Required value"),
        ({"spec": {"flavor": "s", "image": "i", "nope": 1}}, 400, 'unknown field "spec.nope"'),
        ({"bogus": 1}, 400, 'unknown field "bogus"'),
        ({"spec": {"flavor": "s", "image": "i", "restartPolicy": "Often"}}, 422, 'supported values: "Always", "Never"'),
        ({"spec": {"flavor": "s", "image": "i", "tolerations": [{"key": 5}]}}, 422, "spec.tolerations[0].key"),
    ],
)
async def test_what_is_wrong_is_named(w: World, change: dict[str, Any], code: int, words: str) -> None:
    reply = await w.call("POST", LAB, {**instance("a"), **change})
    assert reply.code == code, reply.body
    assert words in reply.json["message"]


async def test_a_project_that_is_not_there(w: World) -> None:
    reply = await w.call("POST", LAB.replace("acme--lab", "acme--none"), instance("a"))
    assert (reply.code, reply.json["message"]) == (404, 'namespaces "acme--none" not found')


async def test_unknown_fields_are_refused_unless_asked_else(w: World) -> None:
    body = instance("a", typo=1)
    assert (await w.call("POST", LAB, body)).code == 400
    warned = await w.call("POST", f"{LAB}?fieldValidation=Warn", body)
    assert (warned.code, warned.headers["warning"]) == (201, '299 - "unknown field \\"spec.typo\\""')
    assert "typo" not in warned.json["spec"]
    ignored = await w.call("POST", f"{LAB}?fieldValidation=Ignore", instance("b", typo=1))
    assert "warning" not in ignored.headers
    assert (await w.call("POST", f"{LAB}?fieldValidation=Maybe", body)).code == 422


async def test_a_warning_is_told_whatever_the_field_is_called(w: World) -> None:
    """The object is made by then: an answer that cannot be sent would say that it is not."""
    odd = instance("a", **{"\u202e\u6771": 1, "a\r\nx: y": 1, 'q"\\': 1})
    refused = await w.call("POST", f"{LAB}?fieldValidation=Warn", odd)
    assert refused.code == 422
    odd = instance("a", **{"\u6771": 1, "a\tb\nx: y": 1, 'q"\\': 1})
    warned = await w.call("POST", f"{LAB}?fieldValidation=Warn", odd)
    assert (warned.code, warned.headers["warning"].split(", ")) == (
        201,
        [
            r'299 - "unknown field \"spec.\\u6771\""',
            r'299 - "unknown field \"spec.a\\tb\\nx: y\""',
            r'299 - "unknown field \"spec.q\"\\\""',
        ],
    )
    many = await w.call(
        "POST", f"{LAB}?fieldValidation=Warn", instance("b", **{f"k{i}" + "x" * 200: 1 for i in range(900)})
    )
    assert (many.code, len(many.headers["warning"]) <= WARNING_MAX) == (201, True)


async def test_a_dry_run_writes_nothing(w: World) -> None:
    before = w.store.revision
    reply = await w.call("POST", f"{LAB}?dryRun=All", instance("a"))
    assert (reply.code, reply.json["metadata"]["name"]) == (201, "a")
    assert (await w.call("POST", f"{LAB}?dryRun=bad", instance("a"))).code == 422
    assert w.store.revision == before
    await w.create(LAB, instance("a"))
    before = w.store.revision
    patch = {"spec": {"running": False}}
    assert (await w.call("PATCH", f"{LAB}/a?dryRun=All", patch, media=MERGE)).json["spec"]["running"] is False
    assert (await w.call("DELETE", f"{LAB}/a", {"dryRun": ["All"]})).code == 200
    assert (await w.call("DELETE", f"{LAB}/a?dryRun=All")).code == 200
    assert w.store.revision == before


async def test_put_names_its_revision(w: World) -> None:
    made = await w.create(LAB, instance("a"))
    body = {**made, "spec": {**made["spec"], "running": False}}
    reply = await w.call("PUT", f"{LAB}/a", body)
    assert (reply.code, reply.json["metadata"]["generation"]) == (200, 2)
    stale = await w.call("PUT", f"{LAB}/a", body)
    assert stale.code == 409
    assert stale.json["message"].startswith('Operation cannot be fulfilled on instances.bessemer.dev "a": ')
    without = {**body, "metadata": {"name": "a"}}
    assert (await w.call("PUT", f"{LAB}/a", without)).json["details"]["causes"][0][
        "field"
    ] == "metadata.resourceVersion"
    other = {**body, "metadata": {**body["metadata"], "name": "b"}}
    assert (await w.call("PUT", f"{LAB}/a", other)).code == 400
    reborn = {**reply.json, "metadata": {**reply.json["metadata"], "uid": "x"}}
    assert (await w.call("PUT", f"{LAB}/a", reborn)).code == 409
    assert (
        await w.call("PUT", f"{LAB}/none", {**body, "metadata": {"name": "none", "resourceVersion": "1"}})
    ).code == 404


async def test_a_write_that_changes_nothing_keeps_the_revision(w: World) -> None:
    made = await w.create(LAB, instance("a"))
    reply = await w.call("PATCH", f"{LAB}/a", {"spec": {"running": True}}, media=MERGE)
    assert reply.json["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_merge_patch(w: World) -> None:
    made = await w.create(LAB, instance("a"))
    reply = await w.call("PATCH", f"{LAB}/a", {"metadata": {"labels": {"x": "y", "z": ""}}}, media=MERGE)
    assert reply.json["metadata"]["labels"] == {"x": "y", "z": ""}
    reply = await w.call("PATCH", f"{LAB}/a", {"metadata": {"labels": {"x": None}}}, media=MERGE)
    assert reply.json["metadata"]["labels"] == {"z": ""}
    assert reply.json["metadata"]["generation"] == 1
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "spec": {"running": False}}
    assert (await w.call("PATCH", f"{LAB}/a", stale, media=MERGE)).code == 409
    assert (await w.call("PATCH", f"{LAB}/a", [1], media=MERGE)).code == 422
    assert (await w.call("PATCH", f"{LAB}/a", {"metadata": {"name": "b"}}, media=MERGE)).code == 400
    assert (await w.call("PATCH", f"{LAB}/a", {"spec": None}, media=MERGE)).code == 422
    assert (await w.call("PATCH", f"{LAB}/none", {}, media=MERGE)).code == 404
    assert (await w.call("PATCH", f"{LAB}/a", {"status": {"phase": "Running"}}, media=MERGE)).json.get("status") is None


async def test_json_patch(w: World) -> None:
    made = await w.create(LAB, instance("a"))
    revision = made["metadata"]["resourceVersion"]
    good = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": revision},
        {"op": "replace", "path": "/spec/running", "value": False},
    ]
    assert (await w.call("PATCH", f"{LAB}/a", good, media=JSON)).json["spec"]["running"] is False
    failing = await w.call("PATCH", f"{LAB}/a", good, media=JSON)
    assert (failing.code, failing.json["reason"]) == (422, "Invalid")
    for bad, code in (
        ([{"op": "remove", "path": "/spec/zzz"}], 422),
        ({"spec": 1}, 400),
        ([{"op": "dance", "path": "/spec"}], 400),
        ([{"path": "/spec"}], 400),
        ([{"op": "add", "path": "spec", "value": 1}], 422),
        ([{"op": "add", "path": "/spec/flavor/x", "value": 1}], 422),
        ([{"op": "replace", "path": "", "value": []}], 400),
        ([{"op": "move", "from": "/spec", "path": "/spec/x"}], 422),
    ):
        reply = await w.call("PATCH", f"{LAB}/a", bad, media=JSON)
        assert reply.code in (code, 400, 422), (bad, reply.code, reply.body)


@pytest.mark.parametrize(
    "media",
    ["application/strategic-merge-patch+json", "application/json", "text/x"],
)
async def test_other_patches_are_told_which_are_accepted(w: World, media: str) -> None:
    await w.create(LAB, instance("a"))
    reply = await w.call("PATCH", f"{LAB}/a", {"spec": {}}, media=media)
    assert (reply.code, reply.json["reason"]) == (415, "UnsupportedMediaType")
    assert "application/merge-patch+json" in reply.json["message"]


async def test_delete_without_finalizers(w: World) -> None:
    made = await w.create(f"{BASE}/users", named("ghost"))
    await w.store.objects.replace({**made, "metadata": {**made["metadata"], "finalizers": []}}, CONTROLLER)
    reply = await w.call("DELETE", f"{BASE}/users/ghost", {"propagationPolicy": "Background"})
    assert reply.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "ghost", "group": "bessemer.dev", "kind": "users", "uid": made["metadata"]["uid"]},
    }
    assert (await w.call("DELETE", f"{BASE}/users/ghost")).code == 404


async def test_delete_with_a_finalizer_begins(w: World) -> None:
    made = await w.create(LAB, instance("a"))
    reply = await w.call("DELETE", f"{LAB}/a")
    assert reply.code == 200
    assert reply.json["metadata"]["deletionTimestamp"]
    again = await w.call("DELETE", f"{LAB}/a")
    assert again.json["metadata"] == reply.json["metadata"]
    more = {"metadata": {"finalizers": [*made["metadata"]["finalizers"], "x.dev/y"]}}
    assert (await w.call("PATCH", f"{LAB}/a", more, media=MERGE)).code == 422


async def test_delete_under_preconditions(w: World) -> None:
    await w.create(LAB, instance("a"))
    for conditions, words in (
        ({"uid": "zzz"}, "is another object now"),
        ({"resourceVersion": "1"}, "has been modified"),
    ):
        for dry in ({}, {"dryRun": ["All"]}):
            reply = await w.call("DELETE", f"{LAB}/a", {"preconditions": conditions, **dry})
            assert reply.code == 409
            assert words in reply.json["message"]
    assert (await w.call("DELETE", f"{LAB}/a", {"preconditions": 5})).code == 400
    assert (await w.call("DELETE", f"{LAB}/a", b"k8s\0", media="application/vnd.kubernetes.protobuf")).code in (
        400,
        415,
    )


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"propagationPolicy": "Foreground"}, 200),
        ({"propagationPolicy": "Orphan"}, 200),
        ({"orphanDependents": True}, 200),
        ({"propagationPolicy": "Sideways"}, 422),
    ],
)
async def test_what_an_object_owned_goes_with_it(w: World, said: dict[str, Any], code: int) -> None:
    await w.create(LAB, instance("a"))
    reply = await w.call("DELETE", f"{LAB}/a", said)
    assert reply.code == code, reply.body
    if code == 422:
        assert reply.json["details"]["kind"] == "DeleteOptions"
        assert reply.json["details"]["causes"][0]["message"].endswith('"Foreground", "Orphan", "nil"')
        assert "deletionTimestamp" not in (await w.call("GET", f"{LAB}/a")).json["metadata"]


async def test_a_patch_of_no_operations_is_the_clients_mistake(w: World) -> None:
    await w.create(LAB, instance("a"))
    for change in ([None], [1], [[]]):
        reply = await w.call("PATCH", f"{LAB}/a", change, media="application/json-patch+json")
        assert reply.code in (400, 422), reply.body


async def test_a_revision_ahead_is_not_read(w: World) -> None:
    made = await w.create(LAB, instance("a"))
    for revision, code in ((made["metadata"]["resourceVersion"], 200), ("0", 200), ("999999999", 504), ("x", 400)):
        assert (await w.call("GET", f"{LAB}/a?resourceVersion={revision}")).code == code


async def test_a_dry_run_gives_no_revision(w: World) -> None:
    tried = await w.call("POST", f"{LAB}?dryRun=All", instance("a"))
    assert "resourceVersion" not in tried.json["metadata"]
    made = await w.create(LAB, instance("a"))
    change = {"spec": {"running": False}}
    tried = await w.call("PATCH", f"{LAB}/a?dryRun=All", change, media=MERGE)
    gone = await w.call("DELETE", f"{LAB}/a?dryRun=All")
    revisions = {one["metadata"]["resourceVersion"] for one in (tried.json, gone.json, made)}
    assert len(revisions) == 1


async def test_a_change_between_the_look_and_the_deletion_is_seen(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await w.create(LAB, instance("a"))
    look = w.store.objects.get

    async def overtaken(key: Key) -> Stored:
        found = await look(key)
        if key.kind == "Instance":
            changed = {**made, "metadata": {**made["metadata"], "labels": {"a": "b"}}}
            with suppress(Conflict):
                await w.store.objects.replace(changed, CONTROLLER)
        return found

    monkeypatch.setattr(w.store.objects, "get", overtaken)
    meant = {"preconditions": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    assert (await w.call("DELETE", f"{LAB}/a", meant)).code == 409
    monkeypatch.undo()
    assert (await w.call("GET", f"{LAB}/a")).json["metadata"]["labels"] == {"a": "b"}
    latest = (await w.call("GET", f"{LAB}/a")).json["metadata"]["resourceVersion"]
    assert (await w.call("DELETE", f"{LAB}/a", {"preconditions": {"resourceVersion": latest}})).code == 200


async def test_formats(w: World) -> None:
    await w.create(LAB, instance("a"))
    no_type = await w.call("POST", LAB, orjson.dumps(instance("b")), media="")
    assert no_type.code == 201
    text = b"apiVersion: bessemer.dev/v1alpha1\nkind: Instance\nmetadata: {name: c}\nspec:\n  flavor: s\n  image: i\n"
    assert (await w.call("POST", LAB, text, media="application/yaml")).code == 201
    assert (await w.call("POST", LAB, b"x", media="text/plain")).code == 415
    assert (await w.call("GET", f"{LAB}/a", headers={"accept": "text/html"})).code == 406
    assert (await w.call("GET", f"{LAB}/a", headers={"accept": "application/vnd.kubernetes.protobuf"})).code == 406
    both = {"accept": "application/vnd.kubernetes.protobuf,application/json"}
    assert (await w.call("GET", f"{LAB}/a", headers=both)).code == 200
    as_yaml = await w.call("GET", f"{LAB}/a", headers={"accept": "application/yaml"})
    assert as_yaml.headers["content-type"].startswith("application/yaml")
    assert b"kind: Instance" in as_yaml.body
    partial = await w.call("GET", f"{LAB}/a", headers=PARTIAL)
    assert partial.json["kind"] == "PartialObjectMetadata"
    assert "spec" not in partial.json
    assert (await w.call("GET", f"{LAB}/a/")).code == 200


async def test_a_table_has_the_kinds_columns_and_an_age(w: World) -> None:
    await w.create(LAB, instance("a"))
    table = (await w.call("GET", f"{LAB}?limit=500", headers=TABLE)).json
    names = [c["name"] for c in table["columnDefinitions"]]
    assert (names[0], names[-1]) == ("Name", "Age")
    assert table["rows"][0]["cells"][0] == "a"
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert {c["priority"] for c in table["columnDefinitions"]} == {0, 1}
    for include, kind in (("None", None), ("Object", "Instance")):
        one = (await w.call("GET", f"{LAB}/a?includeObject={include}", headers=TABLE)).json
        assert (one["rows"][0]["object"] or {}).get("kind") == kind


async def test_a_request_has_an_id(w: World) -> None:
    reply = await w.call("GET", f"{LAB}/none", headers={"x-request-id": "mine-1"})
    assert reply.headers["x-request-id"] == "mine-1"
    reply = await w.call("GET", f"{LAB}/none", headers={"x-request-id": "not good\n"})
    assert len(reply.headers["x-request-id"]) == 16


async def test_figures(w: World) -> None:
    await w.create(LAB, instance("a"))
    await w.call("GET", f"{LAB}/none")
    text = (await w.call("GET", "/metrics")).body.decode()
    route = "/apis/{group}/{version}/namespaces/{namespace}/{plural}"
    assert f'bessemer_api_requests_total{{code="201",route="{route}",verb="POST"}} 1.0' in text
    assert f'bessemer_api_request_seconds_count{{route="{route}/{{name}}",verb="GET"}} 1.0' in text


async def test_namespaces_are_projects(w: World) -> None:
    one = (await w.call("GET", "/api/v1/namespaces/acme--lab")).json
    assert (one["kind"], one["status"]) == ("Namespace", {"phase": "Active"})


async def test_events_are_found_by_what_they_are_about(w: World) -> None:
    made = await w.create(LAB, instance("a"))
    uid = made["metadata"]["uid"]
    await w.store.events.emit(Key("Instance", "acme--lab", "a"), uid, "Placed", "on host h1")
    await w.store.events.emit(Key("Instance", "acme--lab", "b"), "other", "Placed", "on host h2")
    selector = f"involvedObject.name=a,involvedObject.namespace=acme--lab,involvedObject.uid={uid}"
    reply = await w.call("GET", f"/api/v1/namespaces/acme--lab/events?fieldSelector={selector}")
    assert [e["message"] for e in reply.json["items"]] == ["on host h1"]
    assert (await w.call("GET", "/api/v1/namespaces/acme--lab/events?fieldSelector=message=x")).code == 400


async def test_a_workload_tolerates_what_its_tenant_may_and_the_rest_is_named(w: World) -> None:
    merge = "application/merge-patch+json"
    lab, acme = f"{BASE}/namespaces/acme--lab/instances", f"{BASE}/tenants/acme"
    endpoints = f"{BASE}/namespaces/acme--lab/endpoints"
    dedicated, slow = {"key": "dedicated"}, {"key": "slow"}
    await w.call("PATCH", acme, {"spec": {"tolerations": [slow]}}, media=merge)
    for token in (await w.login("ann"), await w.login("mia"), ""):
        for path, spec in ((lab, {"flavor": "f", "image": "i"}), (endpoints, {"flavor": "f", "model": "m"})):
            reply = await w.call("POST", path, named("x", **spec, tolerations=[slow, dedicated]), token=token)
            assert reply.code == 422, reply.body
            [cause] = reply.json["details"]["causes"]
            assert cause["field"] == "spec.tolerations[1].key"
            assert cause["message"] == f'Forbidden: "dedicated": tenant acme may tolerate slow; {LET}'
    reply = await w.call("POST", f"{BASE}/namespaces/other--lab/instances", instance("x", tolerations=[slow]))
    assert (reply.code, reply.json["details"]["causes"][0]["message"]) == (
        422,
        f'Forbidden: "slow": tenant other may tolerate no taint; {LET}',
    )
    mia = await w.login("mia")
    await w.create(lab, instance("a", tolerations=[slow, {"key": "*"}]), token=mia)
    for change in ([dedicated], [slow, dedicated]):
        reply = await w.call("PATCH", f"{lab}/a", {"spec": {"tolerations": change}}, token=mia, media=merge)
        assert reply.code == 422, reply.body
    await w.call("PATCH", acme, {"spec": {"tolerations": []}}, media=merge)
    # What it says already it may go on saying: whoever stops it must not be kept from that. Nothing lands by it.
    assert (await w.call("PATCH", f"{lab}/a", {"spec": {"running": False}}, token=mia, media=merge)).code == 200
    assert (await w.call("POST", lab, instance("b", tolerations=[slow]), token=mia)).code == 422
