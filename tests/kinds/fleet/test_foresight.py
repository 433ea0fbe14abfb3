"""What is foreseen for who plans costs a plan: it is shared, and everybody has a part of the time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bessemer.core.asking import Asker
from bessemer.core.clock import FakeClock
from bessemer.core.errors import TooMany
from bessemer.kinds.fleet import drafts
from bessemer.kinds.fleet.foresight import ALL, KEPT_MAX, KEPT_SECONDS, TENANT, Forecasts, Foreseen
from bessemer.kinds.fleet.queueing import Foresight
from bessemer.placement.queue import Pending
from tests.kinds.fleet.test_queueing import furnish, make
from tests.kinds.world import PROJECT, World
from tests.placement.hosts import ask


class Busy(FakeClock):
    """Time that passes while somebody works."""

    def work(self, seconds: float) -> None:
        self._monotonic += seconds


class Costly:
    """Plans that take their time."""

    def __init__(self, seconds: float) -> None:
        self.clock = Busy()
        self.forecasts = Forecasts(self.clock)
        self.made = 0
        self.seconds = seconds

    def __call__(self) -> Foreseen:
        self.made += 1
        self.clock.work(self.seconds)
        return Foreseen(ahead=0, waiting=1, start=None)

    def of(
        self, project: str = PROJECT, *, moment: int = 0, cores: int = 1, since: int = 0, lasts: int | None = None
    ) -> Foreseen:
        ends = None if lasts is None else int(self.clock.now()) + lasts
        asker = Asker(uid="planned", project=project, since=since, ends=ends)
        return self.forecasts.of(Pending(asker, ask(cores)), moment=moment, make=self)


def test_equal_questions_of_one_moment_have_one_answer_for_a_while() -> None:
    costly = Costly(0.001)
    first = costly.of(since=7)
    assert costly.of(since=8) is first
    assert costly.made == 1
    for other in ({"moment": 1}, {"cores": 2}, {"project": "beta--lab"}):
        costly.of(**other)  # type: ignore[arg-type]
    assert costly.made == 4
    costly.clock.work(KEPT_SECONDS)
    costly.of()
    assert costly.made == 5
    for moment in range(2 * KEPT_MAX):
        costly.of(moment=moment)
        costly.clock.work(1.0)
    assert len(costly.forecasts._known) == KEPT_MAX
    assert len(costly.forecasts._purses) <= 2


def test_who_would_run_for_longer_asks_something_else() -> None:
    costly = Costly(0.001)
    short = costly.of(lasts=600)
    assert costly.of(lasts=864_000) is not short
    assert costly.of() is not short
    assert costly.made == 3
    costly.clock.work(1.0)
    assert costly.of(lasts=600) is short, "its end moves away with each second, which is no news"


def test_a_tenant_that_asks_without_end_has_its_part_and_another_has_its_own() -> None:
    costly, refused = Costly(0.2), 0
    for moment in range(1000):
        try:
            costly.of(moment=moment)
        except TooMany:
            refused += 1
            costly.clock.work(1.0)
    passed = costly.clock.monotonic()
    assert refused > 900
    assert costly.made * 0.2 <= TENANT[0] + TENANT[1] * passed + 0.2
    costly.of("beta--lab")
    # Who comes back when it was told is answered.
    seconds = 0
    for moment in range(-10, 0):
        try:
            costly.of(moment=moment)
        except TooMany as told:
            assert not seconds, "who waited is answered"
            seconds = told.retry_after_seconds
            costly.clock.work(seconds + 0.01)
        else:
            seconds = 0


def test_all_tenants_together_have_theirs() -> None:
    costly = Costly(0.2)
    began = costly.clock.monotonic()
    for number in range(1000):
        try:
            costly.of(f"t{number}--p")
        except TooMany:
            costly.clock.work(0.05)
    passed = costly.clock.monotonic() - began
    assert costly.made * 0.2 <= ALL[0] + ALL[1] * passed + 0.2


async def test_a_review_that_is_repeated_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, plan = 0, drafts.plan

    def counted(*args: object, **named: object) -> object:
        nonlocal made
        made += 1
        return plan(*args, **named)  # type: ignore[arg-type]

    async with World(hosts=1, gpus=1) as world:
        seen = Foresight(world.fleet._feed, world.fleet)
        await furnish(world)
        for name in ("first", "second"):
            await make(world, name)
        await world.until_ready("Instance", "first")

        async def waits() -> bool:
            return seen.others()

        await world.until(waits)
        monkeypatch.setattr(drafts, "plan", counted)
        pending = Pending(Asker(uid="planned", project=PROJECT, since=int(world.clock.now())), ask(1))
        answers = [seen.foresee(pending) for _ in range(50)]
        assert made == 1
        assert all(one == answers[0] for one in answers)
        # Who waits already is another question than who does not yet.
        seen.foresee(replace(pending, asker=replace(pending.asker, uid="other")))
        assert made == 2
