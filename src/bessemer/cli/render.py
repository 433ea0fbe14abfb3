"""Text for terminals: aligned columns, ages, YAML and JSON, colour only where somebody looks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bessemer.core.clock import epoch
from bessemer.core.resource import Kind
from bessemer.core.units import show_duration

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
GAP = "   "


def columns(head: Sequence[str], rows: Iterable[Sequence[str]], *, widths: Sequence[int] | None = None) -> str:
    """Aligned text as kubectl prints it. ``widths`` are at least those of an earlier call (for a watch)."""
    table = [list(head), *[list(row) for row in rows]]
    wide = [max(len(row[i]) for row in table) for i in range(len(head))]
    if widths is not None:
        wide = [max(a, b) for a, b in zip(wide, widths, strict=True)]
    return "\n".join(_line(row, wide) for row in table)


def _line(row: Sequence[str], wide: Sequence[int]) -> str:
    cells = [coloured(cell) + " " * (width - len(cell)) for cell, width in zip(row, wide, strict=True)]
    return GAP.join(cells).rstrip()


def coloured(word: str) -> str:
    """A status word in its colour, on a terminal."""
    code = _COLOURS.get(word)
    return f"\x1b[{code}m{word}\x1b[0m" if code and sys.stdout.isatty() else word


def head(kind: Kind[Any, Any], *, wide: bool, namespace: bool, named: bool = False) -> list[str]:
    """The head of a kind's table."""
    shown = [c.name.upper() for c in kind.columns if wide or not c.wide]
    return [*(["PROJECT"] if namespace else []), "NAME", *shown, "AGE"]


def row(kind: Kind[Any, Any], body: Mapping[str, Any], *, wide: bool, namespace: bool, now: float) -> list[str]:
    """One object as cells."""
    metadata = body["metadata"]
    values = [_cell(c.value(body), c.type, now) for c in kind.columns if wide or not c.wide]
    place = [metadata.get("namespace", "")] if namespace else []
    return [*place, metadata["name"], *values, age(metadata.get("creationTimestamp"), now)]


def _cell(value: Any, kind: str, now: float) -> str:
    if value is None or value == "":
        return "-"
    if kind == "date":
        return age(str(value), now)
    return str(value).lower() if isinstance(value, bool) else str(value)


def age(stamp: str | None, now: float) -> str:
    """``3m12s`` since an RFC 3339 time."""
    return show_duration(now - epoch(stamp)) if stamp else "-"


def as_yaml(value: Any) -> str:
    """YAML in the order of the body."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120).rstrip()


def as_json(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def described(body: Mapping[str, Any], events: Sequence[Mapping[str, Any]], now: float) -> str:
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
        rows = [[c["type"], c["status"], c["reason"], age(c["lastTransitionTime"], now), c["message"]] for c in conditions]
        lines += ["Conditions:", _indent(columns(["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], rows))]
    lines += ["Events:", _indent(event_table(events, now)) if events else "  none"]
    return "\n".join(lines)


def event_table(events: Sequence[Mapping[str, Any]], now: float, *, objects: bool = False) -> str:
    """Events, oldest first."""
    rows = []
    for event in events:
        about = event.get("involvedObject", {})
        place = [f"{about.get('kind', '').lower()}/{about.get('name', '')}"] if objects else []
        times = f" (x{event['count']})" if event.get("count", 1) > 1 else ""
        last = age(event.get("lastTimestamp"), now) + times
        rows.append([last, event.get("type", ""), event.get("reason", ""), *place, event.get("message", "")])
    return columns(["LAST SEEN", "TYPE", "REASON", *(["OBJECT"] if objects else []), "MESSAGE"], rows)


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
