"""How a project's endpoints answered: requests, tokens, what they cost, and how fast, by whom or by what, over time.

It is read from sums that are kept as usage is settled (`core.served`), not from the ledger: an invoice is what is owed.
What is shown of money are these tokens at the plan's present prices.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, get_args

from starlette.responses import Response

from bessemer.api.plans import plan_of
from bessemer.api.query import number
from bessemer.api.resources import load
from bessemer.api.state import Call, answer
from bessemer.core.errors import Malformed
from bessemer.core.money import Prices
from bessemer.core.ports import Scope
from bessemer.core.reconcile import Counted, Replica, Verdict, judge
from bessemer.core.resource import tenant_of
from bessemer.core.served import COARSE_SECONDS, FINE_KEPT_SECONDS, FINE_SECONDS, Asked, By, Served
from bessemer.kinds.fleet.claim import Claim
from bessemer.metering.invoice import half_up

STEPS = (300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400, 7 * 86_400)
POINTS, POINTS_MAX = 60, 1000
"""How many steps there are where none is asked for, and at most."""

NAMES, NAMES_MAX = 100, 1000
"""How many rows."""

DAY_SECONDS = 86_400
_MILLION = 1_000_000


async def usage(call: Call) -> Response:
    """GET projects/NAME/usage?by=&from=&to=&step=&endpoint=&key=&most=: a row for each name, the largest first, with
    its steps; and one of all. ``left`` names are in that alone."""
    project = await load(call, call.about)
    asked = _asked(call, project.uid)
    rows: dict[str, _Row] = {}
    total = _Row()
    plan = await plan_of(call, tenant_of(project.key.name))
    prices = Prices.read(plan.dump())
    async for at, names in call.state.ports.figures.steps(asked):
        for (name, model), sums in names.items():
            shown = plan.shown(model) if asked.by == "model" else name
            due = _due(sums, prices.of(model))
            for row in (rows.setdefault(shown, _Row()), total):
                row.take(at, sums, due=due)
    most = min(number(call.query, "most") or NAMES, NAMES_MAX)
    largest = sorted(rows, key=lambda name: (-rows[name].tokens, name))
    return answer(
        {
            "project": project.key.name,
            "projectUid": project.uid,
            "by": asked.by,
            "from": asked.start,
            "to": asked.end,
            "step": asked.step,
            "currency": plan.currency,
            "rows": [{"name": name, **rows[name].shown()} for name in largest[:most]],
            "left": max(0, len(rows) - most),
            "total": total.shown(),
        }
    )


async def reconcile(call: Call) -> Response:
    """GET projects/NAME/reconcile: of each replica, what was billed of it, what its engine counted, and what of the
    difference is accounted for."""
    project = await load(call, call.about)
    replicas = {one.uid: one for one in await call.state.ports.figures.replicas(project.uid)}
    page = await call.state.ports.objects.list(Scope(kind="Claim", namespace=project.key.name))
    for claim in (Claim.load(stored.body) for stored in page.items):
        of = claim.spec.workload
        if of.kind == "Endpoint":
            known = replicas.get(claim.uid) or Replica(endpoint=of.name, endpoint_uid=of.uid, uid=claim.uid)
            counted = Counted.read(claim.status.detail.get("counted"))
            replicas[claim.uid] = replace(known, gone=False, host=claim.spec.host, counted=counted)
    shown = [{**_replica(one), **_verdict(judge(one))} for one in replicas.values()]
    return answer({"project": project.key.name, "projectUid": project.uid, "replicas": shown})


def _replica(of: Replica) -> dict[str, Any]:
    billed, counted = of.billed.values(), of.counted
    return {
        "endpoint": of.endpoint,
        "endpointUid": of.endpoint_uid,
        "replica": of.uid,
        "host": of.host,
        "gone": of.gone,
        "billed": {
            "requests": sum(one.requests for how, one in of.billed.items() if how != "unpaid"),
            "inputTokens": sum(one.read for one in billed),
            "outputTokens": sum(one.wrote for one in billed),
        },
        "counted": counted.dump() if counted is not None else None,
        "ended": {how: one.requests for how, one in of.billed.items() if how},
    }


def _verdict(found: Verdict) -> dict[str, Any]:
    return {
        "state": found.state,
        "difference": {"inputTokens": found.read, "outputTokens": found.wrote},
        "accountedFor": {"inputTokens": found.may_read, "outputTokens": found.may_write},
        "causes": list(found.causes),
    }


class _Cell:
    """Sums, and what they cost in millionths of a micro-unit: rounded where they are shown, and not before."""

    def __init__(self) -> None:
        self.sums = Served()
        self.due = 0

    def take(self, sums: Served, due: int) -> None:
        self.sums.add(sums.values)
        self.due += due

    def shown(self) -> dict[str, Any]:
        sums = self.sums
        first, between = sums.first(), sums.between()
        return {
            "requests": sums["requests"],
            "inputTokens": sums["input_tokens"],
            "cachedInputTokens": sums["cached_input_tokens"],
            "outputTokens": sums["output_tokens"],
            "micro": half_up(self.due, _MILLION),
            "cancelled": sums["cancelled"],
            "cut": sums["cut"],
            "killed": sums["killed"],
            "firstTokenMs": asdict(first) if first is not None else None,
            "interTokenMs": asdict(between) if between is not None else None,
        }


class _Row:
    """The sums of one name, in all and of each step in which there was any."""

    def __init__(self) -> None:
        self.whole = _Cell()
        self.steps: dict[int, _Cell] = {}

    @property
    def tokens(self) -> int:
        return self.whole.sums["input_tokens"] + self.whole.sums["output_tokens"]

    def take(self, at: int, sums: Served, *, due: int) -> None:
        self.whole.take(sums, due)
        self.steps.setdefault(at, _Cell()).take(sums, due)

    def shown(self) -> dict[str, Any]:
        steps = [{"at": at, **cell.shown()} for at, cell in self.steps.items()]
        return {**self.whole.shown(), "steps": steps}


def _due(sums: Served, prices: Prices) -> int:
    fresh = max(0, sums["input_tokens"] - sums["cached_input_tokens"])
    return fresh * prices.input + sums["cached_input_tokens"] * prices.cached + sums["output_tokens"] * prices.output


def _asked(call: Call, project_uid: str) -> Asked:
    """The last day, where no time is said. What is kept of the time says how fine it may be. Raises Malformed."""
    by: By = call.query.get("by", "") or "endpoint"  # type: ignore[assignment]
    if by not in get_args(By):
        raise Malformed(f"by is one of {', '.join(get_args(By))}")
    now = int(call.state.context.clock.now())
    end = number(call.query, "to") or now
    start = number(call.query, "from") or end - DAY_SECONDS
    if not 0 <= start < end < 1 << 40:
        raise Malformed("from and to are seconds since the epoch, in that order")
    step = number(call.query, "step") or next((one for one in STEPS if (end - start) / one <= POINTS), STEPS[-1])
    if step % FINE_SECONDS:
        raise Malformed(f"a step is a multiple of {FINE_SECONDS} seconds")
    if start < now - FINE_KEPT_SECONDS:
        step = -(-step // COARSE_SECONDS) * COARSE_SECONDS
    if (end - start) / step > POINTS_MAX:
        raise Malformed(f"more than {POINTS_MAX} steps of {step} seconds: ask for longer ones, or less time")
    grain = FINE_SECONDS if step % COARSE_SECONDS else COARSE_SECONDS
    return Asked(
        project_uid=project_uid,
        by=by,
        start=start - start % grain,
        end=-(-end // grain) * grain,
        step=step,
        grain=grain,
        endpoint=call.query.get("endpoint", ""),
        key=call.query.get("key", ""),
    )
