"""On what terms a Claim stands, out of its body: whose it is, and when it will have ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.core.clock import epoch
from bessemer.core.notices import MARK, Notice
from bessemer.placement.facts import Tenure

CLEARED_SECONDS = 30
"""After a Claim's end is asked for, as it is when its notice is over, what is on its host is expected to be gone."""

_DOOMED = b'"deletionTimestamp"'


def leaves(body: bytes) -> bool:
    """Whether a Claim's end was asked for, or is told. Asked of each change, so nothing is parsed."""
    return MARK in body or _DOOMED in body


def tenure_of(body: Mapping[str, Any]) -> Tenure:
    """Of a Claim. What claims of older releases do not say is as nobody knows it."""
    spec, meta = body["spec"], body["metadata"]
    known = [spec["ends"]] if spec.get("ends") is not None else []
    notice = Notice.read(meta.get("annotations") or {})
    if notice is not None:
        known.append(notice.at + CLEARED_SECONDS)
    if meta.get("deletionTimestamp"):
        known.append(int(epoch(meta["deletionTimestamp"])) + CLEARED_SECONDS)
    movable = spec.get("movable", "")
    return Tenure(
        project=meta.get("namespace", ""),
        priority=spec.get("priority", 0),
        since=spec.get("since", 0),
        ends=min(known, default=None),
        preemptible=spec.get("preemptible", False),
        restartable=bool(movable),
        replaced=movable == "Replace",
        workload=spec.get("workload", {}).get("uid", ""),
        gang=spec["workload"]["uid"] if spec.get("workload", {}).get("kind") == "Job" else "",
    )
