"""kubectl, unchanged, against the api: what it prints is kept in ``golden/`` and compared, ages and identities masked.

``GOLDEN=write`` rewrites the kept texts; read the difference before you commit it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from pydantic import BaseModel

from bessemer.api import openapi
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import API_VERSION, Key, Kind
from bessemer.kinds import KINDS
from tests.api.kubectl import Kubectl, kubectl
from tests.api.world import World, served, world

pytestmark = pytest.mark.real

GOLDEN = Path(__file__).parent / "golden"
VM = Key("Instance", "acme--lab", "vm")
MANIFEST = {
    "apiVersion": API_VERSION,
    "kind": "Instance",
    "metadata": {"name": "vm"},
    "spec": {"flavor": "small", "image": "micro"},
}
MASKS = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UID"),
    (re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"(Resource Version: +|resourceVersion: )\"?\d+\"?"), r"\1N"),
    (re.compile(r"\b\d+(ms|s)\b"), "AGE"),
    (re.compile(r"vm\.[0-9a-f]{16}"), "vm.EVENT"),
    (re.compile(r" +$", re.MULTILINE), ""),
    (re.compile(r"(?<=\S) {2,}"), "  "),
)


@dataclass
class Stage:
    w: World
    k: Kubectl

    async def expect(self, golden: str, *arguments: str, text: str = "", code: int = 0) -> None:
        """The command prints what is kept under that name."""
        compare(golden, await self.k.run(*arguments, text=text, code=code))

    async def apply(self, **spec: object) -> str:
        body = {**MANIFEST, "spec": {**MANIFEST["spec"], **spec}}  # type: ignore[dict-item]
        return await self.k.run("apply", "-f", "-", text=yaml.safe_dump(body))

    async def report(self, phase: str, ready: str) -> None:
        """What the controller would write, and its event."""
        stored = await self.w.store.objects.get(VM)
        body = orjson.loads(stored.body)
        condition = {
            "type": "Ready",
            "status": ready,
            "reason": phase,
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        body["status"] = {"phase": phase, "host": "h1", "conditions": [condition]}
        await self.w.store.objects.replace(body, CONTROLLER, part="status")
        await self.w.store.events.emit(VM, stored.uid, phase, f"the guest is {phase.lower()}")

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """What is begun within is left once it watches instances: a kubectl takes as long as it likes to start."""
        watches = self.w.api.state.metrics.watches.labels("instances")._value
        async with asyncio.timeout(60):
            while watches.get():  # by one that has ended, of which the server is still to hear
                await asyncio.sleep(0.01)
            yield
            while not watches.get():
                await asyncio.sleep(0.01)


def compare(name: str, text: str) -> None:
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with world() as w, served(w, tmp_path) as s:
        yield Stage(w, kubectl(s))


async def test_what_there_is(stage: Stage) -> None:
    lines = (await stage.k.run("api-resources", "--sort-by=name")).splitlines(keepends=True)
    # A kind more is no change of what was there: it adds no line to what is kept.
    known = {line.split()[0] for line in (GOLDEN / "api-resources.txt").read_text().splitlines()}
    compare("api-resources", "".join(line for line in lines if line.split()[0] in known))
    assert {kind.plural for kind in KINDS} <= {line.split()[0] for line in lines}
    await stage.expect("namespaces", "get", "namespaces")
    assert "v1.36.0+bessemer" in await stage.k.run("version")
    assert await stage.k.run("get", "--raw", "/readyz") == "ok"


async def test_apply_get_describe(stage: Stage) -> None:
    assert await stage.apply() == "instance.bessemer.dev/vm created\n"
    assert await stage.apply() == "instance.bessemer.dev/vm unchanged\n"
    assert await stage.apply(running=False) == "instance.bessemer.dev/vm configured\n"
    await stage.report("Running", "True")
    await stage.report("Running", "True")
    await stage.expect("get", "get", "instances")
    await stage.expect("get-wide", "get", "vm", "-A", "-o", "wide")
    await stage.expect("get-yaml", "get", "instance/vm", "-o", "yaml")
    await stage.expect("describe", "describe", "instance", "vm")
    await stage.expect("events", "get", "events")
    await stage.expect("get-many", "get", "vm,tenants,projects")
    await stage.expect("not-found", "get", "instance", "none", code=1)
    assert await stage.k.run("get", "instances", "-o", "jsonpath={.items[*].spec.flavor}") == "small"
    assert await stage.k.run("get", "instance", "vm", "--chunk-size=1", "-o", "name") == "instance.bessemer.dev/vm\n"


async def test_changes(stage: Stage) -> None:
    await stage.apply()
    run = stage.k.run
    assert await run("label", "instance", "vm", "tier=web") == "instance.bessemer.dev/vm labeled\n"
    assert await run("annotate", "instance", "vm", "note=x") == "instance.bessemer.dev/vm annotated\n"
    patch = '{"spec":{"running":false}}'
    assert await run("patch", "instance", "vm", "--type=merge", "-p", patch) == "instance.bessemer.dev/vm patched\n"
    patch = '[{"op":"replace","path":"/spec/running","value":true}]'
    assert await run("patch", "instance", "vm", "--type=json", "-p", patch) == "instance.bessemer.dev/vm patched\n"
    await stage.expect("patch-strategic", "patch", "instance", "vm", "-p", "{}", code=1)
    assert await run("get", "instances", "-l", "tier in (web,db),!none", "-o", "name") == "instance.bessemer.dev/vm\n"
    assert await run("get", "instances", "-l", "tier!=web", "-o", "name") == ""
    await stage.expect("diff", "diff", "-f", "-", text=yaml.safe_dump(MANIFEST | {"metadata": {"name": "vm"}}))
    await stage.expect("dry-run", "apply", "--dry-run=server", "-f", "-", text=yaml.safe_dump(MANIFEST))
    body = await run("get", "instance", "vm", "-o", "yaml")
    assert await run("replace", "-f", "-", text=body) == "instance.bessemer.dev/vm replaced\n"


async def test_what_is_wrong_is_told(stage: Stage) -> None:
    typo = {**MANIFEST, "spec": {"flavour": "small", "image": "micro", "restartPolicy": "Often"}}
    await stage.expect("apply-typo", "apply", "-f", "-", text=yaml.safe_dump(typo), code=1)
    wrong = {**MANIFEST, "spec": {"flavor": "small", "image": "micro", "restartPolicy": "Often"}}
    await stage.expect("apply-wrong", "apply", "-f", "-", text=yaml.safe_dump(wrong), code=1)


async def test_wait_for_ready_then_delete(stage: Stage) -> None:
    await stage.apply()
    async with stage.watched():
        waiting = asyncio.ensure_future(stage.k.run("wait", "--for=condition=Ready", "instance/vm", "--timeout=60s"))
    await stage.report("Booting", "False")
    await stage.report("Running", "True")
    assert await waiting == "instance.bessemer.dev/vm condition met\n"
    async with stage.watched():
        deleting = asyncio.ensure_future(stage.k.run("delete", "instance", "vm", "--timeout=60s"))
    body = orjson.loads((await stage.w.store.objects.get(VM)).body)
    assert body["metadata"]["deletionTimestamp"]
    body["metadata"]["finalizers"] = []
    await stage.w.store.objects.replace(body, CONTROLLER)
    assert await deleting == 'instance.bessemer.dev "vm" deleted from acme--lab namespace\n'
    assert await stage.k.run("delete", "instance", "vm", "--ignore-not-found") == ""


async def test_wait_begins_with_what_there_is(stage: Stage) -> None:
    """kubectl asks for it since 1.35: one that waits is told what there is, and that this was all, by one watch."""
    await stage.apply()
    for end, report in (
        ("--for=condition=Ready", ("Running", "True")),
        ("--for=jsonpath={.status.phase}=Booting", ("Booting", "False")),
    ):
        async with stage.watched():
            process = await stage.k.start("wait", end, "instance/vm", "--timeout=60s", "-v=6")
        await stage.report(*report)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert (process.returncode, out) == (0, b"instance.bessemer.dev/vm condition met\n"), err
        asked = [line for line in err.decode().splitlines() if "fieldSelector=metadata.name%3Dvm" in line]
        assert len(asked) == 1, asked
        assert "sendInitialEvents=true" in asked[0]
        assert "200 OK" in asked[0]


async def test_get_watch(stage: Stage) -> None:
    await stage.apply()
    process = await stage.k.start("get", "instances", "-w")
    assert process.stdout is not None
    shown = []
    async with asyncio.timeout(60):
        shown += [await process.stdout.readline() for _ in range(2)]
        for phase, ready in (("Booting", "False"), ("Running", "True")):
            await stage.report(phase, ready)
            shown.append(await process.stdout.readline())
    process.terminate()
    await process.communicate()
    compare("get-watch", b"".join(shown).decode())


async def test_explain(stage: Stage) -> None:
    await stage.expect("explain", "explain", "instance")
    await stage.expect("explain-recursive", "explain", "instances", "--recursive")
    await stage.expect("explain-field", "explain", "tenant.spec.members.role")


async def test_explain_from_the_protobuf_of_openapi_v2(stage: Stage) -> None:
    """As clients do that do not know v3; a second time they are told that nothing has changed."""
    explain = ("explain", "--output=plaintext-openapiv2")
    for kind in (kind for kind in KINDS if kind.name in ("Instance", "Endpoint", "Event")):
        lines = (await stage.k.run(*explain, kind.plural, "--recursive")).split("FIELDS:\n")[1].splitlines()
        assert own_fields(kind) <= {line.split("\t<")[0].strip() for line in lines}
    await stage.expect("explain-v2-field", *explain, "tenant.spec.members")
    assert (await answered(stage, "/openapi/v2", 200), await answered(stage, "/openapi/v2", 304)) == (1, 3)


async def test_apply_reads_the_protobuf_of_openapi_v2(stage: Stage) -> None:
    await stage.apply()
    assert await answered(stage, "/openapi/v2", 200) == 0
    assert await stage.apply(running=False) == "instance.bessemer.dev/vm configured\n"
    assert await answered(stage, "/openapi/v2", 200) == 1


async def test_kubectl_validates_by_openapi_v2_where_the_server_does_not(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``fieldValidation`` in the documents kubectl judges by itself: with what it reads of the protobuf."""
    monkeypatch.setattr(openapi, "document", partial(unvalidated, openapi.document))
    typo = {**MANIFEST, "spec": {"flavour": "small", "image": 7, "running": "often", "tolerations": {}}}
    await stage.expect("apply-v2-typo", "apply", "-f", "-", text=yaml.safe_dump(typo), code=1)
    assert await answered(stage, "/openapi/v2", 200) == 1
    assert await stage.apply(tolerations=None) == "instance.bessemer.dev/vm created\n"


