"""What a replay came to, in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.kinds.inference.replay.run import Case, Course

_KEPT_EVENTS = 200


@dataclass(frozen=True, slots=True)
class Replayed:
    """Of one policy."""

    policy: str
    course: Course
    case: Case


def figures(one: Replayed) -> Mapping[str, Any]:
    """``attained_percent`` of the requests had their first token, and the mean of the next, by the target; one that was
    never answered had neither. ``device_hours`` are of all replicas, while they start, too."""
    course, case, target = one.course, one.case, one.case.scale.target
    firsts = sorted(request.first_seconds if request.first >= 0 else float("inf") for request in course.requests)
    paces = sorted(r.pace if r.done >= 0 else float("inf") for r in course.requests if r.asked.writes > 1)
    first_most = target.ttft_ms / 1000.0 if target.ttft_ms else float("inf")
    pace_most = target.inter_token_ms / 1000.0 if target.inter_token_ms else float("inf")
    good_first = sum(r.first >= 0 and r.first_seconds <= first_most for r in course.requests)
    good_pace = sum(r.done >= 0 and r.pace <= pace_most for r in course.requests)
    both = sum(r.done >= 0 and r.first_seconds <= first_most and r.pace <= pace_most for r in course.requests)
    count = max(1, len(course.requests))
    hours = course.replica_seconds * case.speed.devices / 3600.0
    return {
        "policy": one.policy,
        "requests": len(course.requests),
        "attained_percent": round(100 * both / count, 2),
        "attained_ttft_percent": round(100 * good_first / count, 2),
        "attained_inter_token_percent": round(100 * good_pace / count, 2),
        "device_hours": round(hours, 3),
        "attained_per_device_hour": round(both / hours, 1) if hours else None,
        "ttft_ms": _percentiles(firsts),
        "inter_token_ms": _percentiles(paces),
        "scaled": len(course.events),
        "replicas_most": max(course.wanted, default=0),
        "unanswered": sum(r.done < 0 for r in course.requests),
        "events": [
            {"at": round(at, 1), "from": old, "to": new, "why": why}
            for at, old, new, why in course.events[:_KEPT_EVENTS]
        ],
        "series": {
            "seconds": [round(at, 1) for at in course.times],
            "wanted": course.wanted,
            "ready": course.ready,
            "arriving": [round(rate, 2) for rate in course.arriving],
        },
    }


def _percentiles(values: Sequence[float]) -> Mapping[str, float | None]:
    return {f"p{share}": _percentile(values, share / 100) for share in (50, 95, 99)}


def _percentile(values: Sequence[float], share: float) -> float | None:
    """In milliseconds; None where there is none, or not an end of it."""
    if not values:
        return None
    found = values[min(len(values) - 1, int(share * len(values)))]
    return round(1000 * found, 1) if found < float("inf") else None
