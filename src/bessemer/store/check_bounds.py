"""Checks of bounds of whoever asks endpoints, against the objects that state them."""

from __future__ import annotations

from sqlalchemy import select

from bessemer.core.bounds import METERS
from bessemer.core.errors import Invalid
from bessemer.core.resource import Key
from bessemer.store.bounds import said
from bessemer.store.kinds import PROJECT
from bessemer.store.schema import bounds, levels, stated
from bessemer.store.snapshot import Snapshot
from bessemer.store.tally import Survey, Tally

_ROWS = select(bounds.c.scope, bounds.c.meter, bounds.c.bound)
_LEVELS = select(levels.c.project, levels.c.holder, levels.c.scope, levels.c.meter)
_STATED = select(stated.c.project, stated.c.holder)


def asked(snapshot: Snapshot, survey: Survey) -> Tally:
    """Bounds of keys, members, projects and tenants; what is held is of a bound, by who said so."""
    tally = Tally("limits", "a limit or a budget is what its object says, and who holds of one has said so")
    wanted: dict[tuple[str, str], int] = {}
    for key, document in (*survey.bounded.items(), *survey.keys.items()):
        try:
            wanted |= said(document)
        except Invalid:
            tally.fault(f"{key}: its limits or its budget cannot be read")
    known = set()
    for scope, meter, bound in snapshot.rows(_ROWS):
        known.add((scope, meter))
        wants = wanted.pop((scope, meter), None)
        tally.require(bound == wants, f"{scope} {meter}: bound {bound}, said {wants}")
        if meter not in METERS:
            tally.fault(f"{scope} {meter}: no meter")
    for (scope, meter), wants in wanted.items():
        tally.fault(f"{scope} {meter}: no bound holds, said {wants}")
    spoke = {(project, holder) for project, holder in snapshot.rows(_STATED)}
    for project, _ in spoke:
        tally.require(Key(PROJECT, "", project) in survey.bounded, f"{project}: is gone, and somebody spoke of it")
    for project, holder, scope, meter in snapshot.rows(_LEVELS):
        there = (project, holder) in spoke and (scope, meter) in known
        tally.require(there, f"{project} {scope} {meter}: held by {holder}, who has not said so, or of no bound")
    return tally
