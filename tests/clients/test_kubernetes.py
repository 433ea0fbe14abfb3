"""The official Python client: typed CoreV1, custom objects, watches, the dynamic client, leader election, informers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection import leaderelection
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from tests.api.world import instance
from tests.clients.plane import PROJECT, Plane

pytestmark = pytest.mark.real

OURS = {"group": "bessemer.dev", "version": "v1alpha1", "namespace": PROJECT, "plural": "instances"}


@pytest.fixture
def api(control: Plane) -> Iterator[client.ApiClient]:
    """As a member, so that rights are asked for."""
    config.load_kube_config(str(control.config_of("mia")))
    with client.ApiClient() as found:
        yield found
    found.rest_client.pool_manager.clear()  # else its connections stay open, as it keeps them for ever


def test_core_objects_are_typed(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    assert [ns.metadata.name for ns in core.list_namespace().items] == [PROJECT]
    made = core.create_namespaced_config_map(
        PROJECT, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="k"), data={"a": "1"})
    )
    made.data["b"] = "2"
    assert core.replace_namespaced_config_map("k", PROJECT, made).data == {"a": "1", "b": "2"}
    assert core.patch_namespaced_config_map("k", PROJECT, {"data": {"a": None}}).data == {"b": "2"}
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map("k", PROJECT, made)
    assert stale.value.status == 409
    secret = client.V1Secret(metadata=client.V1ObjectMeta(generate_name="k-"), string_data={"t": "x"})
    kept = core.create_namespaced_secret(PROJECT, secret)
    assert (kept.data, kept.type, kept.metadata.name[:2]) == ({"t": "eA=="}, "Opaque", "k-")
    assert len(core.list_namespaced_secret(PROJECT, field_selector="type=Opaque").items) == 1
    with pytest.raises(ApiException) as denied:
        core.list_namespaced_secret("other--lab")
    assert denied.value.status == 404
    core.delete_namespaced_secret(kept.metadata.name, PROJECT)
    core.delete_namespaced_config_map("k", PROJECT)


def test_custom_objects_and_their_definitions(api: client.ApiClient) -> None:
    custom = client.CustomObjectsApi(api)
    body = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "Instance", **instance("typed")}
    made = custom.create_namespaced_custom_object(**OURS, body=body)
    changed = custom.patch_namespaced_custom_object(**OURS, name="typed", body={"spec": {"running": False}})
    assert (changed["spec"]["running"], changed["metadata"]["uid"]) == (False, made["metadata"]["uid"])
    assert len(custom.list_namespaced_custom_object(**OURS)["items"]) == 1
    definitions = client.ApiextensionsV1Api(api).list_custom_resource_definition().items
    [ours] = [d for d in definitions if d.spec.names.kind == "Instance"]
    assert (ours.spec.scope, ours.spec.versions[0].name) == ("Namespaced", "v1alpha1")
    assert ours.spec.versions[0].schema.open_apiv3_schema.properties["spec"].properties["flavor"].type == "string"
    custom.delete_namespaced_custom_object(**OURS, name="typed")


def test_lists_are_read_in_pages(control: Plane, api: client.ApiClient) -> None:
    """Of one revision; a list that the server has given up goes on where the client says that it may differ."""
    core = client.CoreV1Api(api)
    labels = {"paged": "1"}
    for name in ("p1", "p2", "p3", "p5"):
        core.create_namespaced_config_map(PROJECT, {"metadata": {"name": name, "labels": labels}})
    page = core.list_namespaced_config_map(PROJECT, limit=1, label_selector="paged")
    found, revision = [page.items[0].metadata.name], page.metadata.resource_version
    core.create_namespaced_config_map(PROJECT, {"metadata": {"name": "p4", "labels": labels}})
    while page.metadata._continue:
        last = page.metadata._continue
        page = core.list_namespaced_config_map(PROJECT, limit=1, label_selector="paged", _continue=last)
        assert page.metadata.resource_version == revision
        found += [item.metadata.name for item in page.items]
    assert found == ["p1", "p2", "p3", "p5"]
    with pytest.raises(ApiException) as expired:
        core.list_namespaced_config_map(PROJECT, limit=1, label_selector="paged", _continue=last)
    status = json.loads(expired.value.body)
    assert (expired.value.status, status["reason"]) == (410, "Expired")
    proceed = status["metadata"]["continue"]
    rest = core.list_namespaced_config_map(PROJECT, label_selector="paged", _continue=proceed)
    assert [item.metadata.name for item in rest.items] == ["p4", "p5"]
    core.delete_collection_namespaced_config_map(PROJECT, label_selector="paged")


def test_collections_are_deleted_by_one_request(api: client.ApiClient) -> None:
    core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
    for name, app in (("a", "x"), ("b", "x"), ("c", "y")):
        core.create_namespaced_config_map(PROJECT, {"metadata": {"name": name, "labels": {"collected": app}}})
        custom.create_namespaced_custom_object(
            **OURS, body={"apiVersion": "bessemer.dev/v1alpha1", "kind": "Instance", **instance(name)}
        )
    core.delete_collection_namespaced_config_map(PROJECT, label_selector="collected=x", dry_run="All")
    core.delete_collection_namespaced_config_map(PROJECT, label_selector="collected=x")
    left = core.list_namespaced_config_map(PROJECT, label_selector="collected").items
    assert [found.metadata.name for found in left] == ["c"]
    core.delete_collection_namespaced_config_map(
        PROJECT, field_selector="metadata.name=c", body=client.V1DeleteOptions(propagation_policy="Background")
    )
    assert core.list_namespaced_config_map(PROJECT, label_selector="collected").items == []
    gone = custom.delete_collection_namespaced_custom_object(**OURS)
    assert [found["metadata"]["name"] for found in gone["items"]] == ["a", "b", "c"]
    with pytest.raises(ApiException) as denied:
        core.delete_collection_namespaced_config_map("other--lab")
    assert denied.value.status == 404


def test_a_watch_goes_on_from_a_list(api: client.ApiClient) -> None:
    core, seen = client.CoreV1Api(api), watch.Watch()
    since = core.list_namespaced_secret(PROJECT).metadata.resource_version
    core.create_namespaced_secret(PROJECT, {"metadata": {"name": "w"}, "stringData": {"a": "1"}})
    core.patch_namespaced_secret("w", PROJECT, {"stringData": {"a": "2"}})
    core.delete_namespaced_secret("w", PROJECT)
    core.create_namespaced_secret(PROJECT, {"metadata": {"name": "last"}, "stringData": {"a": "3"}})
    found = []
    for event in seen.stream(core.list_namespaced_secret, PROJECT, resource_version=since, timeout_seconds=60):
        found.append((event["type"], event["object"].metadata.name, event["object"].data))
        if event["object"].metadata.name == "last":
            seen.stop()
    assert found == [("DELETED", "w", None), ("ADDED", "last", {"a": "Mw=="})]
    core.delete_namespaced_secret("last", PROJECT)


def test_the_dynamic_client_finds_what_there_is(api: client.ApiClient) -> None:
    found = dynamic.DynamicClient(api)
    leases = found.resources.get(api_version="coordination.k8s.io/v1", kind="Lease")
    leases.create(body={"metadata": {"name": "dyn"}, "spec": {"holderIdentity": "me"}}, namespace=PROJECT)
    taken = leases.patch(name="dyn", namespace=PROJECT, body={"spec": {"holderIdentity": "you"}})  # strategic, unasked
    assert taken.spec.holderIdentity == "you"
    applied = found.resources.get(api_version="v1", kind="ConfigMap").server_side_apply(
        namespace=PROJECT,
        name="dyn",
        body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dyn"}, "data": {"a": "b"}},
        field_manager="dyn",
    )
    assert applied.metadata.managedFields[0].operation == "Apply"


def test_events_are_told_in_both_words(api: client.ApiClient) -> None:
    now = "2026-01-01T00:00:00.000000Z"
    about = client.V1ObjectReference(kind="Instance", namespace=PROJECT, name="vm")
    said = client.EventsV1Event(
        metadata=client.V1ObjectMeta(generate_name="vm-"),
        event_time=now,
        reporting_controller="clients.example/test",
        reporting_instance="test-0",
        action="Looking",
        reason="Seen",
        note="it was seen",
        type="Normal",
        regarding=about,
    )
    made = client.EventsV1Api(api).create_namespaced_event(PROJECT, said)
    read = client.CoreV1Api(api).read_namespaced_event(made.metadata.name, PROJECT)
    assert (read.message, read.involved_object.name, read.reporting_component) == (
        "it was seen",
        "vm",
        said.reporting_controller,
    )


class Stops(Exception):
    """How a leader of this library stops: its work fails."""


def test_one_leads_and_another_follows_once_it_stops(api: client.ApiClient) -> None:
    led: list[str] = []
    locks: list[LeaseLock] = []
    turns = {"first": threading.Event(), "second": threading.Event()}

    def candidate(name: str) -> threading.Thread:
        def lead() -> None:
            led.append(name)
            assert turns[name].wait(90)
            raise Stops

        lock = LeaseLock("leader", PROJECT, name)
        locks.append(lock)
        asked = Config(
            lock,
            lease_duration=8,
            renew_deadline=6,
            retry_period=1,
            onstarted_leading=lead,
            onstopped_leading=lambda: None,
        )
        thread = threading.Thread(target=leaderelection.LeaderElection(asked).run)
        thread.start()
        return thread

    def until_led(by: list[str]) -> None:
        end = time.monotonic() + 60
        while led != by:
            assert time.monotonic() < end, led
            time.sleep(0.02)

    coordination = client.CoordinationV1Api(api)
    threads = [candidate("first")]
    try:
        until_led(["first"])
        threads.append(candidate("second"))
        held = coordination.read_namespaced_lease("leader", PROJECT)
        assert held.spec.holder_identity == "first"
        held.metadata.resource_version = "1"
        with pytest.raises(ApiException) as lost:
            coordination.replace_namespaced_lease("leader", PROJECT, held)
        assert lost.value.status == 409
        turns["first"].set()
        until_led(["first", "second"])
        now = coordination.read_namespaced_lease("leader", PROJECT).spec
        assert (now.holder_identity, now.renew_time.microsecond > 0) == ("second", True)
    finally:
        for turn in turns.values():
            turn.set()
        for thread in threads:
            thread.join(90)
        for lock in locks:
            lock.api_instance.api_client.rest_client.pool_manager.clear()
