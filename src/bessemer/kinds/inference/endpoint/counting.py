"""What the engine of a replica has counted since its claim began, by which the bill can be checked.

An engine's counters begin anew with its process, and die with it. They are read at a slow pace, and once more before
the engine is ended; what was read stands in ``status.detail.counted`` of the claim, and the store keeps it once the
claim is gone. An engine that ends by itself takes with it what it counted since it was last read: that is said
(``unseen``). The completions by which an engine is found good are its host's own, and counted apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.protocol import EngineMetrics, ProbeResult
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim

COUNT_SECONDS = 60
READ_SECONDS = 4.0
"""How often counters are read, and how long an engine may take to say them."""

Counted = Mapping[str, Any]


def took(claim: Claim, process: str, *, said: EngineMetrics, at: int) -> dict[str, Any]:
    """Its counters were read: of the whole prompt, cached tokens too."""
    kept = _put_by(claim.status.detail.get("counted"), process)
    tokens = [said.prompt_tokens_total + said.prompt_tokens_cached_total, said.tokens_predicted_total]
    context = claim.spec.intent.get("contextTokens", 0)
    return {**kept, "at": at, "tokens": tokens, "busy": said.running + said.waiting, "context": context}


def _put_by(before: Counted | None, process: str) -> dict[str, Any]:
    kept = dict(before or {})
    if kept.get("process") == process:
        return kept
    if "process" in kept:
        kept["before"] = _sum(kept.get("before", (0, 0)), kept.pop("tokens", (0, 0)))
        kept["unseen"] = kept.get("unseen", 0) + (kept.get("last") != kept["process"])
    return {**kept, "process": process}


def _sum(one: Sequence[int], two: Sequence[int]) -> list[int]:
    return [mine + more for mine, more in zip(one, two, strict=True)]


def due(kept: Counted | None, now: float) -> bool:
    """Whether they are to be read again. A clock that was set back does not stop it."""
    return kept is None or not 0 <= now - kept.get("at", 0) < COUNT_SECONDS


async def proved(ctx: HostContext, claim: Claim, *, process: str, secret: str, probe: ProbeResult) -> dict[str, Any]:
    """The entry of ``detail`` of an engine that was found good just now, and that nobody else could have asked: all
    that it has counted is of completions that found it good, those of a look before a crash too."""
    kept: Counted | None = claim.status.detail.get("counted")
    known = kept is not None and kept.get("process") == process
    said = await read(ctx, claim, secret=secret)
    if said is None or known:
        found, tokens = _put_by(kept, process), [probe.prompt_tokens, probe.completion_tokens]
    else:
        found = took(claim, process, said=said, at=int(ctx.clock.now()))
        tokens = found["tokens"]
    return {"counted": {**found, "probes": _sum(found.get("probes", (0, 0)), tokens)}}


async def look(ctx: HostContext, claim: Claim, *, process: str, secret: str) -> dict[str, Any]:
    """The entry of ``detail``, where it is due and says something new: what changed, and once more that it has not, so
    that it is known to be whole. An engine that does not say is asked the next time."""
    kept: Counted | None = claim.status.detail.get("counted")
    now = ctx.clock.now()
    said = await read(ctx, claim, secret=secret) if due(kept, now) else None
    if said is None:
        return {}
    found = took(claim, process, said=said, at=int(now))
    same = kept is not None and all(kept.get(name) == found.get(name) for name in ("process", "tokens", "busy"))
    if same and kept is not None and kept.get("still"):
        return {}
    return {"counted": {**found, "still": same}}


def told(claim: Claim, process: str) -> bool:
    """Whether what it counted stands in the status already, for it is to be ended."""
    kept: Counted | None = claim.status.detail.get("counted")
    return kept is not None and kept.get("last") == process


async def last(ctx: HostContext, claim: Claim, *, process: str, secret: str) -> dict[str, Any] | None:
    """What it counted, before it is ended; None where it does not say."""
    said = await read(ctx, claim, secret=secret)
    if said is None:
        return None
    return {**took(claim, process, said=said, at=int(ctx.clock.now())), "last": process}


async def read(ctx: HostContext, claim: Claim, *, secret: str) -> EngineMetrics | None:
    """What its engine says of itself now; None where it does not, or not in time."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await ctx.drivers.engine.metrics(claim.uid, secret)
    except (DriverError, TimeoutError):
        return None


def unheard(kept: Counted | None) -> Counted | None:
    """What is known in the end of an engine that was not heard before it went."""
    if kept is None or kept.get("last") == kept.get("process"):
        return kept
    return {**kept, "unseen": kept.get("unseen", 0) + 1, "last": kept["process"]}
