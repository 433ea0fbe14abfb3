"""What no host of a described fleet could hold, were nothing else on it: whoever asks for that never begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from bessemer.core.asking import Refusal, Request
from bessemer.placement.decide import decide
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.replay.described import DescribedFleet
from bessemer.placement.shape import Shape


def beyond(fleet: DescribedFleet, requests: Iterable[Request]) -> Mapping[Shape, str]:
    """Of these requests the shapes that fit nowhere, and why not; one host stands for each group of equal ones."""
    arrays = FleetArrays()
    for group in fleet.groups:
        if group.count:
            arrays.set_host(next(group.hosts()))
    firsts: dict[Shape, Request] = {}
    for request in requests:
        firsts.setdefault(Shape.of(request), request)
    answers = ((shape, decide(arrays, replace(request, tenant=""))) for shape, request in firsts.items())
    return {shape: _why(answer) for shape, answer in answers if isinstance(answer, Refusal)}


def _why(refusal: Refusal) -> str:
    return "; ".join(dict.fromkeys(reason.text for reason in refusal.reasons))
