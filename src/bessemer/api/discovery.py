"""What there is: groups, versions and resources, in the two forms that clients ask for, and the server's version."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from bessemer.api import gnostic, openapi, openapi2, reviewed
from bessemer.api.documents import Document, document, of_value
from bessemer.api.shown import Resources, Shown
from bessemer.core.errors import NotFound
from bessemer.core.resource import Verb

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
OPENAPI_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
OPENAPI_V2_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""What Go's clients ask for, by a name that is no media type; it is answered under the name above."""

Places = Mapping[tuple[str, str], Sequence[Shown]]
_NOT_THERE = "the server could not find the requested resource"
_STATUS_VERBS = ("get", "patch", "update")


class Discovery:
    """Documents made once, when they are first asked for: what there is does not change while the process lives."""

    def __init__(self, resources: Resources, version: str) -> None:
        self._places = resources.groups()
        self._version = version
        self._made: dict[str, Document] = {}

    def aggregated(self, *, core: bool) -> Document:
        """APIGroupDiscoveryList of ``/api`` or ``/apis``."""
        return self._once(f"aggregated {core}", lambda: _aggregated_list(self._places, core=core))

    def core_versions(self) -> Document:
        """APIVersions."""
        value = {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        return self._once("versions", lambda: of_value(value))

    def groups(self) -> Document:
        """APIGroupList."""
        return self._once("groups", lambda: of_value(_group_list(self._places)))

    def group(self, name: str) -> Document:
        """APIGroup. Raises NotFound."""
        return self._once(f"group {name}", lambda: of_value(_group(self._places, name)))

    def resources(self, group: str, version: str) -> Document:
        """APIResourceList of a version. Raises NotFound."""
        return self._once(
            f"resources {group}/{version}", lambda: of_value(_resource_list(self._places, group, version=version))
        )

    def openapi_index(self) -> Document:
        """Where each version's OpenAPI v3 document lies, named by its digest."""
        return self._once("openapi", self._index)

    def openapi(self, group: str, version: str) -> Document:
        """The OpenAPI v3 document of a version. Raises NotFound."""
        shown = self._shown(group, version)
        return self._once(f"openapi {group}/{version}", lambda: of_value(openapi.document(shown, self._version)))

    def openapi_v2(self) -> Document:
        """The OpenAPI v2 document."""
        return self._once("openapi v2", self._v2)

    def openapi_v2_protobuf(self) -> Document:
        """The same as gnostic's protobuf."""
        made = self.openapi_v2()
        return self._once("protobuf", lambda: document(OPENAPI_V2, gnostic.encode(orjson.loads(made.body))))

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

    def _once(self, name: str, make: Callable[[], Document]) -> Document:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _shown(self, group: str, version: str) -> Sequence[Shown]:
        shown = self._places.get((group, version))
        if shown is None:
            raise NotFound(_NOT_THERE)
        return shown

    def _index(self) -> Document:
        paths = {}
        for group, version in self._places:
            place = openapi_place(group, version)
            paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={self.openapi(group, version).digest}"}
        return of_value({"paths": paths})

    def _v2(self) -> Document:
        known = [orjson.loads(self.openapi(group, version).body) for group, version in self._places]
        return of_value(openapi2.document(known, self._version))


def openapi_place(group: str, version: str) -> str:
    """The path of a version's document below ``/openapi/v3/``."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _aggregated_list(places: Places, *, core: bool) -> Document:
    """A group stands once, with all its versions."""
    versions: dict[str, list[dict[str, Any]]] = {}
    for (group, version), shown in places.items():
        if (group == "") == core:
            versions.setdefault(group, []).append(_version(group, version, shown=shown))
    items = [
        {"metadata": {"name": group, "creationTimestamp": None}, "versions": found} for group, found in versions.items()
    ] + ([] if core else reviewed.aggregated(places))
    kind = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2"}
    return of_value({**kind, "metadata": {}, "items": items}, AGGREGATED)


def _group_list(places: Places) -> dict[str, Any]:
    named = dict.fromkeys(group for group, _ in (*places, *reviewed.PLACES) if group)
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(places, group) for group in named]}


def _group(places: Places, name: str) -> dict[str, Any]:
    versions = [
        {"groupVersion": f"{group}/{version}", "version": version}
        for group, version in dict.fromkeys((*places, *reviewed.PLACES))
        if group == name
    ]
    if not versions:
        raise NotFound(_NOT_THERE)
    kind = {"kind": "APIGroup", "apiVersion": "v1"}
    return {**kind, "name": name, "versions": versions, "preferredVersion": versions[0]}


def _resource_list(places: Places, group: str, *, version: str) -> dict[str, Any]:
    listed = [entry for one in places.get((group, version), ()) for entry in _resource(one)]
    listed += [reviewed.resource(review) for review in reviewed.PLACES.get((group, version), ())]
    if not listed:
        raise NotFound(_NOT_THERE)
    where = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": where, "resources": listed}


def _resource(shown: Shown) -> list[dict[str, Any]]:
    place = f"{shown.newest.api_version}/{shown.kind}".encode()
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


def _version(group: str, version: str, *, shown: Sequence[Shown]) -> dict[str, Any]:
    there = [*map(_aggregated, shown), *reviewed.below(group, version)]
    return {"version": version, "freshness": "Current", "resources": there}


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
