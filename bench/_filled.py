"""What `placement` found, as docs/performance-placement.md: policies beside each other, each workload, and the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from _common import Figure, table
from _page import markdown

BAR = 24
LEVELS = ("100", "130")
_HERE = re.compile(r"(\S+) as it is here, (.+) at (100|130) %")
_LEFT = re.compile(r"\S+, (.+) at 130 %: devices unallocated")
_OURS = re.compile(r"(\S+), (.+) at (100|130) %")

Levels = Mapping[tuple[str, str], Figure]
"""By what it is of, a policy or a workload, and by how much arrived."""


def page(figures: Sequence[Figure], *, about: str, how: str) -> str:
    """The whole of it."""
    left = {found[1]: row.value for row in figures if (found := _LEFT.fullmatch(row.metric))}
    peers, ours, rest = _sorted([row for row in figures if not _LEFT.fullmatch(row.metric)])
    parts = ["# How full a fleet gets", "", "Written by `python bench/_report.py placement --data DIR`.", ""]
    parts += [about.strip(), "", f"*{how}.*"]
    for name, rows in _by_policy(peers, ours):
        values = [float(row[3]) for row in rows[1:]]
        low = math.floor(min(values) - 0.1)
        parts += ["", f"## The rules, {name}", "", markdown(_beside(rows, values, low=low)), ""]
        parts += [
            f"Bars are of what was allocated at 130 %, from {low} %. ✗: not within half a point of what was published."
        ]
    rows = list(_by_workload(peers, ours, left=left))
    gains = [float(row[5]) for row in rows[1:]]
    parts += ["", "## The workloads, beside FGD", "", markdown(_beside(rows, gains, low=min(0.0, *gains))), ""]
    parts += ["Bars are of the points more than FGD at 130 %."]
    parts += ["", "## More", "", table(rest)]
    return "\n".join(parts) + "\n"


def _beside(rows: Sequence[Sequence[str]], values: Sequence[float], *, low: float) -> list[Sequence[str]]:
    """The rows, and a bar of each value from ``low`` on."""
    most = max(values)
    lengths = [round(BAR * (value - low) / (most - low)) if most > low else BAR for value in values]
    return [(*rows[0], ""), *((*row, "█" * length) for row, length in zip(rows[1:], lengths, strict=True))]


Sorted = tuple[Mapping[str, Levels], Mapping[str, Mapping[tuple[str, str], Figure]], Sequence[Figure]]


def _sorted(figures: Sequence[Figure]) -> Sorted:
    """Peers as they are here, by workload; ours beside each peer, by workload; and what is neither."""
    peers: dict[str, dict[tuple[str, str], Figure]] = {}
    ours: dict[str, dict[tuple[str, str], Figure]] = {}
    rest = []
    for row in figures:
        if found := _HERE.fullmatch(row.metric):
            peers.setdefault(found[2], {})[found[1], found[3]] = row
        elif (found := _OURS.fullmatch(row.metric)) and row.peer:
            ours.setdefault(found[2], {})[row.peer, found[3]] = row
        else:
            rest.append(row)
    for workload in [name for name, of in ours.items() if not all(("FGD", at) in of for at in LEVELS)]:
        rest += ours.pop(workload).values()
    return peers, ours, rest


def _by_policy(peers: Mapping[str, Levels], ours: Mapping[str, Levels]) -> Iterator[tuple[str, list[Sequence[str]]]]:
    """Of the workloads on which several were run: what each came to, and what was published of it."""
    for workload, found in ours.items():
        names = list(dict.fromkeys(policy for policy, _ in found))
        if len(names) < 2:
            continue
        said = {key: _said(row) for key, row in peers.get(workload, {}).items()}
        rows: list[Sequence[str]] = [("rule", "at 100 %", "published", "at 130 %", "published")]
        rows.append(("ours", *(word for at in LEVELS for word in (_value(found[names[0], at].value), ""))))
        for name in names:
            levels = ((found[name, at].peer_value, said.get((name, at))) for at in LEVELS)
            rows.append((name, *(_value(value) for both in levels for value in both)))
        yield workload, rows


def _by_workload(
    peers: Mapping[str, Levels], ours: Mapping[str, Levels], *, left: Mapping[str, float]
) -> Iterator[Sequence[str]]:
    yield "workload", "ours, 100 %", "FGD", "ours, 130 %", "FGD", "more", "goal", "FGD published", "GPUs left, 130 %"
    for workload, found in ours.items():
        first, last = (found["FGD", at] for at in LEVELS)
        more = last.value - float(last.peer_value or 0)
        goal = f"{last.goal} {'✓' if last.met else '✗'}" if last.goal else ""
        said = peers.get(workload, {}).get(("FGD", "130"))
        yield (
            workload,
            f"{first.value:.2f}{' ✗' if first.met is False else ''}",
            _value(first.peer_value),
            f"{last.value:.2f}",
            _value(last.peer_value),
            f"{more:+.2f}",
            goal,
            _said(said) if said is not None else "",
            f"{left[workload]:.1f}" if workload in left else "",
        )


def _said(row: Figure) -> str:
    """What was published, and a mark where the rule as it is here does not come near."""
    return f"{_value(row.peer_value)}{' ✗' if row.met is False else ''}"


def _value(value: float | str | None) -> str:
    return f"{value:.2f}" if isinstance(value, float | int) else value or ""
