"""Text for terminals: aligned columns, ages, YAML and JSON, colour only where somebody looks."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bessemer.core.units import show_duration

if TYPE_CHECKING:
    from bessemer.core.resource import Kind

_COLOURS = {
    "Ready": "32",
    "Running": "32",
    "True": "32",
    "Pending": "34",
    "Preparing": "34",
    "Starting": "34",
    "Booting": "34",
    "Importing": "34",
    "Stuck": "33",
    "Degraded": "33",
    "Unknown": "33",
    "Unreachable": "33",
    "Failed": "31",
    "Lost": "31",
}
GAP, _GAP_CLOSE = "   ", "  "
_FOLD_MIN = 16
"""A column narrower than this would be harder to read folded than broken by the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How rows are shown: all columns, the project, ages counted from ``now``."""

    wide: bool
    namespace: bool
    now: float


def width() -> int:
    """Columns of the terminal that looks on; 0 where none does, and a line may be as long as it is."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def columns(head: Sequence[str], rows: Iterable[Sequence[str]], *, within: int = 0, spare: Sequence[str] = ()) -> str:
    """Aligned text as kubectl prints it.

    Where it is wider than ``within`` columns, it closes up; then those named in ``spare`` go, in their order, until it
    fits; then what is too long in the last one goes on below itself. Nothing is cut, no word or number is broken.
    """
    table = [list(head), *[list(row) for row in rows]]
    gap, names = GAP, list(spare)
    while within and sum(widths(table)) + len(gap) * (len(table[0]) - 1) > within:
        if gap == GAP:
            gap = _GAP_CLOSE
        elif names:
            at = table[0].index(names.pop(0))
            table = [[*row[:at], *row[at + 1 :]] for row in table]
        else:
            break
    wide = widths(table)
    return "\n".join(line(row, wide, within=within, gap=gap) for row in table)


def widths(table: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column."""
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def line(row: Sequence[str], wide: Sequence[int], *, within: int = 0, gap: str = GAP) -> str:
    """One row under a head of these widths."""
    start = sum(wide[:-1]) + len(gap) * (len(wide) - 1)
    room = within - start
    folded = [row[-1]]
    if within and room >= _FOLD_MIN and len(row[-1]) > room:
        folded = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False)
    cells = [coloured(cell) + " " * (width - len(cell)) for cell, width in zip(row[:-1], wide, strict=False)]
    first = gap.join([*cells, coloured(folded[0])]).rstrip()
    return "\n".join([first, *(" " * start + more for more in folded[1:])])


def coloured(word: str) -> str:
    """A status word in its colour, on a terminal."""
    code = _COLOURS.get(word)
    return f"\x1b[{code}m{word}\x1b[0m" if code and sys.stdout.isatty() else word


def head(kind: Kind[Any, Any], view: View) -> list[str]:
    """The head of a kind's table."""
    shown = [c.name.upper() for c in kind.columns if view.wide or not c.wide]
    return [*(["PROJECT"] if view.namespace else []), "NAME", *shown, "AGE"]


def row(kind: Kind[Any, Any], body: Mapping[str, Any], *, view: View) -> list[str]:
    """One object as cells."""
    metadata = body["metadata"]
    values = [_cell(c.value(body), c.type, now=view.now) for c in kind.columns if view.wide or not c.wide]
    place = [metadata.get("namespace", "")] if view.namespace else []
    return [*place, metadata["name"], *values, age(metadata.get("creationTimestamp"), view.now)]


def _cell(value: Any, kind: str, *, now: float) -> str:
    if value is None or value == "":
        return "-"
    if kind == "date":
        return age(str(value), now)
    return str(value).lower() if isinstance(value, bool) else str(value)


def age(stamp: str | None, now: float) -> str:
    """``3m12s`` since an RFC 3339 time."""
    from bessemer.core.clock import epoch

    return show_duration(now - epoch(stamp)) if stamp else "-"


def as_yaml(value: Any) -> str:
    """YAML in the order of the body."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120).rstrip()


def as_json(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def described(body: Mapping[str, Any], events: Sequence[Mapping[str, Any]], *, now: float, within: int = 0) -> str:
    """An object for a person: metadata, spec, status, conditions as a table, events."""
    metadata = body["metadata"]
    lines = [f"Name:      {metadata['name']}"]
    if metadata.get("namespace"):
        lines.append(f"Project:   {metadata['namespace']}")
    lines += [f"Kind:      {body['kind']}", f"UID:       {metadata.get('uid', '')}"]
    lines.append(f"Created:   {metadata.get('creationTimestamp', '')} ({age(metadata.get('creationTimestamp'), now)})")
    if metadata.get("labels"):
        lines.append("Labels:    " + ", ".join(f"{k}={v}" for k, v in metadata["labels"].items()))
    if metadata.get("deletionTimestamp"):
        lines.append(f"Deleting:  since {metadata['deletionTimestamp']}")
    status = {k: v for k, v in body.get("status", {}).items() if k != "conditions"}
    for title, part in (("Spec", body.get("spec", {})), ("Status", status)):
        lines += [f"{title}:", _indent(as_yaml(part))]
    conditions = body.get("status", {}).get("conditions", [])
    if conditions:
        rows = [
            [c["type"], c["status"], c["reason"], age(c["lastTransitionTime"], now), c["message"]] for c in conditions
        ]
        lines += [
            "Conditions:",
            _indent(columns(["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], rows, within=_inner(within))),
        ]
    lines += ["Events:", _indent(event_table(events, now, within=_inner(within))) if events else "  none"]
    return "\n".join(lines)


def event_table(events: Sequence[Mapping[str, Any]], now: float, *, objects: bool = False, within: int = 0) -> str:
    """Events, oldest first."""
    rows = []
    for event in events:
        about = event.get("involvedObject", {})
        place = [f"{about.get('kind', '').lower()}/{about.get('name', '')}"] if objects else []
        times = f" (x{event['count']})" if event.get("count", 1) > 1 else ""
        last = age(event.get("lastTimestamp"), now) + times
        rows.append([last, event.get("type", ""), event.get("reason", ""), *place, event.get("message", "")])
    return columns(["LAST SEEN", "TYPE", "REASON", *(["OBJECT"] if objects else []), "MESSAGE"], rows, within=within)


def _inner(within: int) -> int:
    return max(1, within - 2) if within else 0


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
