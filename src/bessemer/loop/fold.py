"""From an outcome to the status that is written: pure.

The loop's own fields are ``observedGeneration``, ``phaseSince``, ``history`` and the conditions ``Ready`` and
``Stuck``; all else is the kind's. Equal outcomes give equal statuses, so that nothing is written for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.core.clock import rfc3339, rfc3339_ms
from bessemer.core.notices import Happening
from bessemer.core.resource import Done, Fail, Outcome, PhaseMark, Resource, Status, Wait, set_condition
from bessemer.core.units import show_duration

READY, STUCK = "Ready", "Stuck"
HISTORY_MAX = 16


def status_of(obj: Resource[Any, Any], outcome: Outcome) -> Status:
    """The status that the kind answered, or the old one. Raises TypeError for anything that is no Status."""
    status = obj.status if outcome.status is None else outcome.status
    if not isinstance(status, Status):
        raise TypeError(f"{obj.KIND}: an outcome's status is a Status, not {type(status).__name__}")
    return status


def phase_after(obj: Resource[Any, Any], outcome: Outcome) -> str:
    """The phase that the object is in after the outcome."""
    return status_of(obj, outcome).phase


def is_ready(outcome: Outcome) -> bool:
    return isinstance(outcome, Done) and outcome.ready


def fold(obj: Resource[Any, Any], outcome: Outcome, *, now: float, overdue_after: float | None = None) -> Status:
    """The status after ``outcome`` at ``now``. ``overdue_after`` is the phase's deadline in seconds if it passed.

    What the kind left out of ``outcome.status`` of the loop's own fields is taken from the old status.
    """
    old: Status = obj.status
    status = status_of(obj, outcome)
    time = rfc3339(now)
    # A kind that builds its status anew drops the loop's conditions; their transition times must outlive that.
    kept = [c for c in old.conditions if c.type in {READY, STUCK} and status.condition(c.type) is None]
    conditions = set_condition(
        [*status.conditions, *kept], READY, is_ready(outcome), reason=outcome.reason, message=outcome.message, now=time
    )
    if overdue_after is not None:
        text = _stuck_text(status.phase, outcome, after=overdue_after)
        conditions = set_condition(conditions, STUCK, True, reason=outcome.reason, message=text, now=time)
    elif old.condition(STUCK) is not None:
        conditions = set_condition(conditions, STUCK, False, reason="Moving", now=time)
    same = status.phase == old.phase and old.phase_since is not None
    history = old.history if same else [*old.history, PhaseMark(phase=status.phase, at=rfc3339_ms(now))]
    return status.model_copy(
        update={
            "phase_since": old.phase_since if same else time,
            "history": history[-HISTORY_MAX:],
            "observed_generation": obj.metadata.generation,
            "conditions": conditions,
        }
    )


def happenings(old: Status, new: Status, *, failed: bool) -> list[Happening]:
    """What an event tells: another reason of Ready, another phase, an object that got stuck."""
    found: list[Happening] = []
    ready, before = new.condition(READY), old.condition(READY)
    if ready is not None and (before is None or before.reason != ready.reason or old.phase != new.phase):
        found.append(Happening(ready.reason, ready.message or f"The phase is {new.phase}.", failed))
    stuck, was_stuck = new.condition(STUCK), old.condition(STUCK)
    if stuck is not None and stuck.status == "True" and (was_stuck is None or was_stuck.status != "True"):
        found.append(Happening(STUCK, stuck.message, True))
    return found


def status_body(obj: Resource[Any, Any], status: Status) -> Mapping[str, Any]:
    """The body of the status write: who, at which revision, and the status."""
    meta = obj.metadata
    who = {"name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version}
    if meta.namespace:
        who["namespace"] = meta.namespace
    return {"apiVersion": obj.api_version, "kind": obj.KIND, "metadata": who, "status": status.dump()}


def _stuck_text(phase: str, outcome: Outcome, *, after: float) -> str:
    text = f"{phase} for longer than {show_duration(after)}: {outcome.message or outcome.reason}"
    remedy = outcome.remedy if isinstance(outcome, Wait | Fail) else ""
    return f"{text.rstrip('.')}. {remedy}" if remedy else text
