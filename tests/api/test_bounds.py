"""What a credential may do at most."""

from __future__ import annotations

import pytest

from bessemer.api.bounds import Bounds


def test_a_bound_that_says_nothing_takes_nothing_away() -> None:
    assert Bounds().allows("delete", "Instance", namespace="acme--lab", name="vm")
    assert Bounds().allows("create", "Tenant")


@pytest.mark.parametrize(
    ("bounds", "verb", "name", "allowed"),
    [
        (Bounds(verbs=frozenset(["get"])), "get", "vm", True),
        (Bounds(verbs=frozenset(["get"])), "list", "", False),
        (Bounds(kinds=frozenset(["Instance"])), "get", "vm", True),
        (Bounds(kinds=frozenset(["Endpoint"])), "get", "vm", False),
        (Bounds(names=frozenset(["vm"])), "get", "vm", True),
        (Bounds(names=frozenset(["vm"])), "get", "other", False),
        (Bounds(names=frozenset(["vm"])), "list", "", True),
        (Bounds(names=frozenset(["vm"])), "create", "", False),
        (Bounds(kinds=frozenset()), "get", "vm", False),
    ],
)
def test_each_part_takes_away_what_it_does_not_name(bounds: Bounds, verb: str, name: str, allowed: bool) -> None:
    assert bounds.allows(verb, "Instance", namespace="acme--lab", name=name) is allowed
