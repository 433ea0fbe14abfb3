"""Quota: what a tenant and its projects use of what they may, a bar each; and who may raise it.

The page of a project shows its own meters and its tenant's, since both must have room; that of everything, the tenants
that one sees. No watch tells of counters, so an open page asks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.core.quota import said, show_amount
from bessemer.core.resource import tenant_of
from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import TenantFact
from bessemer.portal.live import Page, Part
from bessemer.portal.pages.shell import EVERYTHING, Here, colours, page, within
from bessemer.portal.parts import Cell, Row, Text

Meters = Sequence[Mapping[str, Any]]
NEARLY = 80.0
"""Percent of a bound from which a bar warns."""

_RAISE = "An administrator of the tenant raises a project's, one of the platform a tenant's."


@dataclass(slots=True)
class Held:
    """What an open page was last told."""

    meters: Meters


def build(desk: Desk, scope: str, *, held: Held) -> Page:
    """The meters that are bounded or used. Raises NotFound once the project is gone."""
    within(desk, scope)
    place = "" if scope == EVERYTHING else scope
    tenants = [tenant.name for tenant in desk.all(TenantFact)]
    asked = (
        code.path("projects", place) + "/use"
        if place
        else code.path("tenants", tenants[0] if tenants else "NAME") + "/use"
    )
    here = Here(
        section="quota",
        title="Quota",
        scope=scope,
        crumbs=((words.place(place) if place else "Everything", ""), ("Quota", "")),
        code=(("CLI", f"bessemer quota {place}".rstrip()), ("kubectl", "kubectl edit tenant NAME")),
        request=asked,
    )
    colour = colours(desk)
    told = [meter for meter in held.meters if meter["used"] or meter["limit"] is not None]
    shown = sorted(told, key=_share, reverse=True)  # what is nearest to its bound first
    rows: list[Part] = [_row(meter, colour=colour) for meter in shown]
    full = [meter for meter in shown if meter["limit"] is not None and _taken(meter) >= meter["limit"]]
    lead = f"{words.some(len(full), 'meter')} full: nothing new by it. {_RAISE}" if full else _RAISE
    if not rows:
        rows.append(Row("row-none", (Cell("Nothing is used, and nothing is bounded.", "empty"),)))
    heads = (("Meter", ""), ("Used", "num"), ("", ""), ("Left", "num lo"))
    lists: dict[str, Sequence[Part]] = {"quota-lead": [Text("quota-lead-text", lead)], "rows": rows}
    return page(desk, here, template="quota.html", lists=lists, heads=heads)


def _row(meter: Mapping[str, Any], *, colour: Mapping[str, int]) -> Row:
    kind, _, name = meter["scope"].partition("/")
    tenant = tenant_of(name) if kind == "project" else name
    used, limit = _taken(meter), meter["limit"]
    title = Cell(_title(meter), "name", note=f"{kind} {words.place(name)}", colour=colour.get(tenant, 0))
    figure = _shown(meter, meter["used"]) + (f" + {_shown(meter, meter['held'])} held" if meter.get("held") else "")
    if limit is None:
        return Row(_id(meter), (title, Cell(figure, "num"), Cell("no limit"), Cell("–", "num", low=True)))
    bound, share = _shown(meter, limit), _share(meter)
    label = f"{_title(meter)}: {said(meter['meter'], used)} of {bound}"
    tone = "failed" if used > limit else "stuck" if share >= NEARLY else "ok"
    left = _shown(meter, limit - used) if used < limit else "none" if used == limit else "over"
    return Row(
        _id(meter),
        (
            title,
            Cell(f"{figure} of {bound}", "num"),
            Cell(label, "bar", tone=tone, share=round(share, 1)),
            Cell(left, "num", low=True),
        ),
    )


def _share(meter: Mapping[str, Any]) -> float:
    """Percent of the bound; of none, less than nothing."""
    if meter["limit"] is None:
        return -1.0
    return min(100.0, 100.0 * _taken(meter) / meter["limit"]) if meter["limit"] else 100.0


def _taken(meter: Mapping[str, Any]) -> int:
    """What is used, with what gateways hold beside it."""
    return int(meter["used"]) + int(meter.get("held", 0))


def _shown(meter: Mapping[str, Any], value: int) -> str:
    return f"{meter.get('currency', '')} {show_amount(meter['meter'], value)}".strip()


def _title(meter: Mapping[str, Any]) -> str:
    text = str(meter["title"])
    return text[:1].upper() + text[1:]


def _id(meter: Mapping[str, Any]) -> str:
    word = f"{meter['scope']}-{meter['meter']}".replace("*", "all")
    return "row-" + "".join(one if one.isascii() and one.isalnum() else "-" for one in word)
