"""Consolidation: claims are moved so that what is free lies together (see `spec`): `plan` makes its plan, `carry`
carries it out, `control` is what stands before both, and `obstacles` says what is in the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from bessemer.core.resource import ALL, READ, Change, Column, Key, Kind, Outcome
from bessemer.kinds.context import Context, Looks
from bessemer.kinds.fields import at
from bessemer.kinds.fleet.consolidation.spec import Consolidation, ConsolidationSpec, ConsolidationStatus, validate

__all__ = ["KIND", "Consolidation", "ConsolidationSpec", "ConsolidationStatus"]


def _goal(body: Mapping[str, Any]) -> str:
    spec = body.get("spec", {})
    if spec.get("open"):
        return f"{spec['open'].get('count', 1)} × {spec['open'].get('flavor', '')}"
    empty = spec.get("empty") or {}
    return f"empty {', '.join(empty.get('hosts', ())) or empty.get('count', 0)}"


def _moved(body: Mapping[str, Any]) -> str:
    return f"{at('status', 'moved', default=0)(body)}/{at('status', 'moves', default=0)(body)}"


# The control side reads arrays: it is imported where one runs, so that agents, which know all kinds, are spared it.


async def _reconcile(ctx: Context, asked: Consolidation) -> Outcome:
    from bessemer.kinds.fleet.consolidation import control

    return await control.reconcile(ctx, asked)


async def _preview(ctx: Looks, asked: Consolidation) -> ConsolidationStatus:
    from bessemer.kinds.fleet.consolidation import control

    return await control.preview(ctx, asked)


async def _finalize(ctx: Context, asked: Consolidation) -> Outcome:
    from bessemer.kinds.fleet.consolidation import control

    return await control.finalize(ctx, asked)


async def _wake_by_claim(ctx: Context, change: Change) -> AsyncIterator[Key]:
    """A change of a claim concerns the consolidation that moves its workload."""
    for key in ctx.fleet.moving.concerned(change):
        yield key


KIND: Kind[Context, Consolidation] = Kind(
    resource=Consolidation,
    plural="consolidations",
    namespaced=False,
    short_names=("cons",),
    # Whose claims are moved is named: tenants and their operators may not know.
    rights={"admin": ALL, "auditor": READ},
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Goal", value=_goal),
        Column(name="Moved", value=_moved, description="Claims that have arrived, of all that are moved."),
        Column(name="Approved", value=at("spec", "approved", default=False), type="boolean"),
        Column(name="Hosts", value=lambda body: ", ".join(at("status", "hosts", default=())(body)), wide=True),
        Column(name="Message", value=at("status", "message"), wide=True),
    ),
    validate=validate,
    reconcile=_reconcile,
    finalize=_finalize,
    preview=_preview,
    wakes={"Claim": _wake_by_claim},
    deadlines={"Pending": 600.0, "Moving": 1200.0, "Terminating": 1200.0},
)
