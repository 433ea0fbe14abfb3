"""What a plan would hold, were it carried out: quotas that it would pass, the price of an hour, and whose turn it would
be to have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import orjson

from bessemer.api.access import Target
from bessemer.api.plans import plan_of
from bessemer.api.state import Call
from bessemer.core.clock import rfc3339
from bessemer.core.errors import NotFound
from bessemer.core.ports import Scope
from bessemer.core.quota import Use, amounts_of, begun, devices_of, meter_of_kind, part_of_kind, said, show_amount
from bessemer.core.resource import Key, tenant_of
from bessemer.core.slices import WHOLE_MILLI
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.foresight import Foreseen
from bessemer.kinds.fleet.outline import Hindrance, HourlyPrice, PlannedStop, PlannedTurn, PriceLine
from bessemer.kinds.fleet.planning import Planned, Planner
from bessemer.metering.estimate import Hardware, hour
from bessemer.placement.preview import likely, models_at

_MORE = "Delete something, or ask for a higher quota."


def hardware_of(fleet: Planner, planned: Planned) -> Iterator[Hardware]:
    """Of all replicas or members that are wanted; those that were not placed have the models of those that were, or
    what is likely."""
    request, models = planned.request, Counter[tuple[str, int, bool]]()
    for decision in planned.decisions:
        model = models_at(fleet.arrays, decision.host).get(decision.devices[0], "") if decision.devices else ""
        models[model, decision.device_milli, decision.fake] += 1
    rest = planned.wanted - len(planned.decisions)
    if rest and models:
        models[next(iter(models))] += rest
    elif rest:
        of = likely(fleet.arrays, request)
        models[of.model, of.milli, of.fake] += rest
    for (model, milli, fake), count in models.items():
        yield Hardware(
            milli_cores=request.milli_cores,
            memory_bytes=request.memory_bytes,
            devices=request.device_count,
            device_milli=milli,
            in_part=milli < WHOLE_MILLI or bool(request.device_profile),
            device_model=model,
            fake=fake,
            count=count,
        )


def held_by(claims: Sequence[Claim]) -> Counter[str]:
    """Meter → what these claims count for."""
    found = Counter[str]()
    for claim in claims:
        spec = claim.spec
        models = {spec.device_model: len(spec.devices)} if spec.devices else {}
        found.update(amounts_of(spec, models))
    return found


async def bounds(
    call: Call, target: Target, *, hardware: Sequence[Hardware], made: Mapping[str, int], given: Mapping[str, int]
) -> list[Hindrance]:
    """The quotas of project and tenant that it would pass, with what goes before it: ``made`` objects by kind more, and
    without what would be ``given`` back, by meter."""
    # What counts by its status counts for nothing as it is made.
    wanted = Counter({meter_of_kind(kind): count for kind, count in made.items() if not part_of_kind(kind)})
    for one in hardware:
        models = {one.device_model: one.devices} if one.devices else {}
        each = amounts_of(one, models)
        wanted.update({meter: one.count * amount for meter, amount in each.items()})
    scopes = (f"project/{target.namespace}", f"tenant/{tenant_of(target.namespace)}")
    found: list[Hindrance] = []
    for scope in scopes:
        found += _passed(await call.state.ports.capacity.use(scope), wanted, given=given)
    return found


def _passed(uses: Sequence[Use], wanted: Mapping[str, int], *, given: Mapping[str, int]) -> list[Hindrance]:
    """The bounds of one scope that would be. Parts of devices count there as many devices as they begin."""
    had = {use.meter: use.used for use in uses}
    more = {meter: wanted.get(meter, 0) - given.get(meter, 0) for meter in wanted.keys() | given.keys()}
    for meter in [meter for meter in more if devices_of(meter)]:
        parts = had.get(meter, 0)
        more[devices_of(meter)] = more.get(devices_of(meter), 0) + begun(parts + more[meter]) - begun(parts)
    return [
        Hindrance(
            reason="QuotaExceeded",
            message=f"{use.scope} may have {said(use.meter, use.limit)} and uses {show_amount(use.meter, use.used)}: "
            f"{show_amount(use.meter, more[use.meter])} more do not fit",
            remedy=_MORE,
        )
        for use in uses
        if use.limit is not None and more.get(use.meter, 0) > 0 and use.used + more[use.meter] > use.limit
    ]


async def price_of(call: Call, target: Target, *, hardware: list[Hardware]) -> HourlyPrice | None:
    """By the plan of the project's tenant, for who may read that."""
    tenant = tenant_of(target.namespace)
    plans = call.state.resources.of_kind("PricePlan")
    try:
        above = orjson.loads((await call.state.ports.objects.get(Key("Tenant", "", tenant))).body)
    except NotFound:
        return None
    name = above["spec"].get("pricePlan", "standard")
    if plans is None or not call.state.access.may(call.who, "get", on=Target(plans, name=name)):
        return None
    bill = hour(hardware, await plan_of(call, tenant))
    return HourlyPrice(
        currency=bill.currency,
        micro_per_hour=bill.total_micro,
        lines=[
            PriceLine(meter=line.meter, model=line.model, formula=line.formula, amount_micro=line.amount_micro)
            for line in bill.lines
        ],
    )


async def turn_of(call: Call, target: Target, *, foreseen: Foreseen | None) -> PlannedTurn | None:
    """What of a turn may be told: claims of the project itself by name, for who may read them; of others how many."""
    if foreseen is None:
        return None
    own = await _own(call, target, uids=foreseen.stops)
    stops = [
        PlannedStop(
            claim=claim.metadata.name,
            workload=f"{claim.spec.workload.kind}/{claim.spec.workload.name}",
            devices=len(claim.spec.devices),
        )
        for claim in own
    ]
    others = [hold for uid, hold in foreseen.stops.items() if uid not in {claim.uid for claim in own}]
    return PlannedTurn(
        ahead=foreseen.ahead,
        waiting=foreseen.waiting,
        start=rfc3339(foreseen.start) if foreseen.start is not None else None,
        message=foreseen.words,
        stops=stops,
        other_claims=len(others),
        other_devices=sum(len(set(hold.devices)) for hold in others),
    )


async def _own(call: Call, target: Target, *, uids: Collection[str]) -> Sequence[Claim]:
    """Those of the claims that are of the project, where whoever asks may read them."""
    kind = call.state.resources.of_kind("Claim")
    if not uids or kind is None or not call.state.access.may(call.who, "list", on=Target(kind, target.namespace)):
        return ()
    page = await call.state.ports.objects.list(Scope(kind="Claim", namespace=target.namespace))
    return [Claim.load(stored.body) for stored in page.items if stored.uid in uids]
