"""Bounds of whoever asks endpoints: what is given, spent and held of each, moved by whoever has the writers' line.

Invariants: what is given out of a minute never passes its bound; of one that is spent, what was settled within the
period and what gateways hold never pass it together; who wants of several gets all or nothing; nobody's word that is
late moves a hold ([ADR 21](docs/adr/0021-holds-of-money.md)). Bounds follow their object in the transaction that
stores it. What was served where there was no bound is not counted when one is stated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import BindParameter, and_, bindparam, delete, exists, func, insert, or_, select, update

from bessemer.core.bounds import (
    BUSY_SECONDS,
    METERS,
    OF_QUOTA,
    Answer,
    Ask,
    Bound,
    Budget,
    Limits,
    Meter,
    Want,
    bounds_of,
    concerns,
    scopes_of,
)
from bessemer.core.errors import Cause, Invalid, QuotaExceeded
from bessemer.core.money import HOLD_SECONDS, Prices
from bessemer.core.resource import tenant_of
from bessemer.core.units import show_price
from bessemer.core.values import LedgerEntry, UsageRecord
from bessemer.store import lent, money
from bessemer.store.documents import Document
from bessemer.store.kinds import API_KEY, PROJECT, TENANT
from bessemer.store.schema import bounds, levels, of, stated
from bessemer.store.scopes import owner
from bessemer.store.transaction import Tx

_MICRO = frozenset(meter.name for meter in (*METERS.values(), *OF_QUOTA.values()) if meter.unit == "micro")
_BUSY = tuple(meter.name for meter in METERS.values() if meter.way == "busy")

KINDS = (API_KEY, PROJECT, TENANT)
"""Whose objects state bounds."""

_NOW: BindParameter[int] = bindparam("now")
_ROWS = select(bounds.c.scope, bounds.c.meter, bounds.c.bound, bounds.c.start, bounds.c.used)
_SCOPES = ("s0", "s1", "s2", "s3")
OF_SCOPES = _ROWS.where(or_(*(bounds.c.scope == bindparam(name) for name in _SCOPES)))
"""Every row of up to four scopes."""

OF_TENANT = _ROWS.where(
    or_(
        bounds.c.scope == bindparam("tenant"),
        and_(bounds.c.scope >= bindparam("first"), bounds.c.scope < bindparam("last")),
    )
)
_HERE = (of(bounds.c.scope), of(bounds.c.meter))
_ROW = _ROWS.where(*_HERE)
_INSERT = insert(bounds)
_BOUND = update(bounds).values(bound=bindparam("bound")).where(*_HERE)
_MOVE = update(bounds).values(start=bindparam("start"), used=bindparam("used")).where(*_HERE)
_FORGET = delete(bounds).where(of(bounds.c.scope))

HELD = (
    select(func.coalesce(func.sum(levels.c.amount), 0))
    .select_from(levels.join(stated, and_(stated.c.project == levels.c.project, stated.c.holder == levels.c.holder)))
    .where(of(levels.c.scope), of(levels.c.meter), stated.c.until > _NOW)
)
"""What is held of a bound by whom something was heard of since: of what is spent, since ever."""

_OWN = (of(stated.c.project), of(stated.c.holder))
_STATED = select(stated.c.number, stated.c.until).where(*_OWN)
_STATE = update(stated).values(number=bindparam("number"), until=bindparam("until")).where(*_OWN)
_FIRST = insert(stated)
_SILENT = and_(stated.c.project == levels.c.project, stated.c.holder == levels.c.holder, stated.c.until <= _NOW)
_SWEEP_BUSY = delete(levels).where(of(levels.c.meter), exists().where(_SILENT))
_HOLDING = and_(levels.c.project == stated.c.project, levels.c.holder == stated.c.holder)
_SWEEP = delete(stated).where(stated.c.until <= _NOW, ~exists().where(_HOLDING))
_UNSTATE_ALL = delete(stated).where(of(stated.c.project))

_MINE = (of(levels.c.project), of(levels.c.holder))
_LEVEL = (*_MINE, of(levels.c.scope), of(levels.c.meter))
_HOLDS = select(levels.c.amount).where(*_LEVEL)
_HOLD = update(levels).values(amount=bindparam("amount")).where(*_LEVEL)
_ADD_HOLD = insert(levels)
_DROP = delete(levels).where(*_LEVEL)
_DROP_ALL = delete(levels).where(*_MINE)
_DROP_BUSY = delete(levels).where(*_MINE, of(levels.c.meter))
_DROP_OF = delete(levels).where(of(levels.c.scope))
_DROP_OF_PROJECT = delete(levels).where(of(levels.c.project))
HELD_BY = select(levels.c.project).distinct().where(of(levels.c.holder))
"""The projects of whose bounds somebody holds something."""


@dataclass(frozen=True, slots=True)
class _Row:
    scope: str
    meter: str
    bound: int | None
    start: int
    used: int

    def rolled(self, now: float) -> _Row:
        """As it is in the present period: by the store's clock, a wrong one of before included."""
        start = METERS[self.meter].start(now)
        return self if start == self.start else _Row(self.scope, self.meter, self.bound, start, 0)