def unvalidated(document: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """A document of a server that does not offer to find unknown fields."""
    made = document(*arguments)
    for said in made["paths"].values():
        for operation in (value for word, value in said.items() if word != "parameters"):
            operation["parameters"] = [one for one in operation["parameters"] if one["name"] != "fieldValidation"]
    return made


async def answered(stage: Stage, route: str, code: int) -> int:
    """How often a route was answered so."""
    line = f'bessemer_api_requests_total{{code="{code}",route="{route}",verb="GET"}} '
    told = (await stage.w.call("GET", "/metrics")).body.decode()
    return sum(int(float(found.removeprefix(line))) for found in told.splitlines() if found.startswith(line))


def own_fields(kind: Kind[Any, Any]) -> set[str]:
    """What the kind itself gives its objects: the fields of spec and status, of an Event those at the top."""
    fields = kind.resource.model_fields
    parts = [fields[part].annotation for part in ("spec", "status") if part in fields]
    models = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)] or [kind.resource]
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
async def test_every_kind_is_explained_to_its_last_field(stage: Stage, kind: Kind[Any, Any]) -> None:
    """A field shown as <Object> has fields of its own, or is one of those that hold what only others read."""
    free = {"managedFields", "intent", "detail", "arguments"}
    lines = (await stage.k.run("explain", kind.plural, "--recursive")).split("FIELDS:\n")[1].splitlines()
    fields = [line for line in lines if "\t<" in line]
    names = [line.split("\t")[0].strip() for line in fields]
    assert own_fields(kind) <= set(names)
    for name, line, following in zip(names, fields, [*fields[1:], ""], strict=True):
        depth = len(line) - len(line.lstrip())
        if "Object>" in line and name not in free:
            assert len(following) - len(following.lstrip()) > depth, line


