"""What a migration is made of, so that a database grows while older replicas write to it: see `expanding`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Statements of one database, in order.

    ``expand`` adds, and harms no writer of the schema before; each commits by itself, and may be done twice.
    ``migrate`` fills in some hundred rows at a time: each is repeated until it meets none. ``contract`` is what an
    older writer could not bear.
    """

    expand: tuple[str, ...] = ()
    migrate: tuple[str, ...] = ()
    contract: tuple[str, ...] = ()
