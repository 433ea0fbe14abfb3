"""Reviews as clients discover them: beside the kinds, in groups of their own, with nothing but ``create``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bessemer.api.questions import REVIEWS, Review

PLACES: Mapping[tuple[str, str], Sequence[Review]] = MappingProxyType(
    {
        place: tuple(review for review in REVIEWS if (review.group, review.version) == place)
        for place in dict.fromkeys((review.group, review.version) for review in REVIEWS)
    }
)
"""By group and version."""


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
