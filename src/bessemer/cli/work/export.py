"""A whole tenant as a folder of files: what people said of it, and nothing that an installation made of that.

One file per object, by project and kind; all references by name; no uid, no status, no secret. Applied to another
installation that has what it needs (users, flavors, images, models, the price plan), it is the same tenant, and
exported from there the same files. What it needs, and what has to be set anew, stands in its README and its index.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from bessemer import __version__
from bessemer.cli import render
from bessemer.cli.work.objects import list_all
from bessemer.cli.work.sets import OF_TENANTS, PART_OF, declarable
from bessemer.client import Client
from bessemer.core.errors import Invalid
from bessemer.core.ports import Scope
from bessemer.core.resource import SEPARATOR, Key, tenant_of

INDEX = ".export.json"
FORMAT = 1
_FOREIGN = ("kubectl.kubernetes.io/", "conversion.", "applyset.kubernetes.io/")
"""Annotations of tools, about what they did here."""

_SECRETS: Mapping[str, str] = {
    "ApiKey": "its token: `bessemer key token {name} -n {namespace}`",
    "ApplicationCredential": "by whose it is: `bessemer credential create {name} -n {namespace}`",
    "Secret": (
        "all of it, no file has it: `kubectl create secret generic {name} -n {namespace} --from-literal KEY=VALUE`"
    ),
}
_PASSING = ("Event", "Lease")
"""Kinds of which programs write what they did, and nobody what they want."""

_UNWRITTEN = ("ApplicationCredential", "Secret")
"""Kinds of which no file is written: a credential is of who made it, and nobody makes one for others."""
_NEEDS = {"flavor": "Flavor", "image": "Image", "model": "Model", "pricePlan": "PricePlan"}
_ALLOWED = {"hosts": "Host", "flavors": "Flavor", "images": "Image", "models": "Model"}
"""Fields of a Tenant that list what may be used."""


@dataclass(frozen=True, slots=True)
class Export:
    """What a folder would hold: files by path, what must be there before, what must be set anew."""

    tenant: str
    files: Mapping[str, dict[str, Any]]
    needs: Sequence[str]
    anew: Sequence[str]

    def index(self) -> dict[str, Any]:
        """As a program reads it."""
        told = {"needs": list(self.needs), "setAnew": list(self.anew), "files": sorted(self.files)}
        return {"format": FORMAT, "bessemer": __version__, "tenant": self.tenant, **told}

    def readme(self) -> str:
        """As a person reads it."""
        lines = [
            f"# Tenant {self.tenant}",
            "",
            f"Written by `bessemer tenant export` of Bessemer {__version__}: what people said, one file per object.",
            "",
            "```console",
            "$ bessemer diff -f .",
            "$ bessemer apply -f . --wait",
            "```",
            "",
            "## It needs",
            "",
            *_listed(self.needs),
            "",
            "## To be set anew",
            "",
            *_listed(self.anew),
        ]
        return "\n".join(lines) + "\n"


def _listed(items: Sequence[str]) -> list[str]:
    return [f"- {item}" for item in items] or ["Nothing."]


async def collected(client: Client, tenant: str, *, name: str) -> Export:
    """All of a tenant as one may see it, under ``name``. Raises NotFound, and Forbidden where one may not see all."""
    from bessemer.kinds import KINDS

    bodies = await list_all(client, Scope(kind="Tenant", name=tenant))
    if not bodies:
        await client.get(Key("Tenant", "", tenant))  # says so in the server's words
    projects, *roles = [
        [one for one in await list_all(client, Scope(kind=kind)) if tenant_of(one["metadata"]["name"]) == tenant]
        for kind in OF_TENANTS
    ]
    kinds = [kind for kind in KINDS if kind.namespaced and declarable(kind) and kind.name not in _PASSING]
    found = [*bodies, *projects, *chain.from_iterable(roles)]
    for project in projects:
        for kind in kinds:
            found += await list_all(client, Scope(kind=kind.name, namespace=project["metadata"]["name"]))
    return gathered([body for body in found if _said_by_people(body)], tenant=tenant, name=name)


def _said_by_people(body: Mapping[str, Any]) -> bool:
    """Not what a controller made, and what is not on its way out."""
    owners = body["metadata"].get("ownerReferences", ())
    return "deletionTimestamp" not in body["metadata"] and not any(owner.get("controller") for owner in owners)


def gathered(bodies: Iterable[Mapping[str, Any]], *, tenant: str, name: str) -> Export:
    """Bodies as files of the tenant ``name``. Pure."""
    files: dict[str, dict[str, Any]] = {}
    needs: set[str] = set()
    anew: list[str] = []
    for body in bodies:
        said = _said(body, tenant=tenant, name=name)
        needs |= set(_needed(said))
        if body["kind"] in _SECRETS:
            anew.append(_anew(said))
        if body["kind"] not in _UNWRITTEN:
            files[_path(said)] = said
    return Export(name, files, sorted(needs), sorted(anew))


def _said(body: Mapping[str, Any], *, tenant: str, name: str) -> dict[str, Any]:
    metadata = body["metadata"]
    kept: dict[str, Any] = {"name": metadata["name"]}
    if body["kind"] == "Tenant":
        kept["name"] = name
    elif body["kind"] in OF_TENANTS:
        kept["name"] = _renamed(metadata["name"], name)
    if metadata.get("namespace"):
        kept["namespace"] = _renamed(metadata["namespace"], name)
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key != PART_OF}
    notes = {key: value for key, value in metadata.get("annotations", {}).items() if not key.startswith(_FOREIGN)}
    kept |= {part: value for part, value in (("labels", labels), ("annotations", notes)) if value}
    rest = {part: value for part, value in body.items() if part not in ("apiVersion", "kind", "metadata", "status")}
    if body["kind"] == "RoleBinding":
        rest["spec"] = _bound(rest["spec"], tenant=tenant, name=name)
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": kept, **rest}


def _bound(spec: Mapping[str, Any], *, tenant: str, name: str) -> dict[str, Any]:
    """What a binding says, with the tenant's own roles, projects and credentials under the tenant's new name."""
    scope = dict(spec.get("scope", {}))
    scope |= {"tenant": name} if scope.get("tenant") else {}
    scope |= {"project": _renamed(scope["project"], name)} if scope.get("project") else {}
    subjects = [
        {**one, "name": _renamed(one["name"], name)}
        if one["kind"] == "ApplicationCredential" and tenant_of(one["name"]) == tenant
        else one
        for one in spec.get("subjects", ())
    ]
    role = _renamed(spec["role"], name) if tenant_of(spec["role"]) == tenant else spec["role"]
    return {**spec, "role": role, "subjects": subjects, "scope": scope}


def _renamed(project: str, tenant: str) -> str:
    return f"{tenant}{SEPARATOR}{project.partition(SEPARATOR)[2]}"


def _path(said: Mapping[str, Any]) -> str:
    """``projects/lab/instances/vm.yaml``."""
    from bessemer.cli.connection import find_kind

    name, place = said["metadata"]["name"], PurePosixPath("projects")
    if said["kind"] == "Tenant":
        return "tenant.yaml"
    if said["kind"] == "Project":
        return str(place / name.partition(SEPARATOR)[2] / "project.yaml")
    if said["kind"] in OF_TENANTS:
        return f"{find_kind(said['kind']).plural}/{name.partition(SEPARATOR)[2]}.yaml"
    project = said["metadata"]["namespace"].partition(SEPARATOR)[2]
    return str(place / project / find_kind(said["kind"]).plural / f"{name}.yaml")


def _needed(said: Mapping[str, Any]) -> list[str]:
    """What of the platform it names."""
    from bessemer.kinds.tenancy.rights import BUILT_IN

    spec = said.get("spec", {})
    found = [f"{kind} {spec[field]}" for field, kind in _NEEDS.items() if isinstance(spec.get(field), str)]
    if said["kind"] == "Tenant":
        found += [f"User {member['user']}" for member in spec.get("members", ())]
        for field, kind in _ALLOWED.items():
            found += [f"{kind} {name}" for name in (spec.get(field) or {}).get("names", ())]
    if said["kind"] == "RoleBinding":
        found += [f"{one['kind']} {one['name']}" for one in spec["subjects"] if one["kind"] == "User"]
        found += [] if SEPARATOR in spec["role"] or spec["role"] in BUILT_IN else [f"Role {spec['role']}"]
    return found


def _anew(said: Mapping[str, Any]) -> str:
    metadata = said["metadata"]
    how = _SECRETS[said["kind"]].format(name=metadata["name"], namespace=metadata["namespace"])
    return f"{said['kind']} {metadata['namespace']}/{metadata['name']}: {how}"


def write(export: Export, folder: Path) -> None:
    """Write the folder; one of an earlier export is brought up to date. Raises Invalid for one that holds other things,
    OSError."""
    before = _known(folder)
    for path in set(before) - set(export.files):
        (folder / path).unlink(missing_ok=True)
        _tidy(folder, (folder / path).parent)
    for path, said in export.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(render.as_yaml(said) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(export.readme(), encoding="utf-8")
    (folder / INDEX).write_text(json.dumps(export.index(), indent=2) + "\n", encoding="utf-8")


def _known(folder: Path) -> list[str]:
    """The files of an earlier export; [] for a folder that is empty or not there."""
    if not folder.exists() or not any(folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        return []
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        files = [str(path) for path in index["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(f"{folder} holds something else: name an empty folder, or that of an earlier export") from error
    if any(PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts for path in files):
        raise Invalid(f"{folder / INDEX} names files elsewhere")
    return files


def _tidy(folder: Path, empty: Path) -> None:
    """Take away folders in which nothing is left."""
    while empty != folder and empty.is_dir() and not any(empty.iterdir()):
        empty.rmdir()
        empty = empty.parent