# --- what objects say -------------------------------------------------------------------------------------------


def said(document: Document) -> dict[tuple[str, str], int]:
    """(scope, meter) → bound, as an object says. Raises Invalid."""
    spec, metadata = document.get("spec", {}), document["metadata"]
    name = metadata["name"]
    match document["kind"]:
        case "ApiKey":
            return _read(f"key/{metadata.get('namespace', '')}/{name}", spec)
        case "Project":
            return _read(f"project/{name}", spec)
        case "Tenant":
            found = _read(f"tenant/{name}", spec)
            for member in spec.get("members") or ():
                found |= _read(f"member/{name}/{member['user']}", member)
            return found
    return {}


def _read(scope: str, part: Mapping[str, object]) -> dict[tuple[str, str], int]:
    limits, budget = part.get("limits"), part.get("budget")
    if not limits and not budget:
        return {}
    try:
        found = bounds_of(
            Limits.model_validate(limits) if limits else None, Budget.model_validate(budget) if budget else None
        )
    except ValidationError as error:
        raise Invalid("bounds", [Cause("spec.limits", f"cannot be read, or spec.budget: {scope}")]) from error
    return {(scope, meter): bound for meter, bound in found.items()}


def follow(tx: Tx, document: Document) -> None:
    """The bounds of an ApiKey, a Project or a Tenant that is being stored hold from this transaction on. Raises
    Invalid."""
    if document["kind"] not in KINDS:
        return
    wanted = said(document)
    name = document["metadata"]["name"]
    if document["kind"] == TENANT:
        rows = _of_tenant(tx, name)
    else:
        project = document["metadata"].get("namespace", "")
        rows = _of(tx, [f"key/{project}/{name}" if document["kind"] == API_KEY else f"project/{name}"])
    standing = {(row.scope, row.meter): row.bound for row in rows}
    for (scope, meter), bound in wanted.items():
        if (scope, meter) not in standing:
            start = METERS[meter].start(tx.server_time)
            tx.run(_INSERT, scope=scope, meter=meter, bound=bound, start=start, used=0)
        elif standing[scope, meter] != bound:
            tx.run(_BOUND, of_scope=scope, of_meter=meter, bound=bound)
    for (scope, meter), stood in standing.items():
        if stood is not None and (scope, meter) not in wanted:
            tx.run(_BOUND, of_scope=scope, of_meter=meter, bound=None)


def forget(tx: Tx, kind: str, *, project: str, name: str) -> None:
    """The object is gone: whoever gets its name begins anew."""
    if kind == TENANT:
        scopes = {row.scope for row in _of_tenant(tx, name)} | {f"tenant/{name}"}
    else:
        scopes = {f"key/{project}/{name}" if kind == API_KEY else f"project/{name}"}
    for scope in scopes:
        tx.run(_FORGET, of_scope=scope)
        tx.run(_DROP_OF, of_scope=scope)
    if kind == PROJECT:
        tx.run(_DROP_OF_PROJECT, of_project=name)
        tx.run(_UNSTATE_ALL, of_project=name)


def _of(tx: Tx, scopes: Sequence[str]) -> list[_Row]:
    asked = dict(zip(_SCOPES, (*scopes, "", "", ""), strict=False))
    return [_Row(*row) for row in tx.all(OF_SCOPES, **asked)]


def _of_tenant(tx: Tx, name: str) -> list[_Row]:
    return [
        _Row(*row)
        for row in tx.all(OF_TENANT, tenant=f"tenant/{name}", first=f"member/{name}/", last=f"member/{name}0")
    ]


# --- what gateways want -----------------------------------------------------------------------------------------


