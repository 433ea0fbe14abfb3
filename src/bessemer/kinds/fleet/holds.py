"""`hold_of`: what placement counts for a Claim."""

from __future__ import annotations

from collections.abc import Mapping
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
    request, milli = _request(spec), spec.get("deviceMilli", WHOLE_MILLI)
    return Hold(
        spec["host"],
        tuple(spec.get("devices", ())),
        tuple(Allocation.model_validate(part) for part in spec.get("allocations", ())),
        milli,
        shape=Shape.of(request).taken(milli) if request is not None else None,
        request=request,
        companions=tuple(CompanionUse.model_validate(use) for use in spec.get("companions", ())),
        device_profile=spec.get("deviceProfile", ""),
        device_start=spec.get("deviceStart", 0),
        tenure=tenure_of(body),
    )


def _request(spec: Mapping[str, Any]) -> Request | None:
    """What was asked for. Where no sense can be made of that, as by a newer release, it is as nobody knows it: what the
    claim holds counts all the same."""
    try:
        return Asked.model_validate(spec["asked"]).request(spec["tenant"]) if spec.get("asked") else None
    except ValueError:
        return None
