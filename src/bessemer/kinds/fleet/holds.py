"""`hold_of`: what placement counts for a Claim."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from bessemer.core.asking import Allocation, Request
from bessemer.core.beside import CompanionUse
from bessemer.core.resource import Change
from bessemer.core.slices import WHOLE_MILLI
from bessemer.core.values import Asked
from bessemer.kinds.fleet.tenure import tenure_of
from bessemer.placement import Hold
from bessemer.placement.shape import Shape

_ASKED_KEPT = 1024
"""What claims were asked for as, for many are asked for alike."""


def hold_of(claim: Change) -> Hold:
    """Read from its spec, which is fixed when it is taken, and from what says when it ends. Raises ValueError where no
    sense can be made of it."""
    return _hold(orjson.loads(claim.body))


def taken_of(claim: Change) -> tuple[str, Hold]:
    """``WORKLOAD_UID/REPLICA``, and `hold_of`. Raises ValueError likewise."""
    body = orjson.loads(claim.body)
    workload = body["spec"]["workload"]
    return f"{workload['uid']}/{workload.get('replica', 0)}", _hold(body)


def _hold(body: Mapping[str, Any]) -> Hold:
    spec = body["spec"]
    milli = spec.get("deviceMilli", WHOLE_MILLI)
    request, shape = None, None
    if spec.get("asked"):
        request, shape = _asked(orjson.dumps(spec["asked"]), spec["tenant"], milli=milli)
    return Hold(
        spec["host"],
        tuple(spec.get("devices", ())),
        tuple(Allocation.model_validate(part) for part in spec.get("allocations", ())),
        milli,
        shape=shape,
        request=request,
        companions=tuple(CompanionUse.model_validate(use) for use in spec.get("companions", ())),
        device_profile=spec.get("deviceProfile", ""),
        device_start=spec.get("deviceStart", 0),
        tenure=tenure_of(body),
    )


@lru_cache(_ASKED_KEPT)
def _asked(said: bytes, tenant: str, *, milli: int) -> tuple[Request | None, Shape | None]:
    """What was asked for, and as what it counts. Where no sense can be made of that, as by a newer release, it is as
    nobody knows it: what the claim holds counts all the same."""
    try:
        request = Asked.model_validate(orjson.loads(said)).request(tenant)
    except ValueError:
        return None, None
    return request, Shape.of(request).taken(milli)