def hold(tx: Tx, project: str, *, ask: Ask) -> Answer:
    """Give all that is wanted, and let the statement stand, unless it does not know of its last one. Raises
    QuotaExceeded where one bound has no room: then nothing is given, and what is held already stays held; Invalid."""
    now = int(tx.server_time)
    row = tx.one(_STATED, of_project=project, of_holder=ask.holder)
    number, until = row or (0, 0)
    stands = ask.after is not None and ask.after == number
    # Of a project that is gone nothing is kept: nobody would ever forget it.
    there = row is not None or bool(owner(tx, f"project/{project}"))
    if there and stands:
        lent.hold(tx, project, holder=ask.holder, wants=_of_quota(ask, True))
    if there and stands and (ask.wants or (ask.anew and number)):
        if ask.anew:
            tx.run(_DROP_ALL, of_project=project, of_holder=ask.holder)
        elif until <= now:
            for meter in _BUSY:
                tx.run(_DROP_BUSY, of_project=project, of_holder=ask.holder, of_meter=meter)
        prices = _prices(tx, project, meters={want.meter for want in ask.wants})
        for want in _of_quota(ask, False):
            _want(tx, project, ask=ask, want=want, currency=prices.currency)
        number += 1
        if row is None:
            _sweep(tx, now)
        _keep(tx, project, holder=ask.holder, number=number, known=row is not None)
    standing = list(_standing(tx, scopes_of(project, key=ask.key, owner=ask.owner)))
    known = {one.scope for one in standing}
    for scope in {want.scope for want in ask.wants} - known:
        standing += _standing(tx, [scope])
    standing += lent.standing(tx, project)
    prices = _prices(tx, project, meters={one.meter for one in standing})
    return Answer(number=number, stands=stands, bounds=standing, prices=prices)


def _of_quota(ask: Ask, quotas: bool) -> list[Want]:
    return [want for want in ask.wants if (want.meter in OF_QUOTA) is quotas]


def _prices(tx: Tx, project: str, *, meters: set[str]) -> Prices:
    if any(meter in _MICRO for meter in meters):
        return money.prices_of(tx, tenant_of(project))
    return Prices()


def _keep(tx: Tx, project: str, *, holder: str, number: int, known: bool) -> None:
    until = int(tx.server_time) + HOLD_SECONDS
    if known:
        tx.run(_STATE, of_project=project, of_holder=holder, number=number, until=until)
    else:
        tx.run(_FIRST, project=project, holder=holder, number=number, until=until)


def _sweep(tx: Tx, now: int) -> None:
    """What nobody came for, and who holds nothing. What may yet be spent is kept (`spoolholds`)."""
    for meter in _BUSY:
        tx.run(_SWEEP_BUSY, of_meter=meter, now=now)
    tx.run(_SWEEP, now=now)


def _want(tx: Tx, project: str, *, ask: Ask, want: Want, currency: str) -> None:
    meter = METERS.get(want.meter)
    if meter is None or want.amount < 0 or not concerns(want.scope, project):
        raise Invalid(f"{want.scope[:63]!r} {want.meter[:63]!r}: no bound of {project}, or less than nothing")
    place = {"of_scope": want.scope, "of_meter": want.meter}
    found = tx.one(_ROW, **place)
    row = _Row(*found).rolled(tx.server_time) if found is not None else None
    if meter.way == "given":
        if row is not None and row.bound is not None:
            _require(row, want.amount, held=0, currency=currency)
            tx.run(_MOVE, **place, start=row.start, used=row.used + want.amount)
        return
    mine = {"of_project": project, "of_holder": ask.holder, **place}
    amount = want.amount if row is not None and row.bound is not None else 0
    held = tx.one(_HOLDS, **mine)
    alive = _alive(tx, project, ask=ask, held=held, meter=meter)
    if row is not None and amount > alive:
        _require(row, amount, held=_held(tx, row, now=int(tx.server_time)) - alive, currency=currency)
    if not amount:
        tx.run(_DROP, **mine)
    elif held is None:
        names = {"project": project, "holder": ask.holder, "scope": want.scope, "meter": want.meter}
        tx.run(_ADD_HOLD, **names, amount=amount)
    elif held[0] != amount:
        tx.run(_HOLD, **mine, amount=amount)


def _alive(tx: Tx, project: str, *, ask: Ask, held: tuple[int] | None, meter: Meter) -> int:
    """What of the sum that is held is this gateway's own: nothing that it said too long ago."""
    row = tx.one(_STATED, of_project=project, of_holder=ask.holder)
    return held[0] if held is not None and row is not None and row[1] > _since(meter, int(tx.server_time)) else 0


