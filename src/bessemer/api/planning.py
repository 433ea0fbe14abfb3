"""A placement's dry run: where an object would go, why there, at which price, and what would be in the way.

Who may create the object in the project may ask, and its body is judged as one that is created; then nothing is stored,
counted or told to the trail. The decision is the control side's own. It is of this moment: nothing is held for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from starlette.responses import Response

from bessemer.api.access import Target
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
from bessemer.api.wouldhold import bounds, hardware_of, held_by, price_of, turn_of
from bessemer.core.asking import Asker, Gang
from bessemer.core.clock import epoch, rfc3339
from bessemer.core.errors import Cause, Forbidden, Unavailable
from bessemer.core.resource import Resource
from bessemer.kinds import workload
from bessemer.kinds.asks import ASKS, Ask
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.outline import Hindrance, HourlyPrice, Outline
from bessemer.kinds.fleet.outlining import outline
from bessemer.kinds.fleet.planning import REPLICAS_MAX, TAKERS_MAX, Earlier, Planned, Planner, plan

AFTER_MAX = 16
"""Objects that are taken to be placed before the one that is asked about."""

_RELENTING = frozenset({"QuotaExceeded", "TooManyReplicas", "HostUnaddressed"})
"""What is in the way for good, and yet may be otherwise with nothing changed of the object: a quota is given back, and
other hosts are chosen."""

_OTHERS = "others wait for room, and who is of higher standing goes first"


@dataclass(frozen=True, slots=True)
class _Question:
    """An object that could be created, what it would ask of the fleet, and what it holds already, as far as it is
    there."""

    target: Target
    ask: Ask
    uid: str = ""
    claims: Sequence[Claim] = ()
    since: str | None = None

    @property
    def left_out(self) -> Iterator[str]:
        """Its claims, as the fleet knows them: by uid, or by replica where they are so new that nobody saw them."""
        for claim in self.claims:
            yield claim.uid
            yield f"{self.uid}/{claim.spec.workload.replica}"


async def placement(call: Call) -> Response:
    """POST placementreviews: where would it go?"""
    asked = await said_in(call, PLACEMENT)
    question = await _asked(call, asked, at="spec.object", body=asked.spec.get("object"))
    before = [await _asked(call, asked, at=at, body=body) for at, body in _after(asked)]
    fleet = call.state.context.fleet
    if fleet is None:
        raise Unavailable("this server keeps no fleet; ask another", retry_after_seconds=10)
    ask, everyone = question.ask, [*before, question]
    earlier = Earlier(
        [(one.ask.wants, one.ask.replicas) for one in before if one.ask.wants is not None],
        [uid for one in everyone for uid in one.left_out],
        _asker(question, now=call.state.context.clock.now()),
    )
    # From here to the outline nothing is awaited: what it shows is of one moment.
    planned = plan(fleet, ask.wants, replicas=ask.replicas, earlier=earlier) if ask.wants is not None else None
    found, others = _outlined(call, fleet, planned=planned), fleet.others()
    hindrances, everywhere, price = [*ask.hindrances], list[Hindrance](), None
    if planned is not None:
        held = list(hardware_of(fleet, planned))
        first = [one for other in planned.before for one in hardware_of(fleet, other)]
        made = Counter(one.target.resource.kind for one in everyone if not one.uid)
        given = held_by([claim for one in everyone for claim in one.claims])
        everywhere = [*(await ask.anywhere(planned.takers) if ask.anywhere and planned.takers else [])]
        here = await ask.beyond(planned.decisions) if ask.beyond and planned.decisions and not everywhere else []
        hindrances += [*everywhere, *here]
        hindrances += await bounds(call, question.target, hardware=[*first, *held], made=made, given=given)
        price = await price_of(call, question.target, hardware=held)
        hindrances += _too_many(planned)
        at_once = planned.foreseen is not None and planned.foreseen.at_once
        if others and planned.decisions and not at_once:
            hindrances.append(Hindrance(reason="Queued", message=_OTHERS, passing=True))
    turn = await turn_of(call, question.target, foreseen=planned.foreseen if planned is not None else None)
    found = found.model_copy(update={"turn": turn, "never": _never(planned, hindrances, everywhere=everywhere)})
    whole = _whole(call, found, hindrances=hindrances, price=price)
    stands = sorted({claim.spec.host for claim in question.claims})
    return told_of(call, asked, status=whole.model_copy(update={"stands": stands}).dump())


def _too_many(planned: Planned) -> Iterator[Hindrance]:
    """What was not looked at."""
    words = []
    if planned.asked > REPLICAS_MAX and planned.refusal is None:
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


def _never(planned: Planned | None, hindrances: Sequence[Hindrance], *, everywhere: Sequence[Hindrance]) -> str:
    """Why it can never begin as it is; "" where it may. What is ``everywhere`` in the way is so on all hosts that were
    looked at, which may not be all that there are."""
    all_looked_at = planned is not None and len(planned.takers) < TAKERS_MAX
    nowhere = planned is not None and planned.never
    together = planned is not None and isinstance(planned.wants, Gang)
    words = [f"no hosts would take it{' as a whole' * together}, were all of them empty"] if nowhere else []
    for one in hindrances:
        if not one.passing and (one.reason not in _RELENTING or (one in everywhere and all_looked_at)):
            words.append(one.message)
    return "; ".join(words)


def _whole(call: Call, found: Outline, *, hindrances: list[Hindrance], price: HourlyPrice | None) -> Outline:
    """With what is in the way, and when it would begin."""
    lasting = [one for one in hindrances if not one.passing]
    fits = found.fits and not lasting
    message = "; ".join([found.message, *(one.message for one in hindrances)])
    now = rfc3339(int(call.state.context.clock.now()))
    start = now if fits and not hindrances and found.replicas else None
    if found.turn is not None and not lasting and all(one.reason == "Queued" for one in hindrances):
        start = found.turn.start
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


async def _asked(call: Call, asked: Said, *, at: str, body: Any) -> _Question:
    """What an object would ask of the fleet, which the asker could create. Raises whatever a create of it would."""
    target, made = await _judged(call, asked, at=at, body=body)
    ports = call.state.ports
    ask = await ASKS[target.resource.kind].of(ports, made)
    # What is there is for who may read it.
    may = call.state.access.may(call.who, "get", on=target)
    there = await workload.read(ports, type(made), name=target.name, namespace=target.namespace) if may else None
    if there is None:
        return _Question(target, ask)
    claims = await workload.own_claims(ports, there)
    return _Question(target, ask, there.uid, claims, there.status.waiting_since)


def _asker(question: _Question, *, now: float) -> Asker | None:
    """Who would ask; who waits already has waited since then."""
    if question.ask.asker is None:
        return None
    asker = replace(question.ask.asker(now), uid=question.uid or "planned")
    return replace(asker, since=int(epoch(question.since))) if question.since else asker


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
