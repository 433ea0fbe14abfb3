"""Use over time, for a plot: what was held on average, and how many tokens went through, in each step.

These are figures to look at, in floating point; nothing is billed by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bessemer.core.resource import ApiModel
from bessemer.core.values import LedgerEntry
from bessemer.metering.rows import Claims, Corrections, Segment, in_order


class UsagePoint(ApiModel):
    """One step that begins at ``at`` (epoch seconds). Cores, bytes and devices are averages of what claims held."""

    at: int
    cores: float = 0.0
    memory_bytes: float = 0.0
    devices: float = 0.0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


def usage(
    entries: Iterable[LedgerEntry], *, start: int, end: int, step_seconds: int, workload_uid: str = ""
) -> Sequence[UsagePoint]:
    """One point for each step of ``[start, end)``; with ``workload_uid`` of that workload alone.

    Raises ValueError for a step below a second or more than 10,000 steps.
    """
    if step_seconds < 1 or (end - start) / step_seconds > 10_000:
        raise ValueError("a step is at least a second, and there are at most 10,000")
    sums = [dict.fromkeys(_FIELDS, 0) for _ in range(start, end, step_seconds)]
    corrections, claims = Corrections(), Claims(start, end)
    for entry in in_order(entries):
        if entry.kind == "correction":
            corrections.note(entry)
            continue
        row = corrections.applied(entry)
        if workload_uid and row.workload_uid != workload_uid:
            continue
        if row.kind != "tokens":
            segment = claims.take(row)
            if segment is not None:
                _spread(sums, segment, start=start, step=step_seconds)
        elif start <= row.at < end:
            here = sums[(row.at - start) // step_seconds]
            here["requests"] += row.requests
            here["input_tokens"] += row.input_tokens
            here["output_tokens"] += row.output_tokens
    for segment in claims.rest():
        _spread(sums, segment, start=start, step=step_seconds)
    return [
        _point(start + i * step_seconds, s, seconds=min(step_seconds, end - start - i * step_seconds))
        for i, s in enumerate(sums)
    ]


_FIELDS = ("milli_cores", "memory_bytes", "devices", "requests", "input_tokens", "output_tokens")


def _spread(sums: Sequence[dict[str, int]], segment: Segment, *, start: int, step: int) -> None:
    """Add a segment's quantity times seconds to each step that it touches."""
    first, last = (segment.start - start) // step, (segment.end - 1 - start) // step
    for index in range(first, last + 1):
        begin = start + index * step
        seconds = min(segment.end, begin + step) - max(segment.start, begin)
        for name in ("milli_cores", "memory_bytes", "devices"):
            sums[index][name] += getattr(segment.claim, name) * seconds


def _point(at: int, total: dict[str, int], *, seconds: int) -> UsagePoint:
    return UsagePoint(
        at=at,
        cores=total["milli_cores"] / 1000 / seconds,
        memory_bytes=total["memory_bytes"] / seconds,
        devices=total["devices"] / seconds,
        requests=total["requests"],
        input_tokens=total["input_tokens"],
        output_tokens=total["output_tokens"],
    )
