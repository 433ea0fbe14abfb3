"""Money and meters: usage from the gateway, a project's ledger, invoice and quota use.

A project's account is its uid's: one that was made anew under the name of another does not see what that one used.
Ledgers are read a few rows at a time, and an export is sent as it is read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from pydantic import Field, TypeAdapter, ValidationError
from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api import lending
from bessemer.api.packing import streamed
from bessemer.api.plans import plan_of
from bessemer.api.query import number
from bessemer.api.resources import load
from bessemer.api.state import Call, answer
from bessemer.core.errors import Cause, Invalid, Malformed, QuotaExceeded
from bessemer.core.money import STATED_MAX, Purse, Wish
from bessemer.core.quota import Use, title_of, unit_of, window_of
from bessemer.core.resource import ApiModel, tenant_of
from bessemer.core.values import LedgerEntry, UsageBatch
from bessemer.metering.invoice import Account, terms

PARTS_AT_ONCE = 400


async def usage(call: Call) -> Response:
    """POST usage: settle a gateway's batch; answers the highest sequence stored."""
    raw = await bodies.read(call.request, call.state.context.limits)
    await call.still()
    bodies.check_depth(raw, call.state.context.limits.depth)
    try:
        batch = UsageBatch.model_validate_json(raw)
    except ValidationError as error:
        causes = [Cause(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors(include_url=False)[:50]]
        raise Invalid("the batch cannot be read", causes) from error
    return answer({"sequence": await call.state.ports.ledger.settle(batch)})


async def held(call: Call) -> Response:
    """GET usage?holder=NAME: the projects of whose money or bounds that gateway holds some, by what was said in its
    name."""
    holder = call.query.get("holder", "")
    money, bounds = await call.state.ports.capacity.held_by(holder), await call.state.ports.bounds.held_by(holder)
    return answer({"projects": sorted({*money, *bounds})})


async def invoice(call: Call) -> Response:
    """GET projects/NAME/invoice?from=&to=: lines with their formula; what runs is billed to ``to``."""
    start, end = _window(call)
    project = await load(call, call.about)
    account = Account(await plan_of(call, tenant_of(project.key.name)), start=start, end=end)
    async for entry in call.state.ports.ledger.window(start=start, end=end, project_uid=project.uid):
        account.take(entry)
    made = account.invoice().model_dump(mode="json", by_alias=True)
    return answer({"project": project.key.name, "projectUid": project.uid, **made})


async def ledger(call: Call) -> Response:
    """GET projects/NAME/ledger?from=&to=[&workload=UID]: rows and price plan, all that a second implementation needs.

    With ``workload`` only the rows of that one. Each row is a line of its own, so that a reader needs no more than one.
    """
    start, end = _window(call)
    project = await load(call, call.about)
    plan = await plan_of(call, tenant_of(project.key.name))
    head = {"project": project.key.name, "projectUid": project.uid, **terms(plan, start=start, end=end)}
    entries = call.state.ports.ledger.window(start=start, end=end, project_uid=project.uid)
    if workload := call.query.get("workload", ""):
        entries = (entry async for entry in entries if entry.workload_uid == workload)
    return await streamed(call.request, _rows(head, entries))


async def _rows(head: Mapping[str, Any], entries: AsyncIterator[LedgerEntry]) -> AsyncIterator[bytes]:
    """One JSON object: ``head`` is its first line, then there is a line for each of ``rows``, then its end."""
    parts = [orjson.dumps(head).removesuffix(b"}"), b',"rows":[']
    comma = b"\n"
    async for entry in entries:
        parts += [comma, orjson.dumps(entry.dump())]
        comma = b",\n"
        if len(parts) >= PARTS_AT_ONCE:
            yield b"".join(parts)
            parts = []
    yield b"".join([*parts, b"\n]}\n"])


async def use(call: Call) -> Response:
    """GET projects/NAME/use: each meter of the project and of its tenant; GET tenants/NAME/use: of the tenant."""
    await load(call, call.about)
    name = call.about.name
    of_tenant = call.about.resource.stored == "Tenant"
    scopes = [f"tenant/{name}"] if of_tenant else [f"project/{name}", f"tenant/{tenant_of(name)}"]
    uses = [one for scope in scopes for one in await call.state.ports.capacity.use(scope)]
    money = any(unit_of(one.meter) == "money" for one in uses)
    currency = (await plan_of(call, scopes[-1].removeprefix("tenant/"))).currency if money else ""
    return answer({"meters": [_meter(one, currency=currency) for one in uses]})


async def share(call: Call) -> Response:
    """POST projects/NAME/shares: a gateway holds a part of what a project may within the present window; or of the
    ``bounds`` of whoever asks there."""
    raw = await bodies.read(call.request, call.state.context.limits)
    await call.still()
    try:
        wanted = _WANTED.validate_json(raw)
    except ValidationError as error:
        raise Malformed("a share is of a meter and of an amount, or of bounds") from error
    if isinstance(wanted, _Bounded):
        return await lending.lend(call, wanted.bounds)
    now = call.state.context.clock.now()
    try:
        given = await call.state.ports.capacity.hold(
            call.about.name, meter=wanted.meter, amount=wanted.amount, money=wanted.wish()
        )
    except QuotaExceeded as error:
        # An answer and no error: the gateway tells its client, in the words of its own trade.
        window = window_of(wanted.meter)
        return answer({"amount": 0, "seconds": window - now % window, "left": 0, "words": error.message})
    said = {"amount": given.amount, "seconds": given.until - now, "left": given.left, "words": ""}
    return answer(said if given.money is None else {**said, "money": _purse(given.money)})


class _Money(ApiModel):
    holder: str = Field(min_length=1, max_length=63)
    micro: int = Field(ge=0, le=STATED_MAX)
    after: int | None = Field(None, ge=0, le=1 << 53)


class _Wanted(ApiModel):
    meter: str
    amount: int = Field(ge=0, le=STATED_MAX)
    money: _Money | None = None

    def wish(self) -> Wish | None:
        return Wish(**self.money.model_dump()) if self.money is not None else None


class _Bounded(ApiModel):
    bounds: lending.Asked


_WANTED: TypeAdapter[_Wanted | _Bounded] = TypeAdapter(_Wanted | _Bounded)


def _purse(money: Purse) -> dict[str, Any]:
    return {"prices": money.prices.told(), "number": money.number, "stands": money.stands, "left": money.left}


def _meter(one: Use, *, currency: str) -> dict[str, Any]:
    said = {
        "scope": one.scope,
        "meter": one.meter,
        "title": title_of(one.meter),
        "unit": unit_of(one.meter),
        "used": one.used,
        "limit": one.limit,
    }
    return said | ({"held": one.held, "currency": currency} if unit_of(one.meter) == "money" else {})


def _window(call: Call) -> tuple[int, int]:
    """[from, to) in epoch seconds; ``to`` is now where it is not said. Raises Malformed."""
    start = number(call.query, "from")
    end = number(call.query, "to") or int(call.state.context.clock.now())
    if not start <= end < 1 << 40:
        raise Malformed("from and to are seconds since the epoch, in that order")
    return start, end
