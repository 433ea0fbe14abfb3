"""What a vetting's tokens must cost: by what its claim costs, what it answered at its best rate, and what a token of
each sort took of the engine's time (`metering.tokens`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.core.inference import Vetted
from bessemer.core.resource import tenant_of
from bessemer.kinds import workload
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.inference.vetting.measuring import embeds
from bessemer.kinds.inference.vetting.report import Alone, Point, TokenPrices
from bessemer.kinds.inference.vetting.spec import Vetting, VettingIntent, VettingStatus
from bessemer.kinds.tenancy.spend import prices_of
from bessemer.kinds.tenancy.tenant import Tenant
from bessemer.metering.estimate import Hardware, hour
from bessemer.metering.invoice import Invoice
from bessemer.metering.tokens import Tokens, at_load, prices, seconds_of_a_million

_NANO = 1_000_000_000
_MOST = (1 << 63) - 1
"""Micro-units: what a status can say."""


async def hour_of(ctx: Context, claim: Claim) -> Invoice:
    """What the claim costs in an hour, by the plan of its project's tenant; nothing where there is no such plan."""
    tenant = await workload.read(ctx, Tenant, name=tenant_of(claim.metadata.namespace or ""))
    plan = await prices_of(ctx, tenant.spec.price_plan if tenant is not None else "")
    spec = claim.spec
    held = Hardware(
        milli_cores=spec.milli_cores,
        memory_bytes=spec.memory_bytes,
        devices=len(spec.devices),
        device_milli=spec.device_milli,
        device_model=spec.device_model,
        fake=spec.fake,
    )
    return hour([held], plan)


def times(best: Point, alone: Alone, *, slots: int) -> Tokens:
    """Nanoseconds that one token of each sort takes of the engine at that rate.

    What is read takes what it takes alone; the rest of the time in which the engine had something to do is of what it
    wrote, and at least what one of so many ``slots`` takes of a token alone. Where nothing is written all of it is of
    what was read, cached or not.
    """
    if not best.written:
        each = max(1, int(best.busy_seconds * _NANO) // max(1, best.read + best.cached))
        return Tokens(each, each, 0)
    read, cached = int(alone.read * _NANO), int(alone.cached * _NANO)
    rest = int(best.busy_seconds * _NANO) - read * best.read - cached * best.cached
    least = int(alone.written * _NANO) // slots
    return Tokens(max(1, read), min(cached, read), max(1, least, rest // max(1, best.written)))


def found(
    vetting: Vetting,
    claim: Claim,
    *,
    best: Point,
    alone: Alone,
    cost: Invoice,
    status: VettingStatus,
) -> Mapping[str, Any]:
    """Of the status: prices, and all of it in short. Pure. Raises ValueError or ArithmeticError for what cannot
    have been measured."""
    spec, intent = vetting.spec, VettingIntent.model_validate(claim.spec.intent)
    each = times(best, alone, slots=spec.slots)
    counted = Tokens(best.read, best.cached, best.written)
    seconds_milli = max(1, round(best.seconds * 1000))
    busy = at_load(counted, seconds_milli=seconds_milli, load_percent=spec.target_load_percent)
    due = prices(cost.total_micro, margin_percent=spec.margin_percent, hour=busy, each=each)
    claimed = seconds_of_a_million(hour=busy, each=each)
    earned = due.times(busy) // 1_000_000
    if max(due.read, due.cached, due.written, earned) > _MOST:
        raise ValueError("more than anything costs")
    return {
        "prices": TokenPrices(
            currency=cost.currency,
            claim_hour_micro=cost.total_micro,
            margin_percent=spec.margin_percent,
            target_load_percent=spec.target_load_percent,
            million_input_tokens=due.read,
            million_cached_input_tokens=due.cached,
            million_output_tokens=due.written,
            hour_micro=earned,
        ),
        "vetted": Vetted(
            vetting=vetting.metadata.name,
            at=status.finished_at or "",
            digest=intent.model,
            flavor=spec.flavor,
            engine=intent.engine,
            context_tokens=spec.context_tokens,
            slots=spec.slots,
            fake=claim.spec.fake,
            rate=round(best.served, 3),
            input_per_second=_each(best.read + best.cached, best),
            output_per_second=_each(best.written, best),
            ttft_ms=best.ttft_p95,
            inter_token_ms=best.inter_token_p95,
            memory_bytes=status.memory_bytes,
            estimate_bytes=status.estimate_bytes,
            task=intent.task,
            end_ms=best.end_p95 if embeds(intent) else 0.0,
            failed=[one.name for one in status.checks if one.verdict == "Failed"],
            input_seconds=claimed.read / 1_000_000,
            cached_seconds=claimed.cached / 1_000_000,
            output_seconds=claimed.written / 1_000_000,
        ),
    }


def _each(count: int, of: Point) -> float:
    return round(count / of.seconds, 2) if of.seconds else 0.0
