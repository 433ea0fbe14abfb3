"""What there is: groups, versions and resources, in the two forms that clients ask for, and the server's version."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from bessemer.api import reviewed
from bessemer.api.openapi import document
from bessemer.api.shown import Resources, Shown
from bessemer.core.errors import NotFound
from bessemer.core.resource import Verb

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_STATUS_VERBS = ("get", "patch", "update")


class Discovery:
    """Documents made once: what there is does not change while the process lives."""

    def __init__(self, resources: Resources, version: str) -> None:
        self._resources = resources
        self._version = version
        self._openapi: dict[tuple[str, str], tuple[bytes, str]] = {}

    def aggregated(self, *, core: bool) -> tuple[bytes, str]:
        """APIGroupDiscoveryList of ``/api`` or ``/apis``, and its ETag."""
        items = [
            {"metadata": {"name": group, "creationTimestamp": None}, "versions": [_version(version, shown)]}
            for (group, version), shown in self._resources.groups().items()
            if (group == "") == core
        ] + ([] if core else reviewed.aggregated())
        body = orjson.dumps(
            {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}
        )
        return body, _etag(body)

    def groups(self) -> dict[str, Any]:
        """APIGroupList."""
        named = [self.group(group) for group, _ in (*self._resources.groups(), *reviewed.PLACES) if group]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}

    def group(self, name: str) -> dict[str, Any]:
        """APIGroup. Raises NotFound."""
        versions = [
            {"groupVersion": f"{group}/{version}", "version": version}
            for group, version in (*self._resources.groups(), *reviewed.PLACES)
            if group == name and group
        ]
        if not versions:
            raise NotFound("the server could not find the requested resource")
        return {
            "kind": "APIGroup",
            "apiVersion": "v1",
            "name": name,
            "versions": versions,
            "preferredVersion": versions[0],
        }

    def resources(self, group: str, version: str) -> dict[str, Any]:
        """APIResourceList of a version. Raises NotFound."""
        listed = [entry for one in self._resources.groups().get((group, version), ()) for entry in _resource(one)]
        listed += [reviewed.resource(review) for review in reviewed.PLACES.get((group, version), ())]
        if not listed:
            raise NotFound("the server could not find the requested resource")
        where = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": where, "resources": listed}

    def openapi_index(self) -> dict[str, Any]:
        """Where each version's OpenAPI document lies, named by its hash."""
        paths = {}
        for group, version in self._resources.groups():
            place = f"apis/{group}/{version}" if group else f"api/{version}"
            etag = self.openapi(group, version)[1].strip('"')
            paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={etag}"}
        return {"paths": paths}

    def openapi(self, group: str, version: str) -> tuple[bytes, str]:
        """The OpenAPI document of a version and its ETag. Raises NotFound."""
        shown = self._resources.groups().get((group, version))
        if shown is None:
            raise NotFound("the server could not find the requested resource")
        if (group, version) not in self._openapi:
            body = orjson.dumps(document(shown, self._version))
            self._openapi[group, version] = body, _etag(body)
        return self._openapi[group, version]

    def version(self) -> dict[str, Any]:
        """As kubectl reads it; the numbers name the Kubernetes release whose conventions are followed."""
        return {
            "major": "1",
            "minor": "36",
            "gitVersion": f"v1.36.0+bessemer.{self._version}",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "",
            "platform": "linux/amd64",
        }


def wants_aggregated(accept: str) -> bool:
    """Whether exactly the form that we speak is asked for; v2beta1 is another."""
    for clause in accept.split(","):
        parts = {part.strip() for part in clause.split(";")}
        if {"g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"} <= parts:
            return True
    return False


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32].upper()}"'


def _resource(shown: Shown) -> list[dict[str, Any]]:
    place = f"{shown.api_version}/{shown.kind}".encode()
    entry: dict[str, Any] = {
        "name": shown.plural,
        "singularName": shown.singular,
        "namespaced": shown.namespaced,
        "kind": shown.kind,
        "verbs": list(shown.verbs),
        "storageVersionHash": base64.b64encode(hashlib.sha256(place).digest()[:8]).decode(),
    }
    if shown.short_names:
        entry["shortNames"] = list(shown.short_names)
    if shown.categories:
        entry["categories"] = list(shown.categories)
    if not shown.has_status:
        return [entry]
    status = {"name": f"{shown.plural}/status", "singularName": "", "namespaced": shown.namespaced}
    return [entry, {**status, "kind": shown.kind, "verbs": list(_STATUS_VERBS)}]


def _version(version: str, shown: Sequence[Shown]) -> dict[str, Any]:
    return {"version": version, "freshness": "Current", "resources": [_aggregated(one) for one in shown]}


def _aggregated(shown: Shown) -> dict[str, Any]:
    kind = {"group": shown.group, "version": shown.version, "kind": shown.kind}
    verbs: list[Verb] = list(shown.verbs)
    entry: dict[str, Any] = {
        "resource": shown.plural,
        "responseKind": kind,
        "scope": "Namespaced" if shown.namespaced else "Cluster",
        "singularResource": shown.singular,
        "verbs": verbs,
        "shortNames": list(shown.short_names),
        "categories": list(shown.categories),
    }
    if shown.has_status:
        entry["subresources"] = [{"subresource": "status", "responseKind": kind, "verbs": list(_STATUS_VERBS)}]
    return entry
