"""Money: what is spent of a bound and what gateways hold of it, moved in the transaction of what it is spent for.

Invariants: of a bound that was looked at, ``used`` is what the ledger comes to, up to a row by the controller's look,
behind it row by row; whoever takes more finds room for it beside that and all that is held; nobody's word that is late
moves a hold. It says nothing of what was spent where nothing is bounded: that is the ledger's alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sqlalchemy import BindParameter, bindparam, case, delete, func, insert, or_, select, update

from bessemer.core.errors import Invalid, NotFound, QuotaExceeded
from bessemer.core.money import FIRST_SECONDS, HOLD_SECONDS, Prices, Purse, Wish
from bessemer.core.quota import METERS
from bessemer.core.resource import Key, tenant_of
from bessemer.core.units import show_price
from bessemer.core.values import ClaimSpec, LedgerEntry
from bessemer.store.kinds import PRICE_PLAN, TENANT
from bessemer.store.known import Look
from bessemer.store.rows import load
from bessemer.store.schema import holds, ledger, looks, of, quota
from bessemer.store.scopes import owner, raise_it
from bessemer.store.transaction import Tx

(METER,) = (meter.name for meter in METERS if meter.told)

_HERE = (of(quota.c.scope), quota.c.meter == METER)
_BOUNDS = (
    select(quota.c.scope, quota.c.used, quota.c.bound, looks.c.upto)
    .select_from(quota.outerjoin(looks, looks.c.scope == quota.c.scope))
    .where(
        or_(quota.c.scope == bindparam("project"), quota.c.scope == bindparam("tenant")),
        quota.c.meter == METER,
        quota.c.bound.is_not(None),
    )
    .order_by(quota.c.scope)
)
_BOUND = select(quota.c.bound).where(*_HERE)
_STATED = select(quota.c.bound).where(of(quota.c.scope), of(quota.c.meter))
_ADD = update(quota).values(used=quota.c.used + bindparam("amount")).where(*_HERE)
_SET = update(quota).values(used=bindparam("used")).where(*_HERE)

_NOW: BindParameter[int] = bindparam("now")
COUNTING = "what this month has cost is being counted: try again in a moment"
LOST = -1
"""The number of a hold whose gateway's spool is lost for good: it counts until its time is over."""

_SUM = select(func.coalesce(func.sum(holds.c.micro), 0)).where(or_(holds.c.number > LOST, holds.c.until > _NOW))
HELD = {"project": _SUM.where(of(holds.c.project)), "tenant": _SUM.where(of(holds.c.tenant))}
_MINE = (of(holds.c.project), of(holds.c.holder))
_HOLD = select(holds.c.micro, holds.c.number).where(*_MINE)
_STATE = (
    update(holds).values(micro=bindparam("micro"), number=bindparam("number"), until=bindparam("until")).where(*_MINE)
)
_LESS = (
    update(holds)
    .values(micro=case((holds.c.micro > bindparam("amount"), holds.c.micro - bindparam("amount")), else_=0))
    .where(*_MINE)
)
_INSERT_HOLD = insert(holds)
HELD_BY = select(holds.c.project).where(of(holds.c.holder), holds.c.micro > 0)
"""The projects of which somebody holds money."""

_DROP = delete(holds).where(*_MINE)
_DROP_ALL = delete(holds).where(of(holds.c.project))
_SWEEP = delete(holds).where(holds.c.until <= _NOW, or_(holds.c.micro == 0, holds.c.number == LOST))

_LOOKED = select(looks.c.upto).where(of(looks.c.scope))
_LOOK = insert(looks)
_LOOK_AGAIN = update(looks).values(upto=bindparam("upto")).where(of(looks.c.scope))
_UNLOOK = delete(looks).where(of(looks.c.scope))
_FIELDS = tuple(column.name for column in ledger.c)
_LATER = select(ledger).where(ledger.c.id > bindparam("upto"), or_(ledger.c.kind == "tokens", ledger.c.kind == "open"))
_ANY = {
    "project": select(ledger.c.id).where(of(ledger.c.project_uid)).limit(1),
    "tenant": select(ledger.c.id).where(of(ledger.c.tenant_uid)).limit(1),
}


@dataclass(frozen=True, slots=True)
class _Bound:
    """Of a scope: ``used`` of ``bound``; ``upto`` is None until the ledger was looked at for it."""

    scope: str
    used: int
    bound: int
    upto: int | None


def _bounds(tx: Tx, project: str, *, tenant: str) -> list[_Bound]:
    return [_Bound(*row) for row in tx.all(_BOUNDS, project=f"project/{project}", tenant=f"tenant/{tenant}")]


def prices_of(tx: Tx, tenant: str) -> Prices:
    """By which the tenant is billed; none where the plan is gone: quantities stay true."""
    try:
        plan = load(tx, Key(TENANT, "", tenant)).document()["spec"].get("pricePlan", "standard")
        return Prices.read(load(tx, Key(PRICE_PLAN, "", plan)).document()["spec"])
    except NotFound:
        return Prices()