async def test_a_person_sees_their_own(stage: Stage, tmp_path: Path) -> None:
    async with served(stage.w, tmp_path) as s:
        mia = kubectl(s, token=await stage.w.login("mia"))
        await mia.run("apply", "-f", "-", text=yaml.safe_dump(MANIFEST))
        assert await mia.run("get", "instances", "-A", "-o", "name") == "instance.bessemer.dev/vm\n"
        assert await mia.run("get", "ns", "-o", "name") == "namespace/acme--lab\n"
        compare("forbidden", await mia.run("get", "users", code=1))
        compare("other-tenant", await mia.run("get", "instances", "-n", "other--lab", code=1))


async def test_what_one_may(stage: Stage, tmp_path: Path) -> None:
    """kubectl asks in protobuf alone; the administrator, a member, and a stranger from another tenant."""

    async def can(k: Kubectl, *act: str) -> str:
        """yes, or why not."""
        asked = await k.start("auth", "can-i", *act)
        out, err = await asked.communicate()
        said = out.decode().strip()
        assert asked.returncode == (0 if said == "yes" else 1), err.decode()
        return said

    async with served(stage.w, tmp_path) as s:
        root = kubectl(s)
        for act in (
            ("get", "instances", "-n", "acme--lab"),
            ("get", "instances", "-A"),
            ("delete", "instances/vm"),
            ("get", "instances", "--subresource=log"),
            ("create", "hosts", "--subresource=token"),
            ("get", "/metrics"),
        ):
            assert await can(root, *act) == "yes", act
        assert await can(root, "update", "claims") != "yes"
        mia = kubectl(s, token=await stage.w.login("mia"))
        assert await can(mia, "create", "vm") == "yes"
        assert await can(mia, "list", "instances", "-A") == "yes"
        assert await can(mia, "create", "instances", "-n", "other--lab") == 'no - namespaces "other--lab" not found'
        assert await can(mia, "create", "instances", "-n", "other--no") == 'no - namespaces "other--no" not found'
        assert (await can(mia, "delete", "hosts")).startswith('no - hosts.bessemer.dev is forbidden: User "mia" cannot')
        assert await can(mia, "get", "/metrics") == 'no - User "mia" is no administrator'
        eve = kubectl(s, token=await stage.w.login("eve"))
        assert await can(eve, "get", "instances") == 'no - namespaces "acme--lab" not found'
        assert await can(eve, "get", "instances", "-n", "other--lab") == "yes"


