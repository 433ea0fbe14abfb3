"""The real kubectl with Kubernetes' own kinds: what it sends in protobuf, patches from both sides, tables, waits."""

from __future__ import annotations

import asyncio

import pytest
import yaml

from tests.clients.plane import PROJECT, Plane

pytestmark = pytest.mark.real

SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "MQ=="}}


def test_core_kinds_from_the_terminal(control: Plane) -> None:
    def k(*arguments: str, text: str = "", code: int = 0) -> str:
        return asyncio.run(control.kubectl.run(*arguments, text=text, code=code))

    assert k("create", "ns", "acme--term") == "namespace/acme--term created\n"
    assert "TENANT--PROJECT" in k("create", "ns", "plain", code=1)
    assert k("label", "ns", "acme--term", "a=b") == "namespace/acme--term labeled\n"
    assert k("get", "ns", "acme--term", "--no-headers").split()[:2] == ["acme--term", "Active"]
    assert k("create", "configmap", "c", "--from-literal=a=1") == "configmap/c created\n"
    assert k("patch", "cm", "c", "-p", '{"data":{"b":"2"}}') == "configmap/c patched\n"
    assert k("get", "cm", "c", "--no-headers").split()[:2] == ["c", "2"]
    assert k("create", "secret", "generic", "g", "--from-literal=a=1") == "secret/g created\n"
    assert k("get", "secret", "g", "--no-headers").split()[:3] == ["g", "Opaque", "1"]
    text = yaml.safe_dump(SECRET)
    for said in ("created", "unchanged"):
        assert k("apply", "-f", "-", text=text) == f"secret/s {said}\n"
    changed = text.replace("MQ==", "Mg==")
    assert "***" in k("diff", "-f", "-", text=changed, code=1), "what it shows of Secrets it masks"
    assert k("apply", "-f", "-", text=changed) == "secret/s configured\n"
    assert k("apply", "--server-side", "--force-conflicts", "-f", "-", text=text) == "secret/s serverside-applied\n"
    assert k("get", "secret", "s", "-o", "jsonpath={.data.a}") == "MQ=="
    assert "a:  1 bytes" in k("describe", "secret", "s")
    assert k("wait", "--for=condition=Established", "crd/instances.bessemer.dev").endswith("condition met\n")
    assert "holderIdentity" in k("explain", "lease.spec")
    assert k("delete", "secret/s", "secret/g", "configmap/c").count("deleted") == 3
    assert "deleted" in k("delete", "ns", "acme--term")
    assert k("get", "ns", "-o", "name").split() == [f"namespace/{PROJECT}", "namespace/other--lab"]
