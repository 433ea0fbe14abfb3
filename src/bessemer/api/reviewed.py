"""Reviews as clients discover them: beside the kinds, in groups of their own, with nothing but ``create``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from bessemer.api.questions import PLACEMENT, REVIEWS, Review
from bessemer.api.schema import of_resource
from bessemer.kinds.fleet.outline import PlacementReview

PLACES: Mapping[tuple[str, str], Sequence[Review]] = MappingProxyType(
    {
        place: tuple(review for review in REVIEWS if (review.group, review.version) == place)
        for place in dict.fromkeys((review.group, review.version) for review in REVIEWS)
    }
)
"""By group and version."""


MODELS: Mapping[Review, type[BaseModel]] = MappingProxyType({PLACEMENT: PlacementReview})
"""Those of ours, which nobody knows without being told; Kubernetes' own every client knows."""


def described(group: str, version: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What OpenAPI says of the reviews of a group and version: schemas by name, and operations by path."""
    schemas, paths = {}, {}
    for review, model in MODELS.items():
        if (review.group, review.version) != (group, version):
            continue
        gvk = {"group": group, "version": version, "kind": review.kind}
        name = f"{'.'.join(reversed(group.split('.')))}.{version}.{review.kind}"
        schemas[name] = of_resource(model, group, version=version, kind=review.kind)
        media = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        parameters = [{"name": "namespace", "in": "path", "required": True, "schema": {"type": "string"}}]
        asked = {
            "operationId": f"create{group.partition('.')[0].title()}{version.title()}{review.kind}",
            "tags": [group],
            "parameters": [],
            "requestBody": {"content": media},
            "responses": {"201": {"description": "Created", "content": media}},
            "x-kubernetes-action": "post",
            "x-kubernetes-group-version-kind": gvk,
        }
        paths[review.path] = {"parameters": parameters, "post": asked}
    return schemas, paths


def resource(review: Review) -> dict[str, Any]:
    """APIResource."""
    return {
        "name": review.plural,
        "singularName": review.kind.lower(),
        "namespaced": review.namespaced,
        "kind": review.kind,
        "verbs": ["create"],
    }


def below(group: str, version: str) -> list[dict[str, Any]]:
    """Resources of an aggregated version."""
    return [_aggregated(review) for review in PLACES.get((group, version), ())]


def aggregated(known: Collection[tuple[str, str]]) -> list[dict[str, Any]]:
    """Items of APIGroupDiscoveryList, of groups that nothing ``known`` is in."""
    return [
        {
            "metadata": {"name": group, "creationTimestamp": None},
            "versions": [
                {"version": version, "freshness": "Current", "resources": below(group, version)},
            ],
        }
        for group, version in PLACES
        if (group, version) not in known
    ]


def _aggregated(review: Review) -> dict[str, Any]:
    return {
        "resource": review.plural,
        "responseKind": {"group": review.group, "version": review.version, "kind": review.kind},
        "scope": "Namespaced" if review.namespaced else "Cluster",
        "singularResource": review.kind.lower(),
        "verbs": ["create"],
    }