def lines(text: str) -> set[str]:
    """Of a table, with a space between columns."""
    return {" ".join(line.split()) for line in text.splitlines()}


async def test_all_that_one_may(stage: Stage, tmp_path: Path) -> None:
    async with served(stage.w, tmp_path) as s:
        all_verbs = "[list watch create deletecollection get update patch delete]"
        shown = lines(await kubectl(s).run("auth", "can-i", "--list"))
        assert {f"instances.bessemer.dev [] [] {all_verbs}", f"hosts.bessemer.dev [] [] {all_verbs}"} <= shown
        assert {"claims.bessemer.dev [] [] [list watch get]", "[/metrics] [] [get]"} <= shown
        shown = lines(await kubectl(s, token=await stage.w.login("mia")).run("auth", "can-i", "--list"))
        assert {
            f"instances.bessemer.dev [] [] {all_verbs}",
            "projects.bessemer.dev [] [acme--lab] [get]",
            "tenants.bessemer.dev [] [] [list watch]",
            "users.bessemer.dev/password [] [mia] [create]",
        } <= shown
        assert not any(line.startswith(("hosts.", "users.bessemer.dev []", "[/metrics]")) for line in shown)
        shown = lines(await kubectl(s, token=await stage.w.login("eve")).run("auth", "can-i", "--list"))
        assert not any(line.startswith(("instances", "apikeys", "claims", "events")) for line in shown)
        assert not any("acme" in line for line in shown)
        assert "projects.bessemer.dev [] [other--lab] [get update patch delete]" in shown


async def test_who_one_is(stage: Stage, tmp_path: Path) -> None:
    async with served(stage.w, tmp_path) as s:
        assert await kubectl(s).run("auth", "whoami") == (
            "ATTRIBUTE   VALUE\nUsername    admin\nGroups      [system:masters system:authenticated]\n"
        )
        uid = (await stage.w.store.objects.get(Key("User", "", "mia"))).uid
        assert lines(await kubectl(s, token=await stage.w.login("mia")).run("auth", "whoami")) == {
            "ATTRIBUTE VALUE",
            "Username mia",
            f"UID {uid}",
            "Groups [system:authenticated]",
            "Extra: bessemer.dev/tenants [acme=member]",
        }
        eve = kubectl(s, token=await stage.w.login("eve"))
        assert await eve.run("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}") == "eve"


@pytest.mark.parametrize(("cascade", "left"), [("foreground", []), ("background", []), ("orphan", ["below"])])
async def test_kubectl_says_what_becomes_of_what_an_object_owned(stage: Stage, cascade: str, left: list[str]) -> None:
    maps = "/api/v1/namespaces/acme--lab/configmaps"
    top = await stage.w.create(maps, {"metadata": {"name": "top"}, "data": {}})
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "top", "uid": top["metadata"]["uid"]}
    await stage.w.create(maps, {"metadata": {"name": "below", "ownerReferences": [owner]}, "data": {}})
    said = await stage.k.run("delete", "configmap", "top", f"--cascade={cascade}")
    assert 'configmap "top" deleted' in said
    found = await stage.k.run("get", "configmaps", "-o", "name")
    assert [line.removeprefix("configmap/") for line in found.split()] == left
