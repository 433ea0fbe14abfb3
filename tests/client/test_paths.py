"""Paths: a part that has no table of kinds asks in the same places as one that has."""

from __future__ import annotations

import pytest

from bessemer.client import plurals
from bessemer.client.paths import Paths, regular_plural
from bessemer.core.errors import Malformed
from bessemer.core.resource import Key
from bessemer.kinds import KINDS


def test_every_kind_has_the_regular_plural() -> None:
    assert {kind.name: regular_plural(kind.name) for kind in KINDS} == plurals()


@pytest.mark.parametrize(("kind", "plural"), [("Policy", "policies"), ("Switch", "switches"), ("Key", "keys")])
def test_plurals_are_those_of_english(kind: str, plural: str) -> None:
    assert regular_plural(kind) == plural


def test_an_unknown_kind_is_refused_here_or_left_to_the_server() -> None:
    with pytest.raises(Malformed, match="no kind"):
        Paths(plurals()).collection("Gadget", None)
    assert Paths(None).collection("Gadget", "a--b").endswith("/namespaces/a--b/gadgets")


@pytest.mark.parametrize("word", [".", "..", "/", "a/..", "../instances", "./"])
def test_what_would_be_another_path_is_no_name(word: str) -> None:
    """A URL that ends in ``/.`` is that of the collection, for whoever normalises it."""
    for key in (Key("Instance", "acme--lab", word), Key("Instance", word, "vm")):
        with pytest.raises(Malformed, match="is no name"):
            Paths(plurals()).of(key)
    with pytest.raises(Malformed, match="is no name"):
        Paths(plurals()).collection("Instance", word)
    with pytest.raises(Malformed, match="a name is needed"):
        Paths(plurals()).of(Key("Instance", "acme--lab", ""))
