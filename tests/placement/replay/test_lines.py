"""Who begins of those who wait: whoever fits, or whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.placement.replay.desk import seat
from bessemer.placement.replay.lines import Passing, Queued
from bessemer.placement.replay.moving import Allowance
from bessemer.placement.replay.run import Desk
from bessemer.placement.replay.stays import Line, Lived, Stay, Window, live
from tests.placement.hosts import ask, host

ACME, RIVAL = "acme--lab", "rival--lab"


def lived(
    stays: Sequence[Stay],
    line: Callable[[Desk], Line],
    *,
    gpus: int = 2,
    start: float = 0.0,
    end: float = 20.0,
    moves: float = 0.0,
) -> Lived:
    hosts = [host(name, gpus=gpus) for name in ("a", "b")[: 2 if moves else 1]]
    allowed = Allowance(per_hundred=moves) if moves else None
    desk = seat(hosts, policy="LPG", learned=[], dice=np.random.default_rng(0), moves=allowed)
    window = Window(start=start, end=end, samples=10)
    return live(desk, stays, window=window, capacity_milli=1000 * gpus * len(hosts), line=line(desk))


def stay(comes: float, leaves: float, count: int = 1, project: str = ACME, priority: int = 0) -> Stay:
    return Stay(comes, leaves, ask(1, device_count=count), project, priority)


SMALL = [stay(0.5 * n, 0.5 * n + 0.9, project=RIVAL) for n in range(30)]
"""One device each, nearly two at a time."""


def test_who_wants_much_waits_its_turn_and_not_until_nobody_else_comes() -> None:
    stays = sorted([*SMALL, stay(1.1, 2.1, 2)], key=lambda one: one.comes)
    passing, queued = lived(stays, Passing), lived(stays, Queued)
    assert max(passing.waits) > 10, "whoever fits goes first, for as long as they come"
    assert max(queued.waits) < 3, "a place is kept for it"
    assert len(passing.waits) == len(queued.waits) == len(stays)


def test_priority_goes_first_and_projects_share_fairly() -> None:
    first = stay(0, 4, 2)
    urgent, rest = stay(2, 3, 2, RIVAL, 10), [stay(1, 2, 2), stay(1.5, 2.5, 2)]
    found = lived([first, *rest, urgent], Queued)
    assert sorted(found.waits) == [0.0, 2.0, 4.0, 4.5], "it came last and begins at 4; the others at 5 and 6"
    flood = [stay(1 + n / 100, 2 + n / 100) for n in range(8)]
    found = lived([first, *flood, stay(2, 3, 1, RIVAL)], Queued)
    # At 4 two devices are free: one for the first of the flood, the other for the rival, before the seven earlier ones.
    assert [round(hours, 2) for hours in sorted(found.waits)[:4]] == [0.0, 2.0, 3.0, 3.98]


@given(
    st.lists(
        st.builds(
            lambda at, last, count, project: stay(at, at + last, count, project),
            st.integers(0, 15).map(float),
            st.integers(1, 5).map(float),
            st.integers(1, 3),
            st.sampled_from((ACME, RIVAL)),
        ),
        max_size=25,
    )
)
@settings(max_examples=40, deadline=None)
def test_nobody_has_more_than_there_is_and_all_begin_in_the_end(stays: list[Stay]) -> None:
    stays = sorted(stays, key=lambda one: one.comes)
    found = lived(stays, Queued, gpus=3, end=200.0)
    assert all(0 <= sample.held_milli <= 3000 for sample in found.samples)
    assert len(found.waits) == len(stays)
    assert found.samples[-1].waiting == 0
    wanted = sum(one.request.device_count * (one.leaves - one.comes) for one in stays)
    assert sum(found.device_hours.values()) == wanted


def test_what_is_moved_is_counted_and_lets_somebody_in() -> None:
    spread = [stay(0, 10), stay(0, 1), stay(0, 10), stay(0, 1)]
    # Each host has one device left that nobody has: two together are there only where one claim goes elsewhere.
    late = stay(2, 3, 2)
    plain, moved = lived([*spread, late], Passing, moves=0.0001), lived([*spread, late], Passing, moves=100.0)
    assert (plain.moves, moved.moves) == (0, 1)
    assert (max(plain.waits), max(moved.waits)) == (8.0, 0.0)


def test_moves_are_so_many_for_those_that_came_since_anything_counts() -> None:
    # A fifth of a move each: five of the warm-up are worth one, and it is not kept for later.
    warm_up = [stay(0, 10), stay(0, 1), stay(0, 10), stay(0, 1), stay(1.5, 1.9)]
    assert lived([*warm_up, stay(3, 4, 2)], Passing, start=2.0, moves=20.0).moves == 0
    # Who waits has come as well: of four and the last one, three wait for what is never there.
    waiting = [stay(2.1, 4, 5), stay(2.2, 4, 5), stay(2.3, 4, 5), stay(2.4, 2.5)]
    found = lived([*warm_up, *waiting, stay(3, 4, 2)], Passing, start=2.0, moves=20.0)
    assert found.moves == 1
