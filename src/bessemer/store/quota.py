"""Quota: what each scope uses of what it may, moved by conditional updates only.

A scope is ``project/NAME`` or ``tenant/NAME``; a meter is a field of `Quota`, or ``devices/MODEL`` and ``devices/*``.
Invariant: ``used`` is the sum over what stands; a bound that is lowered below it stops new use and touches nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import bindparam, delete, insert, null, or_, select, update

from bessemer.core.errors import Invalid, QuotaExceeded
from bessemer.core.resource import tenant_of
from bessemer.core.values import Quota, Use
from bessemer.store.schema import of, quota
from bessemer.store.transaction import Tx

_HERE = (of(quota.c.scope), of(quota.c.meter))
_MORE = quota.c.used + bindparam("amount")
_TAKE = update(quota).values(used=_MORE).where(*_HERE, or_(quota.c.bound.is_(None), quota.c.bound >= _MORE))
_GIVE = update(quota).values(used=quota.c.used - bindparam("amount")).where(*_HERE)
_LOOK = select(quota.c.used, quota.c.bound).where(*_HERE)
_INSERT = insert(quota)
_BOUND = update(quota).values(bound=bindparam("bound")).where(*_HERE)
_FORGET = delete(quota).where(of(quota.c.scope))
_UNBOUND = update(quota).values(bound=null()).where(of(quota.c.scope), quota.c.bound.is_not(None))
USE = select(quota.c.scope, quota.c.meter, quota.c.used, quota.c.bound).where(of(quota.c.scope)).order_by(quota.c.meter)

_WHO = {"tenant": "an administrator of the platform", "project": "an administrator of the tenant"}


def scopes(project: str, tenant: str) -> Iterator[str]:
    """Whose quota a thing in the project counts on."""
    if project:
        yield f"project/{project}"
    if tenant:
        yield f"tenant/{tenant}"


def take(tx: Tx, project: str, *, tenant: str, amounts: Mapping[str, int]) -> None:
    """Use more of each meter, in every scope. Raises QuotaExceeded."""
    for scope in scopes(project, tenant):
        for meter, amount in amounts.items():
            if amount and not tx.run(_TAKE, of_scope=scope, of_meter=meter, amount=amount):
                _first_use(tx, scope, meter=meter, amount=amount)


def give(tx: Tx, project: str, *, tenant: str, amounts: Mapping[str, int]) -> None:
    """Use less of each meter."""
    for scope in scopes(project, tenant):
        for meter, amount in amounts.items():
            if amount:
                tx.run(_GIVE, of_scope=scope, of_meter=meter, amount=amount)


def count(tx: Tx, project: str, *, meter: str, by: int) -> None:
    """One object of a counted kind more, or less. Raises QuotaExceeded."""
    move = take if by > 0 else give
    move(tx, project, tenant=tenant_of(project), amounts={meter: abs(by)})


def _first_use(tx: Tx, scope: str, *, meter: str, amount: int) -> None:
    row = tx.one(_LOOK, of_scope=scope, of_meter=meter)
    if row is None:
        tx.run(_INSERT, scope=scope, meter=meter, used=amount, bound=None)
        return
    used, bound = row
    raise QuotaExceeded(
        f"{scope}: {amount} of {meter} asked, {max(bound - used, 0)} of {bound} left; "
        f"{_WHO[scope.partition('/')[0]]} may raise the quota"
    )


def bounds(wanted: Quota) -> dict[str, int]:
    """Meter → bound."""
    found = {f"devices/{model}": bound for model, bound in wanted.devices.items()}
    for meter in ("milli_cores", "memory_bytes", "instances", "endpoints", "claims"):
        value = getattr(wanted, meter)
        if value is not None:
            found[meter] = value
    return found


def set_bounds(tx: Tx, scope: str, *, wanted: Quota) -> None:
    """Let the bounds of the scope be these, and no others."""
    kind, _, name = scope.partition("/")
    if kind not in _WHO or not name:
        raise Invalid(f"{scope!r} is no scope: write tenant/NAME or project/NAME")
    current = {meter: bound for _, meter, _, bound in tx.all(USE, of_scope=scope)}
    target = bounds(wanted)
    if {meter: bound for meter, bound in current.items() if bound is not None} == target:
        return
    tx.run(_UNBOUND, of_scope=scope)
    for meter, bound in target.items():
        if meter in current:
            tx.run(_BOUND, of_scope=scope, of_meter=meter, bound=bound)
        else:
            tx.run(_INSERT, scope=scope, meter=meter, used=0, bound=bound)


def forget(tx: Tx, scope: str) -> None:
    """Its owner is gone, with all that used it: whoever gets the name begins anew."""
    tx.run(_FORGET, of_scope=scope)


def read_use(row: tuple[str, str, int, int | None]) -> Use:
    """From the columns of `USE`."""
    return Use(scope=row[0], meter=row[1], used=row[2], limit=row[3])
