"""A cordon that a person set, apart from one that a Consolidation did: both are ``spec.unschedulable`` of a Host, and
who opens the host again must know whose it is."""

from __future__ import annotations

from typing import Any

BY_HAND = "bessemer.dev/cordoned-by-hand"
"""Annotation of a Host: somebody said that it is to be cordoned, and no Consolidation opens it again."""


def cordoned(*, shut: bool) -> dict[str, Any]:
    """The merge patch of a Host by which a person has nothing new land there, or opens it again."""
    return {"metadata": {"annotations": {BY_HAND: "true" if shut else None}}, "spec": {"unschedulable": shut}}
