"""What a place costs, in words."""

from __future__ import annotations

import numpy as np

from bessemer.kinds.fleet.terms import TERMS, cost_words
from bessemer.placement.demand import Mix, Outlook
from bessemer.placement.own import classes
from bessemer.placement.policies.parts import explained
from bessemer.placement.policies.potential import Potential
from bessemer.placement.shape import Shape
from tests.placement.hosts import ask, fleet, host


def test_parts_are_told_and_none_that_is_nothing() -> None:
    words = "0.15 of a device (left-overs that fit nothing typical +100, a free host broken up +50, in thousandths)"
    assert cost_words({"fragments": 100.0, "waste": 0.0, "blocks": 50.0}) == words
    assert cost_words({"fragments": 0.0}) == ""
    assert cost_words({}) == ""


def test_the_product_s_own_policy_has_no_part_without_words() -> None:
    there = fleet(host("a", gpus=8, threads=64), host("b", gpus=4, threads=16))
    shape = Shape.of(ask(2, device_count=2))
    policy = Potential(Outlook.derive(Mix.of({shape: 3.0, Shape.of(ask(4, device_count=8)): 1.0}), classes(there)))
    for score in explained(policy, shape, fleet=there, rows=np.arange(2)):
        assert score.parts
        assert score.parts.keys() <= TERMS.keys()
