"""Reviews as clients discover them: beside the kinds, in groups of their own, with nothing but ``create``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bessemer.api.questions import REVIEW_VERSION, REVIEWS, Review

PLACES: Mapping[tuple[str, str], Sequence[Review]] = MappingProxyType(
    {
        (group, REVIEW_VERSION): tuple(review for review in REVIEWS if review.group == group)
        for group in dict.fromkeys(review.group for review in REVIEWS)
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


def aggregated() -> list[dict[str, Any]]:
    """Items of APIGroupDiscoveryList."""
    return [
        {
            "metadata": {"name": group, "creationTimestamp": None},
            "versions": [
                {"version": version, "freshness": "Current", "resources": [_aggregated(review) for review in reviews]}
            ],
        }
        for (group, version), reviews in PLACES.items()
    ]


def _aggregated(review: Review) -> dict[str, Any]:
    return {
        "resource": review.plural,
        "responseKind": {"group": review.group, "version": REVIEW_VERSION, "kind": review.kind},
        "scope": "Namespaced" if review.namespaced else "Cluster",
        "singularResource": review.kind.lower(),
        "verbs": ["create"],
    }
