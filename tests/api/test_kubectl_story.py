"""The rest of kubectl, in the order of a day: edit, watch, events, wait, delete of many; reviews from a file."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from tests.api.kubectl import Kubectl, kubectl
from tests.api.test_kubectl import Stage, compare
from tests.api.world import served, world

pytestmark = pytest.mark.real

MAPS = ("configmap/one", "configmap/two")
REVIEWS: dict[str, dict[str, Any]] = {
    "SelfSubjectAccessReview": {"resourceAttributes": {"verb": "get", "group": "bessemer.dev", "resource": "hosts"}},
    "SelfSubjectRulesReview": {"namespace": "acme--lab"},
    "SubjectAccessReview": {"user": "mia", "resourceAttributes": {"verb": "get", "resource": "hosts"}},
    "LocalSubjectAccessReview": {
        "user": "mia",
        "resourceAttributes": {"verb": "get", "resource": "configmaps", "namespace": "acme--lab"},
    },
    "TokenReview": {"token": "bss_x.y"},
    "SelfSubjectReview": {},
}


async def lines(process: asyncio.subprocess.Process, count: int) -> list[str]:
    """What a command that goes on has printed."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return [(await process.stdout.readline()).decode() for _ in range(count)]


async def end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    await process.wait()


async def vanish(stage: Stage) -> None:
    """What the controller does of an instance that is to go."""
    body = orjson.loads((await stage.w.store.objects.get(Key("Instance", "acme--lab", "vm"))).body)
    body["metadata"]["finalizers"] = []
    await stage.w.store.objects.replace(body, CONTROLLER)


async def test_a_day(tmp_path: Path) -> None:
    async with world() as w, served(w, tmp_path) as s:
        stage = Stage(w, kubectl(s))
        run = stage.k.run
        made = asyncio.ensure_future(run("wait", "--for=create", "instance/vm", "--timeout=60s"))
        await stage.apply()
        assert await made == "instance.bessemer.dev/vm condition met\n"
        async with stage.watched():
            watching = await stage.k.start("get", "instances", "--watch-only", "-o", "name")
        await edited(stage)
        await stage.report("Running", "True")
        assert await lines(watching, 2) == ["instance.bessemer.dev/vm\n"] * 2
        await end(watching)
        await stage.expect("story-events", "events", "--for", "instance/vm")
        patch = '{"status":{"phase":"Stopped"}}'
        await stage.expect(
            "story-status", "patch", "instance", "vm", "--type=merge", "--subresource=status", "-p", patch, code=1
        )
        assert "running: false" in await run("get", "instance", "vm", "--subresource=status", "-o", "yaml")
        await many(stage.k)
        async with stage.watched():
            gone = asyncio.ensure_future(run("wait", "--for=delete", "instance/vm", "--timeout=60s"))
        assert await run("delete", "instance", "vm", "--wait=false") == (
            'instance.bessemer.dev "vm" deleted from acme--lab namespace\n'
        )
        await vanish(stage)
        assert await gone == "instance.bessemer.dev/vm condition met\n"


async def edited(stage: Stage) -> None:
    """An editor that changes a word; one that changes nothing; one that writes what nobody knows."""
    editor = replace(stage.k, editor="sed -i -e 's/running: true/running: false/'")
    assert await editor.run("edit", "instance", "vm") == "instance.bessemer.dev/vm edited\n"
    assert await editor.run("edit", "instance", "vm") == "", "it was cancelled, as nothing has changed"
    wrong = replace(stage.k, editor="sed -i -e 's/running: false/runing: true/'")
    assert 'unknown field "spec.runing"' in await wrong.run("edit", "instance", "vm", code=1)


async def many(k: Kubectl) -> None:
    """Delete by a label, tried first, and all."""
    for name in MAPS:
        assert await k.run("create", "configmap", name.partition("/")[2]) == f"{name} created\n"
    await k.run("label", *MAPS, "tier=web")
    tried = await k.run("delete", "configmaps", "-l", "tier=web", "--dry-run=server")
    compare("story-delete-dry", tried)
    assert await k.run("get", "configmaps", "-o", "name") == "".join(f"{name}\n" for name in MAPS)
    compare("story-delete-all", await k.run("delete", "configmaps", "--all"))
    assert await k.run("get", "configmaps", "-o", "name") == ""


async def test_another_is_nobody_here(tmp_path: Path) -> None:
    async with world() as w, served(w, tmp_path) as s:
        stage = Stage(w, kubectl(s))
        await stage.apply()
        for arguments in (("delete", "instance", "vm"), ("auth", "can-i", "get", "instances"), ("get", "instances")):
            told = await stage.k.run(*arguments, "--as", "mia", code=1)
            assert 'cannot impersonate resource "users"' in told, arguments
        await stage.expect("story-as", "delete", "instance", "vm", "--as=mia", "--as-group=x", code=1)
        assert await stage.k.run("get", "instances", "-o", "name") == "instance.bessemer.dev/vm\n"


async def test_reviews_from_a_file(tmp_path: Path) -> None:
    """Judged by kubectl first, as it judges everything."""
    async with world() as w, served(w, tmp_path) as s:
        k = kubectl(s)
        for kind, spec in REVIEWS.items():
            group = "authorization.k8s.io" if "Access" in kind or "Rules" in kind else "authentication.k8s.io"
            space = {"metadata": {"namespace": "acme--lab"}} if kind.startswith("Local") else {}
            body = {"apiVersion": f"{group}/v1", "kind": kind, **space, **({"spec": spec} if spec else {})}
            told = await k.run("create", "-f", "-", "-o", "json", text=yaml.safe_dump(body))
            assert orjson.loads(told)["status"], kind
            typo = {**body, "spec": {**spec, "typo": 1}}
            refused = await k.run("create", "-f", "-", text=yaml.safe_dump(typo), code=1)
            assert "typo" in refused or "spec" in refused, (kind, refused)
