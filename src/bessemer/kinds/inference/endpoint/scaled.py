"""How many replicas an Endpoint that scales is to have now: what was decided (`loads.Scalers`), into its status."""

from __future__ import annotations

from dataclasses import replace

from bessemer.core.clock import epoch, rfc3339
from bessemer.core.loads import WOKEN
from bessemer.core.notices import Happening
from bessemer.core.resource import Outcome
from bessemer.kinds.context import Context
from bessemer.kinds.inference.endpoint import caching
from bessemer.kinds.inference.endpoint.spec import Endpoint, EndpointStatus
from bessemer.kinds.inference.loads import Standing
from bessemer.kinds.inference.scaling import Scaling

WOKEN_SECONDS = 60.0
"""For which a note that it is waited for counts; gateways make another where it is waited for still."""


def decided(ctx: Context, endpoint: Endpoint) -> Endpoint:
    """As it is, with what is wanted of it now in its status. Of a request that waits, one replica is the least."""
    scale, status, now = endpoint.spec.scale, endpoint.status, ctx.clock.now()
    if scale is None or endpoint.spec.form != "replicas":
        ctx.scalers.forget(endpoint.uid)
        return endpoint if status.scaling is None else _with(endpoint, None)
    before = status.scaling
    present = before.wanted if before is not None else max(scale.min, status.wanted_replicas or 1)
    standing = Standing(
        scale=scale,
        slots=endpoint.spec.slots,
        wanted=present,
        ready=status.ready_replicas,
        starting=max(0, present - status.ready_replicas),
        cache_share=caching.share(status.replicas),
    )
    verdict, silence = ctx.scalers.name(endpoint.uid, endpoint.key, standing=standing, now=ctx.clock.monotonic())
    wanted, why = (present, "") if verdict is None else (verdict.replicas, verdict.why)
    if not wanted and _woken(endpoint, now=now):
        wanted, why = 1, "a request waits for it"
    bounded = max(scale.min, min(scale.max, wanted))
    if bounded != wanted:
        why = f"no {'fewer' if bounded > wanted else 'more'} than {bounded} are to be"
    if before is not None and bounded == before.wanted:
        return (
            endpoint if before.reported == silence else _with(endpoint, before.model_copy(update={"reported": silence}))
        )
    why = why or "nothing is known of it yet"
    return _with(endpoint, Scaling(wanted=bounded, since=rfc3339(now), why=why, reported=silence))


def asleep(status: EndpointStatus) -> str:
    """What is said of one that has no replica."""
    return "it sleeps until somebody asks" if status.scaling is not None else ""


def told(ctx: Context, outcome: Outcome, *, before: Endpoint, after: Endpoint) -> Outcome:
    """The outcome with what is to be told of another number; what it says of the replicas is decided by from now on."""
    old, new = before.status.scaling, after.status.scaling
    if new is not None and isinstance(outcome.status, EndpointStatus):
        status, now = outcome.status, ctx.clock.monotonic()
        full = caching.share(status.replicas)
        ctx.scalers.stands(after.uid, wanted=new.wanted, ready=status.ready_replicas, cache_share=full, now=now)
    if old is None or new is None or old.wanted == new.wanted:
        return outcome
    words = f"from {old.wanted} to {new.wanted} replicas: {new.why}"
    return replace(outcome, happened=(Happening("Scaled", words, False),))


def _with(endpoint: Endpoint, scaling: Scaling | None) -> Endpoint:
    return endpoint.model_copy(update={"status": endpoint.status.model_copy(update={"scaling": scaling})})


def _woken(endpoint: Endpoint, *, now: float) -> bool:
    said = endpoint.metadata.annotations.get(WOKEN, "")
    try:
        return bool(said) and -WOKEN_SECONDS < now - epoch(said) < WOKEN_SECONDS
    except ValueError:
        return False
