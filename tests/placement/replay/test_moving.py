"""An allowance of moves: what is left of it, and whom it is spent on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bessemer.core.asking import Decision
from bessemer.placement.choose import place
from bessemer.placement.facts import Hold, Tenure
from bessemer.placement.moves.plan import Planner
from bessemer.placement.replay.desk import seat
from bessemer.placement.replay.moving import Allowance, Mover
from bessemer.placement.replay.run import Desk, decided
from bessemer.placement.sight import Sight
from tests.placement.hosts import ask, host


def desk(allowance: Allowance) -> Desk:
    """Two hosts of two devices, on each of which one is held by a claim that may be moved."""
    there = [host(f"h{n}", gpus=2) for n in range(2)]
    found = seat(there, policy="FirstFit", learned=[], dice=np.random.default_rng(0), moves=allowance)
    for n in range(2):
        for uid, stays in ((f"stays{n}", True), (f"goes{n}", False)):
            decision = found.decide(ask(1, device_count=1))
            assert isinstance(decision, Decision)
            found.fleet.hold(uid, replace(Hold.of(decision), tenure=Tenure(restartable=stays)))
    for n in range(2):
        found.fleet.drop(f"goes{n}")
    return found


def mover(allowance: Allowance, *, came: int = 0) -> Mover:
    found = desk(allowance).mover
    assert found is not None
    for _ in range(came):
        found.came()
    return found


@pytest.mark.parametrize(("saved", "before", "after"), [(None, 50.0, 0.0), (3, 3.0, 3.0), (80, 50.0, 50.0)])
def test_what_is_saved_outlasts_the_warm_up_and_nothing_else_does(
    saved: int | None, before: float, after: float
) -> None:
    found = mover(Allowance(per_hundred=10.0, saved=saved), came=500)
    assert found.left == pytest.approx(before)
    found.forget()
    assert found.left == pytest.approx(after)
    found.came()
    assert found.left == pytest.approx(min(after + 0.1, np.inf if saved is None else saved))


def test_a_move_must_bring_less_while_many_are_left() -> None:
    # Of four devices one move is plenty: it is to bring half of what the last is.
    pair = ask(1, device_count=2)
    for saved, gain, moved in ((None, 2.0, True), (None, 2.1, False), (9, 4.0, True), (9, 4.1, False)):
        plan = mover(Allowance(per_hundred=100.0, gain=gain, saved=saved), came=5).room_for(pair)
        assert (plan is not None) == moved


def test_a_move_is_the_cheaper_the_more_are_left_for_each_device() -> None:
    # With six hundred devices four are plenty: where one and two are left, seven eighths and three quarters are asked.
    there = desk(Allowance(per_hundred=100.0))
    for n in range(149):
        there.fleet.set_host(host(f"shut{n}", gpus=4, schedulable=False))
    planner = Planner(there.fleet, lambda request: place(Sight.of(there.fleet, request)))
    for came, gain, moved in ((1, 2.28, True), (1, 2.3, False), (2, 2.66, True), (2, 2.7, False), (9, 4.0, True)):
        found = Mover(planner, Allowance(per_hundred=100.0, gain=gain, saved=9))
        for _ in range(came):
            found.came()
        assert (found.room_for(ask(1, device_count=2)) is not None) == moved


def test_what_was_moved_is_spent() -> None:
    there = desk(Allowance(per_hundred=100.0, saved=2))
    decision, moved = decided(there, ask(1, device_count=2))
    assert decision is not None
    assert there.mover is not None
    assert (len(moved), there.mover.left) == (1, 0.0)
