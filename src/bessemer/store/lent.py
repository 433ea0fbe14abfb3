"""A quota's tokens and money as gateways hold them: beside their other bounds, by the same statement.

They stand where they always stood (`quota`, `money`): whoever speaks of them by the older call (`Capacity.hold`), this
gateway's predecessor or one of an older release, finds what was given here, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bessemer.core.bounds import OF_QUOTA, Bound, Want
from bessemer.core.errors import Invalid
from bessemer.store import money, quota
from bessemer.store.scopes import raise_it
from bessemer.store.transaction import Tx

_MINUTE = OF_QUOTA["tokens_per_minute"]
_MONEY = OF_QUOTA[money.METER]


def hold(tx: Tx, project: str, *, holder: str, wants: Sequence[Want]) -> None:
    """Give what is wanted of them. Who begins anew names money, too: what an older release's gateway, which does not,
    holds of it by the older call stands. Raises QuotaExceeded."""
    for want in wants:
        if want.scope != f"project/{project}" or want.amount < 0:
            raise Invalid(f"{want.scope[:63]!r} {want.meter!r}: no bound of {project}, or less than nothing")
        if want.meter == money.METER:
            money.state(tx, project, holder=holder, micro=want.amount)
        elif want.amount:
            quota.give_out(tx, project, meter=quota.window_meter(want.meter), amount=want.amount)


def standing(tx: Tx, project: str) -> Iterator[Bound]:
    """Those that there are."""
    given = quota.given(tx, project, meter=quota.window_meter(_MINUTE.name))
    least = min(given, key=lambda one: one[1] - one[2], default=None)
    if least is not None:
        yield _bound(tx, project, meter=_MINUTE.name, said=(*least, 0, raise_it(least[0])))
    if (found := money.standing(tx, project)) is not None:
        yield _bound(tx, project, meter=_MONEY.name, said=found)


def _bound(tx: Tx, project: str, *, meter: str, said: tuple[str, int, int, int, str]) -> Bound:
    whose, bound, used, held, hint = said
    until = OF_QUOTA[meter].end(tx.server_time)
    place = f"project/{project}"
    return Bound(scope=place, meter=meter, bound=bound, used=used, held=held, until=until, whose=whose, hint=hint)
