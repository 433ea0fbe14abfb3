"""A tenant written to a folder and applied elsewhere is the same tenant."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from bessemer.cli.work.export import INDEX, gathered, write
from bessemer.core.errors import Invalid
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import tenant_of
from bessemer.kinds import KINDS
from tests.api.world import PASSWORD, World
from tests.cli.conftest import Cli

LAB = """\
kind: Project
metadata: {name: acme--web, labels: {stage: live}}
spec: {displayName: "Web: ünïcode", quota: {instances: 3, devices: {"*": 2}}}
---
kind: Instance
metadata: {name: vm, namespace: acme--web, labels: {tier: a}, annotations: {note: "two\\nlines"}}
spec: {flavor: small, image: micro, running: false}
---
kind: Endpoint
metadata: {name: smol, namespace: acme--lab}
spec: {model: smol, flavor: serve, replicas: 2}
---
kind: ApiKey
metadata: {name: app, namespace: acme--lab}
spec: {endpoints: [smol], description: what the app shows}
---
kind: ConfigMap
apiVersion: v1
metadata: {name: motd, namespace: acme--web}
data: {motd: hello}
---
kind: Secret
apiVersion: v1
metadata: {name: mail, namespace: acme--web}
stringData: {password: VALUE}
---
kind: RoleBinding
metadata: {name: acme--nights}
spec:
  role: acme--on-call
  subjects: [{kind: ApplicationCredential, name: acme--lab/ci}, {kind: Group, name: "corp:nights"}]
  scope: {project: acme--web, object: {kind: Instance, name: vm}}
---
kind: Role
metadata: {name: acme--on-call}
spec: {includes: [reader], rules: [{kinds: [Instance], subresources: [console], verbs: [get]}]}
"""
VALUE = "a value that no file has"
LEFT_OUT = ("ApplicationCredential", "Secret")
ANEW = [
    "ApiKey acme--lab/app: its token: `bessemer key token app -n acme--lab`",
    "ApplicationCredential acme--lab/ci: by whose it is: `bessemer credential create ci -n acme--lab`",
    "Secret acme--web/mail: all of it, no file has it: "
    "`kubectl create secret generic mail -n acme--web --from-literal KEY=VALUE`",
]
"""What an export leaves out, and says so: with the words that make it again."""


def tree(folder: Path) -> dict[str, str]:
    """Every file by path."""
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def objects(files: dict[str, str]) -> dict[str, str]:
    """Those of them that are to be applied."""
    return {path: text for path, text in files.items() if path.endswith(".yaml")}


def said(cli: Cli, tenant: str) -> list[tuple[Any, ...]]:
    """What is wanted in a tenant, straight from the store: names without the tenant's."""

    async def read(w: World) -> list[tuple[Any, ...]]:
        found = []
        for kind in KINDS:
            for stored in (await w.store.objects.list(Scope(kind=kind.name))).items:
                body = json.loads(stored.body)
                meta, place = body["metadata"], stored.key.namespace or stored.key.name
                if kind.name not in ("Event", "Lease", "Session", "User") and tenant in (tenant_of(place), place):
                    name = stored.key.name.removeprefix(tenant) if not stored.key.namespace else stored.key.name
                    words = (meta.get("labels", {}), meta.get("annotations", {}), body.get("spec", body.get("data")))
                    found.append((kind.name, stored.key.namespace.removeprefix(tenant), name, *words))
        return found

    return cli.do(read)


