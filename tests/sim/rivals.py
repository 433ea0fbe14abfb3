"""What befalls controllers that share a cloud: one is held up past its lease, or loses some of its leases.

One at a time, so that there is always somebody who may work: at the latest when a lease has run out.
"""

from __future__ import annotations

from collections.abc import Mapping

from bessemer.kinds import KINDS
from tests.sim.control import LEASE_SECONDS
from tests.sim.day import WEIGHTS, Day, Happening


async def controller_is_held_up(day: Day) -> None:
    """For a moment, or until others have long taken over. It wakes amid what it was about to do."""
    if _in_trouble(day):
        return
    chosen = day.random.choice(day.cloud.controllers)
    chosen.gate.close(after=day.random.randint(1, 100))

    async def goes_on(_day: Day) -> None:
        chosen.gate.open()

    day.later(LEASE_SECONDS * day.random.choice((0.1, 0.9, 1.5, 4.0)), goes_on)


async def controller_loses_leases(day: Day) -> None:
    """Half of the kinds are another's from when their leases run out: from then on the work is shared."""
    if _in_trouble(day):
        return
    chosen = day.random.choice(day.cloud.controllers)
    names = sorted(f"loop/{kind.name}" for kind in KINDS)
    chosen.leases.away = frozenset(day.random.sample(names, len(names) // 2))

    async def is_sure_again(_day: Day) -> None:
        chosen.leases.away = frozenset()

    day.later(LEASE_SECONDS * 1.5, is_sure_again)


def _in_trouble(day: Day) -> bool:
    return any(controller.gate.shut or controller.leases.away for controller in day.cloud.controllers)


RIVALRY: Mapping[str, tuple[Happening, float]] = {
    **WEIGHTS,
    "controller is held up": (controller_is_held_up, 6),
    "controller loses leases": (controller_loses_leases, 3),
}
"""A day's happenings, and theirs."""