def _require(row: _Row, amount: int, *, held: int, currency: str) -> None:
    assert row.bound is not None
    left = row.bound - row.used - held
    if amount > left:
        raise QuotaExceeded(lacking(row.scope, row.meter, left=max(left, 0), bound=row.bound, currency=currency))


def lacking(scope: str, meter: str, *, left: int, bound: int, currency: str) -> str:
    """``key chat: 20 of 100 tokens per minute left``."""
    kind, _, rest = scope.partition("/")
    name = rest.rpartition("/")[2] if kind in ("key", "member") else rest
    if METERS[meter].unit == "micro":
        return (
            f"{kind} {name}: {show_price(left, currency)} of {show_price(bound, currency)} {METERS[meter].title} left"
        )
    return f"{kind} {name}: {left} of {bound} {METERS[meter].title} left"


def _since(meter: Meter, now: int) -> int:
    """Whoever's statement is held until later than this is heard of, as far as the meter asks: who holds what is spent
    holds it until the gateway that has its spool says otherwise, however long nothing is heard of it."""
    return now + HOLD_SECONDS - BUSY_SECONDS if meter.way == "busy" else -1


def _held(tx: Tx, row: _Row, *, now: int) -> int:
    meter = METERS[row.meter]
    if meter.way == "given":
        return 0
    return int(tx.one(HELD, of_scope=row.scope, of_meter=row.meter, now=_since(meter, now))[0])


def _standing(tx: Tx, scopes: Sequence[str]) -> Iterator[Bound]:
    now = tx.server_time
    for found in _of(tx, scopes):
        if found.bound is not None and found.meter in METERS:
            row = found.rolled(now)
            yield Bound(
                scope=row.scope,
                meter=row.meter,
                bound=found.bound,
                used=row.used,
                held=_held(tx, row, now=int(now)),
                until=METERS[row.meter].end(now),
            )


def standing(tx: Tx, scopes: Sequence[str]) -> Sequence[Bound]:
    """The bounds of up to four scopes, as they stand."""
    return list(_standing(tx, scopes))


def held_by(tx: Tx, holder: str) -> Sequence[str]:
    """The projects of whose bounds somebody holds something."""
    return [project for (project,) in tx.all(HELD_BY, of_holder=holder)]


# --- what is settled --------------------------------------------------------------------------------------------


def settle(tx: Tx, row: LedgerEntry, *, holder: str, records: Sequence[UsageRecord]) -> None:
    """A row of tokens of one key was appended to the ledger, for these records: what they came to leaves the gateway's
    holds, as far as it was held, and is spent."""
    rows = _of(tx, scopes_of(row.project, key=row.api_key, owner=records[0].owner or ""))
    spent = [one.rolled(tx.server_time) for one in rows if one.meter in METERS and METERS[one.meter].way == "spent"]
    if not spent:
        return
    uids = {f"project/{row.project}": row.project_uid, f"tenant/{row.tenant}": row.tenant_uid}
    mine = {scope for scope, uid in uids.items() if owner(tx, scope) == uid}
    prices = _prices(tx, row.project, meters={one.meter for one in spent})
    for one in spent:
        kind = one.scope.partition("/")[0]
        above = f"project/{row.project}" if kind in ("key", "project") else f"tenant/{row.tenant}"
        unit = METERS[one.meter].unit
        if above in mine:
            used = one.used + _came_to(unit, row, prices=prices, requests=row.requests)
            tx.run(_MOVE, of_scope=one.scope, of_meter=one.meter, start=one.start, used=used)
        name = f"{kind} {one.meter}"
        held = sum(_came_to(unit, of, prices=prices, requests=1) for of in records if name in (of.held_bounds or ()))
        _release(tx, row.project, holder=holder, of=one, amount=held)


def _came_to(unit: str, of: LedgerEntry | UsageRecord, *, prices: Prices, requests: int) -> int:
    if unit == "requests":
        return requests
    if unit == "tokens":
        return of.input_tokens + of.output_tokens
    due = prices.of(of.model)
    return due.tokens(read=of.input_tokens, cached=of.cached_input_tokens, written=of.output_tokens)


def _release(tx: Tx, project: str, *, holder: str, of: _Row, amount: int) -> None:
    mine = {"of_project": project, "of_holder": holder, "of_scope": of.scope, "of_meter": of.meter}
    found = tx.one(_HOLDS, **mine) if amount else None
    if found is not None and found[0] > amount:
        tx.run(_HOLD, **mine, amount=found[0] - amount)
    elif found is not None:
        tx.run(_DROP, **mine)
