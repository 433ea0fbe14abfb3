"""Any kind as a table: the same columns that kubectl and the CLI show, from the kind itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from bessemer.core.resource import Column, Kind
from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.live import Page
from bessemer.portal.pages.shell import EVERYTHING, Here, page
from bessemer.portal.parts import Cell, Row
from bessemer.portal.reading import seconds

Body = Mapping[str, Any]

PHONE_COLUMNS = 2
ROWS_SHOWN = 500
EMPTY: Mapping[str, str] = {
    "apikeys": "No key yet. A key lets an application speak to the project's endpoints; it is shown once.",
    "models": "No model yet. A model is weights with a digest, brought in once and served by endpoints.",
    "images": "No image yet. An image is what an instance boots.",
    "projects": "No project yet. A project is where a tenant's things live.",
    "tenants": "No tenant yet.",
}


def rows(kind: Kind[Any, Any], bodies: Sequence[Body], *, scope: str) -> Sequence[Row]:
    """A row for each object."""
    columns, spread = shown(kind), kind.namespaced and scope == EVERYTHING
    return tuple(row(body, columns, spread=spread) for body in bodies)


def build(
    desk: Desk, kind: Kind[Any, Any], *, section: str, scope: str, rows: Sequence[Row], total: int | None
) -> Page:
    """The objects of a kind as they were when the page was made, the first ``rows`` of ``total`` (None: of some number
    that the api does not say); it is reloaded by hand."""
    project = "" if scope == EVERYTHING else scope
    place = project if kind.namespaced else ""
    lead = words.some(len(rows), kind.singular) if rows else ""
    if total != len(rows):
        of_all = f" of {total:,}" if total else ""
        lead = f"The first {lead}{of_all}; all of them: bessemer get {kind.plural}" + (f" -n {place}" if place else "")
    none = Row("row-none", (Cell(EMPTY.get(kind.plural, f"No {kind.singular} yet."), "empty"),))
    title = {"keys": "Keys", "priceplans": "Prices"}.get(section, kind.plural.capitalize())
    here = Here(
        section=section,
        title=title,
        scope=scope,
        crumbs=((words.place(project) if project else "Everything", ""), (title, "")),
        code=code.list_code(kind.plural, place, namespaced=kind.namespaced),
        request=code.path(kind.plural, project=place),
    )
    heads = [("Name", "")] + [(column.name, style(column, low=low)) for column, low in narrowed(shown(kind))]
    return page(desk, here, template="list.html", lists={"rows": rows or (none,)}, heads=heads, lead=lead)


def shown(kind: Kind[Any, Any]) -> Sequence[Column]:
    """The columns of a kind's table."""
    return [column for column in kind.columns if not column.wide or column.name in {"Display", "Description"}]


def narrowed(columns: Sequence[Column]) -> list[tuple[Column, bool]]:
    """Each column, and whether a phone leaves it out: two stay beside the name."""
    return [(column, number >= PHONE_COLUMNS) for number, column in enumerate(columns)]


def style(column: Column, *, low: bool) -> str:
    """The classes of a column's head."""
    return " ".join(["num"] * (column.type in {"integer", "number", "date"}) + ["lo"] * low)


def row(body: Body, columns: Sequence[Column], *, spread: bool) -> Row:
    """One object."""
    meta = body.get("metadata") or {}
    name = str(meta.get("name", ""))
    if spread:
        name = f"{words.place(meta.get('namespace', ''))} / {name}"
    cells = [Cell(name, "name", href=href(body))]
    cells += [replace(cell(column, column.value(body)), low=low) for column, low in narrowed(columns)]
    return Row(f"row-{meta.get('uid') or name}", tuple(cells))


def href(body: Body) -> str:
    """The page of one whose kind has one: a model's, which shows its vettings, too; "" where there is none."""
    kind, meta = body.get("kind"), body.get("metadata") or {}
    name, project = quote(str(meta.get("name", "")), safe=""), meta.get("namespace", "")
    if kind == "Model":
        return f"/models/{name}"
    if kind == "ProjectModel":
        return f"/in/{project}/models/{name}"
    if kind == "Vetting":
        return f"/in/{project}/models/{quote(body['spec']['model'], safe='')}?vetting={project}/{name}"
    return ""


def cell(column: Column, value: Any) -> Cell:
    """A value as its column says."""
    if column.type == "date":
        return Cell("", "since", since=seconds(value) if isinstance(value, str) else None)
    if column.name == "Phase" and isinstance(value, str):
        return Cell(value, "state", tone=words.tone(value))
    if column.type == "boolean":
        return Cell("yes" if value else "no")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(f"{value:,}", "num")
    return Cell(str(value) if value not in (None, "") else "–")
