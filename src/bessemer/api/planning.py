"""A placement's dry run: where an object would go, why there, at which price, and what would be in the way.

Who may create the object in the project may ask, and its body is judged as one that is created; then nothing is stored,
counted or told to the trail. The decision is the control side's own. It is of this moment: nothing is held for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from bessemer.api.access import Target
from bessemer.api.accounting import plan_of
from bessemer.api.admission import identify
from bessemer.api.errors import invalid
from bessemer.api.fleetfigures import require as require_fleet
from bessemer.api.names import show
from bessemer.api.planners import may_create
from bessemer.api.questions import PLACEMENT
from bessemer.api.resources import require_project, require_rights
from bessemer.api.reviews import Said, said_in, told_of
from bessemer.api.state import Call
from bessemer.api.versions import admit
from bessemer.core.clock import rfc3339
from bessemer.core.errors import Cause, Forbidden, NotFound, Unavailable
from bessemer.core.quota import Use, amounts_of, begun, devices_of, meter_of_kind, said, show_amount
from bessemer.core.resource import Key, Resource, tenant_of
from bessemer.core.slices import WHOLE_MILLI
from bessemer.kinds.asks import ASKS, Ask
from bessemer.kinds.fleet.outline import Hindrance, HourlyPrice, Outline, PriceLine
from bessemer.kinds.fleet.planning import REPLICAS_MAX, Planned, Planner, outline, plan
from bessemer.metering.estimate import Hardware, hour

AFTER_MAX = 16
"""Objects that are taken to be placed before the one that is asked about."""

_OTHERS = "others wait for room, and who is of higher standing goes first"
_MORE = "Delete something, or ask for a higher quota."


async def placement(call: Call) -> Response:
    """POST placementreviews: where would it go?"""
    asked = await said_in(call, PLACEMENT)
    target, ask = await _asked(call, asked, at="spec.object", body=asked.spec.get("object"))
    earlier = [await _asked(call, asked, at=at, body=body) for at, body in _after(asked)]
    after = [(one.request, one.replicas) for _, one in earlier if one.request is not None]
    fleet = call.state.context.fleet
    if fleet is None:
        raise Unavailable("this server keeps no fleet; ask another", retry_after_seconds=10)
    # From here to the outline nothing is awaited: what it shows is of one moment.
    planned = plan(fleet, ask.request, replicas=ask.replicas, after=after) if ask.request is not None else None
    found, others = _outlined(call, fleet, planned=planned), fleet.others()
    hindrances, price = [*ask.hindrances], None
    if planned is not None:
        hardware = list(_hardware(fleet, planned))
        before = [one for other in planned.before for one in _hardware(fleet, other)]
        counts = Counter(meter_of_kind(one.resource.kind) for one in (target, *(other for other, _ in earlier)))
        hindrances += await _bounds(call, target, hardware=[*before, *hardware], counts=counts)
        price = await _price(call, target, hardware=hardware)
        hindrances += _too_many(planned)
        if others and planned.decisions:
            hindrances.append(Hindrance(reason="Queued", message=_OTHERS, passing=True))
    return told_of(call, asked, status=_whole(call, found, hindrances=hindrances, price=price).dump())


def _too_many(planned: Planned) -> Iterator[Hindrance]:
    """What was not looked at."""
    words = []
    if planned.wanted > REPLICAS_MAX and planned.refusal is None:
        words.append(f"the first {REPLICAS_MAX} replicas alone were looked at")
    if not planned.counted:
        words.append(f"of what goes before, the first {REPLICAS_MAX} replicas alone were counted")
    for one in words:
        yield Hindrance(reason="TooManyReplicas", message=one, remedy="Plan fewer at a time.")


def _outlined(call: Call, fleet: Planner, *, planned: Planned | None) -> Outline:
    if planned is None:
        return Outline(fits=False, message="what it would ask for is not known", wanted=0, tried=0)
    try:
        require_fleet(call, call.who)
    except Forbidden:
        return outline(fleet, planned, named=False)
    return outline(fleet, planned, named=True)


def _whole(call: Call, found: Outline, *, hindrances: list[Hindrance], price: HourlyPrice | None) -> Outline:
    """With what is in the way, and when it would begin."""
    lasting = [one for one in hindrances if not one.passing]
    fits = found.fits and not lasting
    message = "; ".join([found.message, *(one.message for one in hindrances)])
    now = rfc3339(int(call.state.context.clock.now()))
    start = now if fits and not hindrances and found.replicas else None
    update = {"fits": fits, "message": message, "hindrances": hindrances, "price": price, "expected_start": start}
    return found.model_copy(update=update)


# --- the object -------------------------------------------------------------------------------------------------------


def _after(asked: Said) -> Iterator[tuple[str, Any]]:
    """The objects that are taken to be placed before. Raises Invalid."""
    bodies = asked.spec.get("after") or []
    if not isinstance(bodies, list) or len(bodies) > AFTER_MAX:
        words = f"Invalid value: must be a list of at most {AFTER_MAX} objects"
        raise invalid(PLACEMENT.subject, [Cause("spec.after", words)])
    return ((f"spec.after[{index}]", body) for index, body in enumerate(bodies))


async def _asked(call: Call, asked: Said, *, at: str, body: Any) -> tuple[Target, Ask]:
    """What an object would ask of the fleet, which the asker could create. Raises whatever a create of it would."""
    target, made = await _judged(call, asked, at=at, body=body)
    return target, await ASKS[target.resource.kind](call.state.ports, made)


async def _judged(call: Call, asked: Said, *, at: str, body: Any) -> tuple[Target, Resource[Any, Any]]:
    namespace = call.parameter("namespace")
    if not isinstance(body, dict):
        raise invalid(PLACEMENT.subject, [Cause(at, "Required value: an object", "FieldValueRequired")])
    shown = call.state.resources.of_kind(str(body.get("kind", ""))) if str(body.get("kind", "")) in ASKS else None
    if shown is None:
        supported = ", ".join(f'"{kind}"' for kind in ASKS)
        words = f"Unsupported value: {show(body.get('kind'))}: supported values: {supported}"
        raise invalid(PLACEMENT.subject, [Cause(f"{at}.kind", words, "FieldValueNotSupported")])
    # What is asked is told back: admission changes what it judges.
    body = orjson.loads(orjson.dumps(body))
    await may_create(call, call.who, on=Target(shown, namespace))
    subject = identify(shown, body, namespace=namespace)
    target = Target(shown, namespace, subject.name)
    await may_create(call, call.who, on=target)
    await require_project(call, target)
    admitted = admit(shown, body, old=None, validation=asked.options.validation)
    asked.options.warnings.extend(admitted.warnings)
    await require_rights(call, target, body=admitted.body, old=None)
    made: Resource[Any, Any] = shown.model.model_validate(admitted.body)
    return target, made


# --- what it would hold -----------------------------------------------------------------------------------------------


def _hardware(fleet: Planner, planned: Planned) -> Iterator[Hardware]:
    """Of all replicas that are wanted; those that were not placed have the models of those that were, or of the
    request."""
    request, models = planned.request, Counter[tuple[str, int, bool]]()
    for decision in planned.decisions:
        row = fleet.arrays.row(decision.host)
        there = {device.id: device.model for device in fleet.arrays.devices(row)} if row is not None else {}
        model = there.get(decision.devices[0], "") if decision.devices else ""
        models[model, decision.device_milli, decision.fake] += 1
    rest = planned.wanted - len(planned.decisions)
    if rest:
        only = min(request.device_models) if len(request.device_models) == 1 else ""
        models[next(iter(models), (only, request.device_milli, False))] += rest
    for (model, milli, fake), count in models.items():
        yield Hardware(
            milli_cores=request.milli_cores,
            memory_bytes=request.memory_bytes,
            devices=request.device_count,
            device_milli=milli,
            in_part=request.device_milli < WHOLE_MILLI or bool(request.device_profile),
            device_model=model,
            fake=fake,
            count=count,
        )


async def _bounds(
    call: Call, target: Target, *, hardware: list[Hardware], counts: Mapping[str, int]
) -> list[Hindrance]:
    """The quotas of project and tenant that it would pass, with what goes before it."""
    wanted: Mapping[str, int] = counts
    for one in hardware:
        models = {one.device_model: one.devices} if one.devices else {}
        each = amounts_of(one, models)
        wanted = Counter(wanted) + Counter({meter: one.count * amount for meter, amount in each.items()})
    scopes = (f"project/{target.namespace}", f"tenant/{tenant_of(target.namespace)}")
    found: list[Hindrance] = []
    for scope in scopes:
        found += _passed(await call.state.ports.capacity.use(scope), wanted)
    return found


def _passed(uses: Sequence[Use], wanted: Mapping[str, int]) -> list[Hindrance]:
    """The bounds of one scope that would be. Parts of devices count there as many devices as they begin."""
    wanted = Counter(wanted)
    parts = {use.meter: use.used for use in uses}
    for meter in [meter for meter in wanted if devices_of(meter)]:
        had = parts.get(meter, 0)
        wanted[devices_of(meter)] += begun(had + wanted[meter]) - begun(had)
    return [
        Hindrance(
            reason="QuotaExceeded",
            message=f"{use.scope} may have {said(use.meter, use.limit)} and uses {show_amount(use.meter, use.used)}: "
            f"{show_amount(use.meter, wanted[use.meter])} more do not fit",
            remedy=_MORE,
        )
        for use in uses
        if use.limit is not None and use.meter in wanted and use.used + wanted[use.meter] > use.limit
    ]


async def _price(call: Call, target: Target, *, hardware: list[Hardware]) -> HourlyPrice | None:
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
