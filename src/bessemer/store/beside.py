"""Who else writes to the database, and what each of them knows.

A process on a server leaves its number at each commit in a row of its own, ``writer/NAME`` of ``leases`` (`postgres`).
The row's note says what the process is: ``SCHEMA RELEASE /METER/METER/``; releases before schema 0005 say nothing. A
process that lives commits once a minute at least (`Store.tend`), so a row that was written within `SERVES_SECONDS` is
of one that serves. A file has no such rows: nobody is beside the process that has it.
"""

from __future__ import annotations

from sqlalchemy import bindparam, select

from bessemer import __version__
from bessemer.core import quota
from bessemer.core.errors import Unavailable
from bessemer.store import schema_versions
from bessemer.store.schema import counters, leases, of
from bessemer.store.transaction import Tx

SERVES_SECONDS = 180.0
SAYS = 5
"""The first schema whose writers say what they are."""

_NOTES = select(leases.c.note).where(
    leases.c.name.like("writer/%"), leases.c.expires_at - leases.c.ttl > bindparam("since")
)
_COUNTER = select(counters.c.value).where(of(counters.c.name))


class Outdated(Unavailable):
    """A newer release has taken the database beyond what this process may write."""


def said() -> str:
    """What this process says of itself."""
    meters = "/".join(meter.name for meter in quota.METERS)
    return f"{schema_versions.HEAD} {__version__} /{meters}/"


def too_old(version: str) -> str:
    """Why a process of this release may not write, as a sentence."""
    return (
        f"the database of the store was taken on by a newer release (schema {version}) and no longer carries this one "
        f"({__version__}, schema {schema_versions.HEAD}): start a release that is as new"
    )


def unaware(tx: Tx, meter: str) -> bool:
    """Whether somebody writes, or may come back and write, who does not count the meter."""
    carried = tx.one(_COUNTER, of_name="carries")
    if carried is None or carried[0] < SAYS:
        return True
    notes = tx.all(_NOTES, since=tx.server_time - SERVES_SECONDS)
    return any(f"/{meter}/" not in note for (note,) in notes)


def carried_alone(tx: Tx, schema: int) -> bool:
    """Whether no writer of an older schema is admitted any more. Asked once in a group."""
    rows = tx.look(_COUNTER, of_name="carries")
    return not rows or bool(rows[0][0] >= schema)
