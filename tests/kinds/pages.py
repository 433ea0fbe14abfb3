"""The pages of the kinds, and the table that is made from `KINDS`: ``python -m tests.kinds.pages`` writes it.

Run it from the root of the checkout with ``src`` on the path. A test fails where the page holds something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from bessemer.core.resource import ALL, READ, Kind
from bessemer.core.units import show_duration
from bessemer.kinds import KINDS

FOLDER = Path(__file__).parents[2] / "docs" / "kinds"
BEGIN, END = "<!-- kinds -->\n", "<!-- /kinds -->"
_YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def area(kind: Kind[Any, Any]) -> str:
    """The area that a kind is of, which has a page; "" for one that belongs to none."""
    parts = kind.resource.__module__.split(".")
    return parts[2] if len(parts) > 3 else ""


def table() -> Iterator[str]:
    """A line per kind, in the order of `KINDS`."""
    yield "| kind | plural | short | scope | who may what | Stuck after |"
    yield "|---|---|---|---|---|---|"
    for kind in KINDS:
        page = f"[{kind.name}]({area(kind)}.md)" if area(kind) else kind.name
        scope = "project" if kind.namespaced else "platform"
        cells = (page, kind.plural, " ".join(kind.short_names), scope, rights(kind), deadlines(kind))
        yield f"| {' | '.join(cells)} |"


def rights(kind: Kind[Any, Any]) -> str:
    """``admin all; reader read``: the roles that may the same stand together."""
    roles: dict[str, list[str]] = {}
    for role, verbs in kind.rights.items():
        roles.setdefault(words(verbs), []).append(role)
    return "; ".join(f"{', '.join(names)}: {may}" for may, names in roles.items())


def deadlines(kind: Kind[Any, Any]) -> str:
    """``Pending 2m, Terminating 10m``: how long an object of it may wait in a phase."""
    return ", ".join(f"{phase} {show_duration(seconds)}" for phase, seconds in kind.deadlines.items())


def words(verbs: Sequence[str]) -> str:
    """The verbs, the usual sets by their names."""
    if set(verbs) == set(ALL):
        return "all"
    rest = [verb for verb in verbs if verb not in READ]
    return ", ".join([*(["read"] if set(READ) <= set(verbs) else [v for v in verbs if v in READ]), *rest])


def filled(text: str) -> str:
    """The page with its table as it should be. Raises ValueError where a mark is missing."""
    start = text.index(BEGIN) + len(BEGIN)
    return text[:start] + "\n".join(table()) + "\n" + text[text.index(END, start) :]


def page(name: str) -> str:
    """The text of an area's page."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def examples(name: str) -> list[dict[str, Any]]:
    """The objects that a page shows."""
    return [body for block in _YAML.findall(page(name)) for body in yaml.load_all(block, Loader=yaml.CSafeLoader)]


def specs() -> dict[str, dict[str, Any]]:
    """What a page shows first of each kind that people make, for whoever needs one of each."""
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({area(kind) for kind in KINDS} - {""}):
        for body in examples(name):
            found.setdefault(body["kind"], body.get("spec", {}))
    return found


def contents() -> dict[str, dict[str, Any]]:
    """The same, with all that stands in its body beside head and metadata: not every kind has a spec."""
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({area(kind) for kind in KINDS} - {""}):
        for body in examples(name):
            parts = {part: value for part, value in body.items() if part not in ("kind", "metadata")}
            found.setdefault(body["kind"], parts)
    return found


def rows(name: str) -> Iterator[list[str]]:
    """The cells of a page's table of phases, the kind first where the page has several."""
    for line in page(name).splitlines():
        if line.startswith("| ") and not line.startswith(("| kind", "| phase")):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def ticked(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


if __name__ == "__main__":
    index = FOLDER / "README.md"
    index.write_text(filled(index.read_text(encoding="utf-8")), encoding="utf-8")
