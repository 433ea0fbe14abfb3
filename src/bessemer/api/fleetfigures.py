"""Fragmentation of the fleet, and what it costs, for who may read hosts; the same as gauges of this process."""

from __future__ import annotations

from contextlib import suppress

from starlette.responses import Response

from bessemer.api.access import Target, forbidden
from bessemer.api.context import Identity
from bessemer.api.credentials import require as require_within
from bessemer.api.state import Call, State, answer
from bessemer.core.errors import Unavailable
from bessemer.kinds.fleet.figures import ModelFigures


def require(call: Call, who: Identity) -> None:
    """Raises Forbidden for who may not list hosts: what there is, is theirs to know alone."""
    hosts = call.state.resources.of_kind("Host")
    assert hosts is not None
    target = Target(hosts)
    require_within(who, "list", on=target)
    if who.kind != "user" or not call.state.access.may(who, "list", on=target):
        raise forbidden(who, "list", on=target)


async def figures(call: Call) -> Response:
    """GET /fleet."""
    return answer((await call.state.fleet_figures.now()).dump())


async def scraped(state: State) -> None:
    """Set the gauges to what is now; as long as nothing is known of the fleet there are none."""
    for gauge in state.metrics.fleet.values():
        gauge.clear()
    with suppress(Unavailable):
        for one in (await state.fleet_figures.now()).models:
            for name, value in _values(one).items():
                state.metrics.fleet[name].labels(one.model, str(one.fake).lower()).set(value)


def _values(one: ModelFigures) -> dict[str, float]:
    found = {
        "devices": float(one.devices),
        "free_devices": one.free_milli / 1000,
        "largest_free_devices": float(one.largest),
    }
    if one.useless_milli is not None and one.stranded_milli is not None:
        found |= {"useless_devices": one.useless_milli / 1000, "stranded_devices": one.stranded_milli / 1000}
    if one.money is not None:
        found["idle_micro_per_hour"] = one.money.idle
        if one.money.useless is not None:
            found["useless_micro_per_hour"] = one.money.useless
    return found
