"""How it goes with what an Endpoint is asked and answers, where that is logged: what gateways say, as a condition."""

from __future__ import annotations

from dataclasses import replace

from bessemer.core.clock import rfc3339
from bessemer.core.resource import Outcome, set_condition
from bessemer.kinds.inference.endpoint.prompts import CONDITION, PromptLog
from bessemer.kinds.inference.endpoint.spec import EndpointStatus


def told(outcome: Outcome, log: PromptLog | None, *, heard: tuple[str, str] | None, now: float) -> Outcome:
    """The outcome with the condition: True where entries are written, False with the reason. ``heard`` is what gateways
    say, as (reason, words); None is nothing yet, and then what stood there stands."""
    status = outcome.status
    if not isinstance(status, EndpointStatus):
        return outcome
    conditions = [one for one in status.conditions if one.type != CONDITION]
    if log is not None:
        if heard is None and len(conditions) < len(status.conditions):
            return outcome
        reason, words = heard or ("NotHeard", "no gateway has said so yet")
        message = f"prompts are logged to {log} for {log.retention_days} days{f'; {words}' if words else ''}"
        value = None if heard is None else not reason
        conditions = set_condition(
            status.conditions, CONDITION, value, reason=reason or "Written", message=message, now=rfc3339(now)
        )
    return replace(outcome, status=status.model_copy(update={"conditions": conditions}))
