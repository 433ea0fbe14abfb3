"""What a migration is made of, so that a database grows while older replicas write to it: see `expanding`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Statements of one database, in order.

    ``expand`` adds, and harms no writer of the schema before; each commits by itself, and may be done twice.
    ``migrate`` fills in some hundred rows at a time: each is repeated until it meets none, and so once more in the
    transaction of ``contract``, which is what an older writer could not bear.

    Where such a writer may change what a row was filled in from, ``guard`` makes the trigger that takes it back, after
    ``expand`` and again at each start until the contraction: it makes it only where it is missing, and then takes back
    all that was filled in without it. Its function is called ``forget_…``, does nothing once the schema before is no
    longer carried, and is dropped, with its trigger, when nobody is in the way (`tables.Tables.unguard`).
    """

    expand: tuple[str, ...] = ()
    guard: tuple[str, ...] = ()
    migrate: tuple[str, ...] = ()
    contract: tuple[str, ...] = ()