# --- room ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Room:
    """What there is of one bound. ``held`` is by gateways."""

    of: _Bound
    held: int
    currency: str

    @property
    def left(self) -> int:
        return self.of.bound - self.of.used - self.held

    def require(self, amount: int, *, what: str = "") -> None:
        """That there is room for so much, or for anything at all. Raises QuotaExceeded."""
        if self.of.upto is None:
            self._refuse(COUNTING)
        if self.left <= 0 or amount > self.left:
            asked = f"{what}{show_price(amount, self.currency)} asked, " if amount else ""
            held = f", {show_price(self.held, self.currency)} held by gateways" if self.held else ""
            bound, used = show_price(self.of.bound, self.currency), show_price(self.of.used, self.currency)
            left = show_price(max(self.left, 0), self.currency)
            self._refuse(f"{asked}{left} of {bound} left for this month ({used} spent{held})")

    def _refuse(self, why: str) -> NoReturn:
        kind, _, name = self.of.scope.partition("/")
        raise QuotaExceeded(f"{kind} {name}: {why}; {raise_it(self.of.scope)}")


def _rooms(tx: Tx, bounds: Sequence[_Bound], *, currency: str) -> list[_Room]:
    return [_Room(one, _held(tx, one.scope), currency) for one in bounds]


def _held(tx: Tx, scope: str) -> int:
    kind, _, name = scope.partition("/")
    return int(tx.one(HELD[kind], now=int(tx.server_time), **{f"of_{kind}": name})[0])


def require(tx: Tx, project: str, *, tenant: str) -> None:
    """That neither has come up to its bound. Raises QuotaExceeded."""
    if _bounded(tx, project, tenant=tenant):
        bounds = _bounds(tx, project, tenant=tenant)
        for room in _rooms(tx, bounds, currency=prices_of(tx, tenant).currency):
            room.require(0)


def _bounded(tx: Tx, project: str, *, tenant: str) -> bool:
    """Whether either has a bound: `asked`, which a group asks once."""
    for scope in (f"project/{project}", f"tenant/{tenant}"):
        for (bound,) in tx.look(_STATED, of_scope=scope, of_meter=METER):
            if bound is not None:
                return True
    return False


def asked(project: str, *, tenant: str) -> Iterator[Look]:
    """What `require` asks where no money is bounded."""
    for scope in (f"project/{project}", f"tenant/{tenant}"):
        yield Look(_STATED, {"of_scope": scope, "of_meter": METER})


def begin(tx: Tx, spec: ClaimSpec, *, project: str) -> None:
    """A claim is being taken: there is room for its first hour, which counts from now on. Raises QuotaExceeded."""
    bounds = _bounds(tx, project, tenant=spec.tenant) if _bounded(tx, project, tenant=spec.tenant) else ()
    if not bounds:
        return
    prices = prices_of(tx, spec.tenant)
    cost = _first_hour(prices, spec)
    for room in _rooms(tx, bounds, currency=prices.currency):
        room.require(cost, what=f"the first hour of {spec.workload.kind} {spec.workload.name}: ")
        tx.run(_ADD, of_scope=room.of.scope, amount=cost)


def _first_hour(prices: Prices, of: ClaimSpec | LedgerEntry) -> int:
    """Of a claim, or of the row by which it was opened."""
    return prices.hours(
        FIRST_SECONDS,
        milli_cores=of.milli_cores,
        memory_bytes=of.memory_bytes,
        milli_devices=of.milli_devices,
        model=of.device_model,
    )


# --- holds --------------------------------------------------------------------------------------------------------


def hold(tx: Tx, project: str, *, wish: Wish | None, asks: bool) -> Purse | None:
    """Let the gateway's statement stand, unless it does not know of its last one. ``asks``: it wants to go on serving.
    None where nothing is bounded. One that knows of no holds is given something while there is anything left. Raises
    QuotaExceeded; what is held already stays held."""
    tenant = tenant_of(project)
    bounds = _bounds(tx, project, tenant=tenant)
    if not bounds:
        if wish is not None and wish.after:
            tx.run(_DROP, of_project=project, of_holder=wish.holder)
        return None
    prices = prices_of(tx, tenant)
    rooms = _rooms(tx, bounds, currency=prices.currency)
    left = min(room.left for room in rooms)
    if wish is None:
        for room in rooms:
            room.require(0)
        return None
    row = tx.one(_HOLD, of_project=project, of_holder=wish.holder)
    micro, number = row or (0, 0)
    now = int(tx.server_time)
    if wish.after != number:
        return Purse(prices=prices, number=number, stands=False, left=left)
    more = wish.micro - micro
    for room in rooms:
        if more > 0 or (asks and room.of.used >= room.of.bound):
            room.require(max(more, 0))
    said = {"micro": wish.micro, "number": number + 1, "until": now + HOLD_SECONDS}
    if row is not None:
        tx.run(_STATE, of_project=project, of_holder=wish.holder, **said)
    else:
        tx.run(_SWEEP, now=now)
        tx.run(_INSERT_HOLD, project=project, holder=wish.holder, tenant=tenant, **said)
    return Purse(prices=prices, number=number + 1, stands=True, left=left - more)