@pytest.fixture(scope="module")
def exported(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("exported")
    applied = cli("apply", "-f", "-", "--set", "all", "--tenant", "acme", stdin=LAB.replace("VALUE", VALUE))
    assert applied.code == 0, applied.err
    token = cli("key", "token", "app", "-n", "acme--lab").raw.strip()
    mia = cli("login", "mia", stdin=f"{PASSWORD}\n").raw.strip()
    bearer = cli("--token", mia, "credential", "create", "ci", "-n", "acme--lab").raw.strip()
    made = cli("tenant", "export", "acme", str(tmp_path / "acme"))
    assert made.code == 0
    assert made.err.splitlines() == [f"To be set anew: {line}" for line in ANEW]
    said = tree(tmp_path / "acme")
    assert json.loads(said[INDEX])["setAnew"] == ANEW
    assert said["README.md"].endswith("## To be set anew\n\n" + "".join(f"- {line}\n" for line in ANEW))
    for secret in (token, bearer, mia, VALUE, base64.b64encode(VALUE.encode()).decode(), "digest"):
        assert not [name for name, text in said.items() if secret in text]
    return tmp_path / "acme"


def test_applied_elsewhere_it_is_the_same(cli: Cli, fresh: Cli, exported: Path, tmp_path: Path) -> None:
    files = tree(exported)
    assert files.keys() == {
        INDEX,
        "README.md",
        "tenant.yaml",
        "projects/lab/project.yaml",
        "projects/lab/endpoints/smol.yaml",
        "projects/lab/apikeys/app.yaml",
        "projects/web/configmaps/motd.yaml",
        "rolebindings/nights.yaml",
        "roles/on-call.yaml",
        "projects/web/project.yaml",
        "projects/web/instances/vm.yaml",
    }
    for word in ("uid", "status:", "resourceVersion", "finalizers", "applyset", "managedFields"):
        assert not [name for name, text in files.items() if word in text], word
    applied = fresh("apply", "-f", str(exported))
    assert applied.code == 0, applied.err
    fresh("tenant", "export", "acme", str(tmp_path / "again"))
    again = tree(tmp_path / "again")
    assert objects(again) == objects(files)
    assert json.loads(again[INDEX])["setAnew"] == ANEW[:1], "what was left out is not there yet"
    set_label = "applyset.kubernetes.io/part-of"
    before = [(*one[:3], {k: v for k, v in one[3].items() if k != set_label}, *one[4:]) for one in said(cli, "acme")]
    assert {one[0] for one in before if one[0] in LEFT_OUT} == set(LEFT_OUT), "they are there, and are left out"
    assert said(fresh, "acme") == [one for one in before if one[0] not in LEFT_OUT]
    assert cli("diff", "-f", str(exported)).out == ""


def test_under_another_name(cli: Cli, exported: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    cli("tenant", "export", "acme", str(copy), "--as", "blue")
    assert "acme" not in "".join(text for name, text in tree(copy).items() if name.endswith(".yaml"))
    assert cli("apply", "-f", str(copy)).code == 0
    cli("tenant", "export", "blue", str(tmp_path / "back"), "--as", "acme")
    assert objects(tree(tmp_path / "back")) == objects(tree(exported))
    assert "no -- in it" in cli("tenant", "export", "acme", str(copy), "--as", "a--b").err
    assert cli("tenant", "export", "nobody", str(tmp_path / "none")).code == 1
    assert not (tmp_path / "none").exists()


def body(kind: str, name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": "bessemer.dev/v1alpha1", "kind": kind, "metadata": {"name": name, **place}, **more}


def test_an_earlier_export_is_brought_up_to_date_and_nothing_else_is_touched(tmp_path: Path) -> None:
    tenant, project = body("Tenant", "t", spec={}), body("Project", "t--p", spec={})
    vm = body("Instance", "vm", "t--p", spec={"flavor": "f", "image": "i"})
    folder = tmp_path / "t"
    write(gathered([tenant, project, vm], tenant="t", name="t"), folder)
    assert json.loads((folder / INDEX).read_text())["needs"] == ["Flavor f", "Image i"]
    (folder / "notes.txt").write_text("mine")
    write(gathered([tenant, project], tenant="t", name="t"), folder)
    assert tree(folder).keys() == {INDEX, "README.md", "notes.txt", "tenant.yaml", "projects/p/project.yaml"}
    assert not (folder / "projects" / "p" / "instances").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.yaml").write_text("")
    with pytest.raises(Invalid, match="holds something else"):
        write(gathered([tenant], tenant="t", name="t"), other)
    (folder / INDEX).write_text(json.dumps({"files": ["../other/mine.yaml"]}))
    with pytest.raises(Invalid, match="names files elsewhere"):
        write(gathered([tenant], tenant="t", name="t"), folder)
    assert (other / "mine.yaml").exists()


def test_a_secret_is_listed_and_not_written() -> None:
    found = gathered([body("Secret", "s", "t--p", data={"a": "Yg=="})], tenant="t", name="u")
    how = "kubectl create secret generic s -n u--p --from-literal KEY=VALUE"
    assert (found.files, found.anew) == ({}, [f"Secret u--p/s: all of it, no file has it: `{how}`"])


def test_a_credential_is_made_anew_by_whose_it_is() -> None:
    spec = {"role": "t--r", "subjects": [{"kind": "ApplicationCredential", "name": "t--p/c"}], "scope": {"tenant": "t"}}
    bodies = [body("ApplicationCredential", "c", "t--p", spec={"user": "ada"}), body("RoleBinding", "t--b", spec=spec)]
    found = gathered(bodies, tenant="t", name="u")
    assert found.anew == ["ApplicationCredential u--p/c: by whose it is: `bessemer credential create c -n u--p`"]
    (said,) = found.files.values()
    assert said["metadata"]["name"] == "u--b"
    told = {"role": "u--r", "subjects": [{"kind": "ApplicationCredential", "name": "u--p/c"}], "scope": {"tenant": "u"}}
    assert said["spec"] == told


def test_what_it_needs_is_said() -> None:
    tenant = {"members": [{"user": "ada"}], "hosts": {"names": ["h1"]}, "flavors": {"names": ["small"]}}
    binding = {"role": "on-call", "subjects": [{"kind": "User", "name": "rob"}, {"kind": "Group", "name": "corp:x"}]}
    bodies = [body("Tenant", "t", spec=tenant), body("RoleBinding", "t--b", spec=binding)]
    found = gathered(bodies, tenant="t", name="t")
    assert found.needs == ["Flavor small", "Host h1", "Role on-call", "User ada", "User rob"]


def test_what_a_controller_made_is_not_said_by_people(cli: Cli, exported: Path, tmp_path: Path) -> None:
    async def make(w: World) -> None:
        owner = json.loads((await w.store.objects.list(Scope(kind="Endpoint"))).items[0].body)
        meta = owner["metadata"]
        reference = {"apiVersion": owner["apiVersion"], "kind": "Endpoint", "name": meta["name"], "uid": meta["uid"]}
        made = body("ApiKey", "made", "acme--lab", spec={})
        made["metadata"]["ownerReferences"] = [{**reference, "controller": True}]
        await w.store.objects.create(made, CONTROLLER)

    cli.do(make)
    cli("tenant", "export", "acme", str(tmp_path / "now"))
    assert tree(tmp_path / "now") == tree(exported)
