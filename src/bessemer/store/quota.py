"""Quota: what each scope uses of what it may, moved by whoever has the writers' line, in which nobody else moves it.

A scope is ``project/NAME`` or ``tenant/NAME``; a meter is one of the register in ``core.quota``. Invariants: ``used``
is the sum over what stands; bounds follow their Tenant or Project in the transaction that stores it; one that is
lowered below what is used stops new use and touches nothing. What is given out of a window never passes its bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import structlog
from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from sqlalchemy import bindparam, delete, insert, null, or_, select, update

from bessemer.core.errors import Invalid, QuotaExceeded
from bessemer.core.money import Wish
from bessemer.core.quota import (
    METERS,
    Meter,
    Quota,
    Share,
    Use,
    amount_in,
    begun,
    bounds_of,
    devices_of,
    said,
    show_amount,
    window_of,
)
from bessemer.core.resource import Key, tenant_of
from bessemer.core.values import ClaimSpec
from bessemer.store import money
from bessemer.store.beside import Outdated, unaware
from bessemer.store.documents import Document, decode
from bessemer.store.kinds import CLAIM, PROJECT, TENANT, StoreKind
from bessemer.store.known import Look
from bessemer.store.schema import counters, is_kind, objects, of, quota, windows
from bessemer.store.scopes import WHO, raise_it, scopes
from bessemer.store.transaction import SET_COUNTER, Tx, put

log = structlog.get_logger(__name__)

_HERE = (of(quota.c.scope), of(quota.c.meter))
_SET = update(quota).values(used=bindparam("used")).where(*_HERE)
LOOK = select(quota.c.used, quota.c.bound).where(*_HERE)
_INSERT = insert(quota)
_BOUND = update(quota).values(bound=bindparam("bound")).where(*_HERE)
_FORGET = delete(quota).where(of(quota.c.scope))
_UNBOUND = update(quota).values(bound=null()).where(of(quota.c.scope), quota.c.bound.is_not(None))
USE = select(quota.c.scope, quota.c.meter, quota.c.used, quota.c.bound).where(of(quota.c.scope)).order_by(quota.c.meter)

_WINDOW = (of(windows.c.scope), of(windows.c.meter))
_GIVEN = windows.c.used + bindparam("amount")
_HOLD = update(windows).values(used=_GIVEN).where(*_WINDOW, bindparam("bound") >= _GIVEN)
_OPEN = (
    update(windows)
    .values(start=bindparam("begins"), used=0)
    .where(*_WINDOW, or_(windows.c.start < bindparam("begins"), windows.c.start > bindparam("ends")))
)
_LOOK_WINDOW = select(windows.c.start, windows.c.used).where(*_WINDOW)
_INSERT_WINDOW = insert(windows)
_FORGET_WINDOWS = delete(windows).where(of(windows.c.scope))
WINDOWS = select(windows.c.meter, windows.c.start, windows.c.used).where(of(windows.c.scope))

_NAMES = select(objects.c.namespace, objects.c.name, null()).where(of(objects.c.kind))
_COUNTED = select(objects.c.namespace, objects.c.name, objects.c.body).where(of(objects.c.kind))
_BODIES = select(objects.c.namespace, objects.c.body).where(of(objects.c.kind))
_MET = "meter/"
_MARKS = select(counters.c.name, counters.c.value).where(counters.c.name.like(f"{_MET}%"))
_MARK = insert(counters)
_BOUNDED = select(objects.c.body).where(or_(is_kind(objects.c.kind, TENANT), is_kind(objects.c.kind, PROJECT)))
_USED = select(quota.c.scope, quota.c.used).where(of(quota.c.meter))

_FIELDS = {field.alias or name for name, field in Quota.model_fields.items()}


def take(tx: Tx, project: str, *, tenant: str, amounts: Mapping[str, int]) -> None:
    """Use more of each meter, in every scope. Raises QuotaExceeded."""
    for scope in scopes(project, tenant):
        for meter, amount in amounts.items():
            if amount:
                _with_devices(tx, scope, meter=meter, by=amount)
                _take(tx, scope, meter=meter, amount=amount)


def _take(tx: Tx, scope: str, *, meter: str, amount: int) -> None:
    place = {"of_scope": scope, "of_meter": meter}
    used, bound = 0, None
    rows = tx.known.at(LOOK, (scope, meter))
    if rows is None:
        rows = tx.look(LOOK, **place)
    for used, bound in rows:
        if bound is not None and used + amount > bound:
            raise exceeded(scope, meter, amount=amount, left=bound - used, bound=bound)
    look, after = Look(LOOK, place), [(used + amount, bound)]
    if rows:
        put(tx, _SET, values={**place, "used": used + amount}, look=look, rows=after)
    else:
        put(tx, _INSERT, values={"scope": scope, "meter": meter, "used": amount, "bound": None}, look=look, rows=after)


def give(tx: Tx, project: str, *, tenant: str, amounts: Mapping[str, int]) -> None:
    """Use less of each meter. It stops at 0: what an older release beside this one took, it did not count."""
    for scope in scopes(project, tenant):
        for meter, amount in amounts.items():
            if amount:
                _with_devices(tx, scope, meter=meter, by=-amount)
                _give(tx, scope, meter=meter, amount=amount)


def _with_devices(tx: Tx, scope: str, *, meter: str, by: int) -> None:
    """Parts of devices count as devices too: as many as are begun by all of them."""
    if devices := devices_of(meter):
        used = next((used for used, _ in tx.look(LOOK, of_scope=scope, of_meter=meter)), 0)
        more = begun(max(used + by, 0)) - begun(used)
        if more > 0:
            _take(tx, scope, meter=devices, amount=more)
        elif more < 0:
            _give(tx, scope, meter=devices, amount=-more)


def _give(tx: Tx, scope: str, *, meter: str, amount: int) -> None:
    place = {"of_scope": scope, "of_meter": meter}
    for used, bound in tx.look(LOOK, **place):
        if amount > used:
            log.warning("less is used than is given back", scope=scope, meter=meter, amount=amount)
        left = max(used - amount, 0)
        put(tx, _SET, values={**place, "used": left}, look=Look(LOOK, place), rows=[(left, bound)])


def looks(key: Key, *, meter: str) -> Iterator[Look]:
    """What `count` asks."""
    for scope in scopes(key.namespace, _tenant_of(key)):
        yield Look(LOOK, {"of_scope": scope, "of_meter": meter})


def follow_part(tx: Tx, key: Key, *, facts: StoreKind, old: Document, new: Document) -> None:
    """A status that says for how many its object counts: from this transaction on. Raises QuotaExceeded."""
    by = amount_in(new, facts.counts) - amount_in(old, facts.counts)
    if by:
        count(tx, key, meter=facts.meter, by=by)


def count(tx: Tx, key: Key, *, meter: str, by: int) -> None:
    """So many of a counted kind more, or less; a project counts on its tenant. Raises QuotaExceeded."""
    move = take if by > 0 else give
    move(tx, key.namespace, tenant=_tenant_of(key), amounts={meter: abs(by)})


def _tenant_of(key: Key) -> str:
    return tenant_of(key.name if key.kind == PROJECT else key.namespace)


def exceeded(scope: str, meter: str, *, amount: int, left: int, bound: int) -> QuotaExceeded:
    """Says how much is left, and who may raise it."""
    kind, _, name = scope.partition("/")
    return QuotaExceeded(
        f"{kind} {name}: {said(meter, amount)} asked, {show_amount(meter, max(left, 0))} of "
        f"{show_amount(meter, bound)} left; {raise_it(scope)}"
    )


# --- bounds -----------------------------------------------------------------------------------------------------


def follow(tx: Tx, document: Document) -> None:
    """The bounds of a Tenant or Project that is being stored hold from this transaction on. A meter that only a newer
    replica beside us knows is its to bound. Raises Invalid."""
    kind, name = document["kind"], document["metadata"]["name"]
    if kind not in (TENANT, PROJECT):
        return
    try:
        stated = document.get("spec", {}).get("quota") or {}
        theirs = {to_camel(meter) for meter in _marks(tx)} - _FIELDS
        wanted = Quota.model_validate({name: stated[name] for name in stated if name not in theirs})
    except (ValidationError, TypeError, AttributeError) as error:
        raise Invalid(f"the quota of {kind} {name} cannot be read") from error
    set_bounds(tx, f"{kind.lower()}/{name}", wanted=wanted)


def set_bounds(tx: Tx, scope: str, *, wanted: Quota) -> None:
    """Let the bounds of the scope be these, and no others."""
    kind, _, name = scope.partition("/")
    if kind not in WHO or not name:
        raise Invalid(f"{scope!r} is no scope: write tenant/NAME or project/NAME")
    current = {meter: bound for _, meter, _, bound in tx.all(USE, of_scope=scope)}
    waiting = {meter for meter, counted in _marks(tx).items() if not counted}
    target = {meter: bound for meter, bound in bounds_of(wanted).items() if meter.partition("/")[0] not in waiting}
    if {meter: bound for meter, bound in current.items() if bound is not None} == target:
        return
    money.follow(tx, scope, was=current.get(money.METER) is not None, bounded=money.METER in target)
    tx.run(_UNBOUND, of_scope=scope)
    for meter, bound in target.items():
        if meter in current:
            tx.run(_BOUND, of_scope=scope, of_meter=meter, bound=bound)
        else:
            tx.run(_INSERT, scope=scope, meter=meter, used=0, bound=bound)


def forget(tx: Tx, scope: str) -> None:
    """Its owner is gone, with all that used it: whoever gets the name begins anew."""
    tx.run(_FORGET, of_scope=scope)
    tx.run(_FORGET_WINDOWS, of_scope=scope)
    money.forget(tx, scope)


def read_use(row: tuple[str, str, int, int | None]) -> Use:
    """From the columns of `USE`."""
    return Use(scope=row[0], meter=row[1], used=row[2], limit=row[3])


# --- windows ----------------------------------------------------------------------------------------------------


def window_meter(name: str) -> Meter:
    """The meter of that name. Raises Invalid where none is counted within a window by it."""
    found = next((meter for meter in METERS if meter.name == name and meter.window_seconds), None)
    if found is None:
        raise Invalid(f"{name[:63]!r} is not counted within a window")
    return found


def hold(tx: Tx, project: str, *, meter: Meter, amount: int, wish: Wish | None = None) -> Share:
    """Give out ``amount`` of what the project and its tenant may within the present window, whole or not at all, with
    the money that is wished for. Raises QuotaExceeded."""
    purse = money.hold(tx, project, wish=wish, asks=amount > 0)
    left = give_out(tx, project, meter=meter, amount=amount)
    until = _begin(tx, meter) + meter.window_seconds
    return Share(amount=amount, until=until, left=min(left, default=None), money=purse)


def give_out(tx: Tx, project: str, *, meter: Meter, amount: int) -> list[int]:
    """The same without money: what is left of each bound that there is. Raises QuotaExceeded."""
    start = _begin(tx, meter)
    bounds = ((scope, bound) for scope, bound, _ in given(tx, project, meter=meter))
    return [b - _hold(tx, scope, meter=meter, amount=amount, bound=b, start=start) for scope, b in bounds]


def given(tx: Tx, project: str, *, meter: Meter) -> Iterator[tuple[str, int, int]]:
    """Of the project and its tenant, where they have a bound: the scope, that, and what is given out of it by now."""
    for scope in scopes(project, tenant_of(project)):
        row = tx.one(LOOK, of_scope=scope, of_meter=meter.name)
        if row is not None and row[1] is not None:
            window = tx.one(_LOOK_WINDOW, of_scope=scope, of_meter=meter.name)
            now = window is not None and window[0] == _begin(tx, meter)
            yield scope, row[1], window[1] if now else 0


def _begin(tx: Tx, meter: Meter) -> int:
    return int(tx.server_time) // meter.window_seconds * meter.window_seconds


def _hold(tx: Tx, scope: str, *, meter: Meter, amount: int, bound: int, start: int) -> int:
    """Answers what is given out by now. A window that a clock which was wrong has put far ahead is none."""
    place = {"of_scope": scope, "of_meter": meter.name}
    tx.run(_OPEN, **place, begins=start, ends=start + meter.window_seconds)
    if not tx.run(_HOLD, **place, amount=amount, bound=bound):
        row = tx.one(_LOOK_WINDOW, **place)
        given: int = row[1] if row is not None else 0
        if row is not None or amount > bound:
            raise exceeded(scope, meter.name, amount=amount, left=bound - given, bound=bound)
        tx.run(_INSERT_WINDOW, scope=scope, meter=meter.name, start=start, used=amount)
        return amount
    used: int = tx.one(_LOOK_WINDOW, **place)[1]
    return used


def tells(use: Use) -> bool:
    """Whether it is known: what is counted elsewhere is looked at only while it has a bound."""
    return use.limit is not None or not any(meter.told and meter.name == use.meter for meter in METERS)


def within_window(use: Use, given: tuple[int, int] | None, *, now: float) -> Use:
    """The use, where its meter is counted within a window: what was ``given`` (start, amount) out of the present."""
    seconds = window_of(use.meter)
    if not seconds or given is None or given[0] + seconds <= now:
        return use
    return replace(use, used=given[1])


# --- what stood before its meter did ----------------------------------------------------------------------------


def begin_counting(tx: Tx, kinds: Mapping[str, StoreKind]) -> None:
    """Count, once, what stands of each meter that this store has not met before: later it is counted as it moves.

    Where somebody writes who would not count it, it waits for a later call, and has no bound until then: its number
    would not be true. Bounds are read once, after all is counted that is. Raises Outdated where what is counted is more
    than this release knows.
    """
    marks = _marks(tx)
    unknown = {meter for meter, counted in marks.items() if counted} - {meter.name for meter in METERS}
    if unknown:
        raise Outdated(f"a newer release counts {', '.join(sorted(unknown))} in this store, and this one would not")
    new = [meter for meter in METERS if not marks.get(meter.name) and _moves(meter, kinds)]
    for meter in new:
        if meter.name not in marks:
            tx.run(_MARK, name=_MET + meter.name, value=0)
    counted = [meter for meter in new if not unaware(tx, meter.name)]
    for meter in counted:
        tx.run(SET_COUNTER, of_name=_MET + meter.name, value=1)
        if meter.kind or meter.per_claim is not None:
            _count_anew(tx, meter)
    if waiting := [meter.name for meter in new if meter not in counted]:
        log.info("meters are counted once no older replica serves", meters=waiting)
    for (body,) in tx.all(_BOUNDED) if counted else ():
        _follow_stored(tx, decode(body))


def _moves(meter: Meter, kinds: Mapping[str, StoreKind]) -> bool:
    """Whether this store counts it: objects of a kind where it knows that they are."""
    facts = kinds.get(meter.kind)
    return not meter.kind or (facts is not None and facts.meter == meter.name)


def _follow_stored(tx: Tx, document: Document) -> None:
    """As `follow`, where nobody is there to be refused: what cannot be read is told in the log, and stops no start."""
    try:
        follow(tx, document)
    except Invalid as error:
        scope = f"{document['kind'].lower()}/{document['metadata']['name']}"
        log.error(
            "a bound that cannot be read stays as it was, or is 0: state the quota anew", scope=scope, why=str(error)
        )
        set_bounds(tx, scope, wanted=_legible(tx, document, scope=scope))


def _legible(tx: Tx, document: Document, *, scope: str) -> Quota:
    """What can be read of a stored quota, a meter at a time. A bound that cannot be is not none: it is what it was, and
    where there was none it gives nothing."""
    spec = document.get("spec")
    stated = spec.get("quota") if isinstance(spec, dict) else None
    held = {meter: bound for _, meter, _, bound in tx.all(USE, of_scope=scope) if bound is not None}
    by_model = {meter.name for meter in METERS if meter.by_model}
    found: dict[str, object] = {}
    for name in Quota.model_fields:
        said = (
            {one: stated[one] for one in (name, to_camel(name)) if one in stated} if isinstance(stated, dict) else None
        )
        try:
            found[name] = getattr(Quota.model_validate(said), name)
        except ValidationError:
            models = {meter.partition("/")[2]: held[meter] for meter in held if meter.partition("/")[0] == name}
            found[name] = (models or {"*": 0}) if name in by_model else held.get(name, 0)
    return Quota().model_copy(update=found)


def _marks(tx: Tx) -> dict[str, int]:
    """Each meter that this store has met → 1, or 0 where it is not counted yet."""
    return {name.removeprefix(_MET): counted for name, counted in tx.all(_MARKS)}


def _count_anew(tx: Tx, meter: Meter) -> None:
    standing = _standing(tx, meter)
    known: dict[str, int] = dict(tx.all(_USED, of_meter=meter.name))
    for scope in standing.keys() | known.keys():
        if scope not in known:
            tx.run(_INSERT, scope=scope, meter=meter.name, used=standing[scope], bound=None)
        elif known[scope] != standing[scope]:
            tx.run(_SET, of_scope=scope, of_meter=meter.name, used=standing[scope])


def _standing(tx: Tx, meter: Meter) -> Counter[str]:
    """Scope → what it uses of the meter, from the objects themselves."""
    found: Counter[str] = Counter()
    if meter.per_claim is None:
        for namespace, name, body in tx.all(_COUNTED if meter.each else _NAMES, of_kind=meter.kind):
            amount = amount_in(decode(body), meter.each) if meter.each else 1
            for scope in scopes(namespace, _tenant_of(Key(meter.kind, namespace, name))):
                found[scope] += amount
        return found
    for namespace, body in tx.all(_BODIES, of_kind=CLAIM):
        spec = ClaimSpec.model_validate(decode(body)["spec"])
        for scope in scopes(namespace, spec.tenant):
            found[scope] += meter.per_claim(spec)
    return found