def state(tx: Tx, project: str, *, holder: str, micro: int) -> None:
    """Let it hold so much, by a statement that is known to be its last. Raises QuotaExceeded."""
    row = tx.one(_HOLD, of_project=project, of_holder=holder)
    if micro or (row is not None and row[0]):
        hold(tx, project, wish=Wish(holder=holder, micro=micro, after=row[1] if row is not None else 0), asks=False)


def standing(tx: Tx, project: str) -> tuple[str, int, int, int, str] | None:
    """Of the bound of which the least is left: scope, bound, what is spent and held of it, and who may raise it. None
    where there is none. One that was not looked at is spent."""
    bounds = _bounds(tx, project, tenant=tenant_of(project))
    if not bounds:
        return None
    room = min(_rooms(tx, bounds, currency=""), key=lambda one: one.left if one.of.upto is not None else -1)
    scope, bound = room.of.scope, room.of.bound
    if room.of.upto is None:
        return scope, bound, max(bound, room.of.used), room.held, COUNTING
    return scope, bound, room.of.used, room.held, raise_it(scope)


def settle(tx: Tx, row: LedgerEntry, *, holder: str, held: int) -> None:
    """A row of tokens was appended to the ledger, of requests for which the gateway ``held`` so much: what they cost
    leaves its hold and is spent."""
    bounds = _bounds(tx, row.project, tenant=row.tenant)
    if not bounds:
        return
    cost = _cost(prices_of(tx, row.tenant), row)
    for one in bounds:
        if owner(tx, one.scope) == getattr(row, _uid_of(one.scope)):
            tx.run(_ADD, of_scope=one.scope, amount=cost)
    if held:
        tx.run(_LESS, of_project=row.project, of_holder=holder, amount=min(cost, held))


def _cost(prices: Prices, row: LedgerEntry) -> int:
    """What a row of the ledger adds, as it is appended: its tokens, or a claim's first hour."""
    if row.kind == "tokens":
        due = prices.of(row.model)
        return due.tokens(read=row.input_tokens, cached=row.cached_input_tokens, written=row.output_tokens)
    return _first_hour(prices, row)


def _uid_of(scope: str) -> str:
    return f"{scope.partition('/')[0]}_uid"


# --- looks --------------------------------------------------------------------------------------------------------


def tell(tx: Tx, scope: str, *, meter: str, used: int, upto: int) -> None:
    """What the ledger came to, up to that row; what was appended since is added here. Where it never had a bound, or
    its owner is gone, nobody asks, and nothing is kept; nor of a look that is older than the last. Raises Invalid for
    any meter that is counted here."""
    if meter != METER:
        raise Invalid(f"{meter[:63]!r} is counted here")
    bound, looked = tx.one(_BOUND, of_scope=scope), tx.one(_LOOKED, of_scope=scope)
    if bound is None or bound[0] is None or (looked is not None and looked[0] > upto):
        return
    uid, column = owner(tx, scope), _uid_of(scope)
    later = (LedgerEntry.model_construct(**dict(zip(_FIELDS, row, strict=True))) for row in tx.all(_LATER, upto=upto))
    mine = [row for row in later if getattr(row, column) == uid]
    if mine:
        kind, _, name = scope.partition("/")
        prices = prices_of(tx, name if kind == "tenant" else tenant_of(name))
        used += sum(_cost(prices, row) for row in mine)
    tx.run(_SET, of_scope=scope, used=used)
    if looked is None:
        tx.run(_LOOK, scope=scope, upto=upto)
    elif looked[0] != upto:
        tx.run(_LOOK_AGAIN, of_scope=scope, upto=upto)


def follow(tx: Tx, scope: str, *, was: bool, bounded: bool) -> None:
    """A bound is stated, or is no more. One on a ledger with something in it holds everything up until that is
    looked at."""
    if was and not bounded:
        tx.run(_UNLOOK, of_scope=scope)
    if bounded and not was:
        uid = owner(tx, scope)
        kept = tx.one(_ANY[scope.partition("/")[0]], **{f"of_{_uid_of(scope)}": uid}) if uid else None
        if kept is None:
            tx.run(_UNLOOK, of_scope=scope)
            tx.run(_LOOK, scope=scope, upto=0)


def forget(tx: Tx, scope: str) -> None:
    """Its owner is gone."""
    tx.run(_UNLOOK, of_scope=scope)
    kind, _, name = scope.partition("/")
    if kind == "project":
        tx.run(_DROP_ALL, of_project=name)
