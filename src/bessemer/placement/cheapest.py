"""The cheapest change that would make a request fit, tried before it is named.

From what costs its owner least: to ask for less closeness, to bear a taint, to ask for another device or for less, to
wait for others to end; then what only an administrator can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from bessemer.core.units import MIB, show_bytes
from bessemer.core.values import Decision, Request
from bessemer.placement.filters import fitting, show_cores
from bessemer.placement.sight import Sight

Place = Callable[[Sight, Request], Decision | None]

_MEMORY_STEP = 64 * MIB


@dataclass(frozen=True, slots=True)
class Change:
    """What would help, in words, and the sight and the request after it."""

    text: str
    sight: Sight
    request: Request


def cheapest(sight: Sight, request: Request, place: Place) -> Change | None:
    """The first change that makes ``place`` find something, or None."""
    for propose in (_nearness, _real_taints, _other_model, _less, _fake_taints, _time, _administration):
        for change in propose(sight, request, place):
            if fitting(change.sight, change.request).any():
                return change
    return None


def _nearness(sight: Sight, request: Request, _place: Place) -> Iterator[Change]:
    if request.numa == "required":
        yield Change("numa: preferred instead of required", sight, replace(request, numa="preferred"))
    if request.same_switch:
        yield Change("let the devices lie on several PCIe switches", sight, replace(request, same_switch=False))
    if request.same_nvlink:
        yield Change("let the devices lie in several NVLink domains", sight, replace(request, same_nvlink=False))
    if sum((request.numa == "required", request.same_switch, request.same_nvlink)) > 1:
        loose = replace(request, numa="preferred", same_switch=False, same_nvlink=False)
        yield Change("let cores, memory and devices lie apart", sight, loose)


def _real_taints(sight: Sight, request: Request, _place: Place) -> Iterator[Change]:
    yield from _taints(sight, request, fake=False)


def _fake_taints(sight: Sight, request: Request, _place: Place) -> Iterator[Change]:
    yield from _taints(sight, request, fake=True)


def _taints(sight: Sight, request: Request, *, fake: bool) -> Iterator[Change]:
    """Each set of taints that some host has, the smallest first; a fake host is proposed after all that is real."""
    fleet, n = sight.fleet, sight.size
    hosts = fleet.present[:n] & (fleet.fake[:n] == fake)
    missing = {fleet.taint_sets[index] - set(request.tolerations) for index in np.unique(fleet.taints[:n][hosts])}
    for keys in sorted(filter(None, missing), key=lambda keys: (len(keys), sorted(keys))):
        names = ", ".join(sorted(keys))
        note = " (fake hosts: nothing real runs there)" if fake else ""
        bearing = replace(request, tolerations=(*request.tolerations, *sorted(keys)))
        yield Change(f"tolerate {names}{note}", sight, bearing)


def _other_model(sight: Sight, request: Request, place: Place) -> Iterator[Change]:
    if request.device_count and request.device_model:
        placed = place(sight, replace(request, device_model=""))
        row = sight.fleet.row(placed.host) if placed is not None else None
        if placed is not None and row is not None:
            model = next(d.model for d in sight.fleet.devices(row) if d.id in placed.devices)
            yield Change(f"ask for {model}", sight, replace(request, device_model=model))


def _less(sight: Sight, request: Request, _place: Place) -> Iterator[Change]:
    """The most that there is of one thing, then of cores and memory together. Never nothing at all."""
    cores = _largest(sight, lambda n: replace(request, milli_cores=n * 1000), (request.milli_cores - 1) // 1000)
    if cores is not None:
        yield Change(f"ask for at most {_cores(cores)}", sight, cores)
    steps = (request.memory_bytes - 1) // _MEMORY_STEP
    memory = _largest(sight, lambda n: replace(request, memory_bytes=n * _MEMORY_STEP), steps)
    if memory is not None:
        yield Change(f"ask for at most {show_bytes(memory.memory_bytes)} of memory", sight, memory)
    devices = _largest(sight, lambda n: replace(request, device_count=n), request.device_count - 1)
    if devices is not None:
        text = f"ask for at most {devices.device_count} {request.device_model or 'GPUs'}"
        yield Change(text, sight, devices)
    both = _less_of_both(sight, request)
    if both is not None:
        text = f"ask for at most {_cores(both)} and {show_bytes(both.memory_bytes)} of memory"
        yield Change(text, sight, both)


def _cores(request: Request) -> str:
    return f"{show_cores(request.milli_cores)} core{'' if request.milli_cores == 1000 else 's'}"


def _less_of_both(sight: Sight, request: Request) -> Request | None:
    """As many cores as there are beside a little memory, then as much memory as there is beside those."""
    small = replace(request, memory_bytes=min(request.memory_bytes, _MEMORY_STEP))
    fewer = _largest(sight, lambda n: replace(small, milli_cores=n * 1000), request.milli_cores // 1000)
    if fewer is None:
        return None
    steps = request.memory_bytes // _MEMORY_STEP
    return _largest(sight, lambda n: replace(fewer, memory_bytes=n * _MEMORY_STEP), steps)


def _largest(sight: Sight, made: Callable[[int], Request], high: int) -> Request | None:
    """The request made of the largest count from 1 to ``high`` that fits: what fits, fits in any smaller count."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if fitting(sight, made(middle)).any():
            low = middle
        else:
            high = middle - 1
    return made(low) if low else None


def _time(sight: Sight, request: Request, place: Place) -> Iterator[Change]:
    n = sight.size
    emptied = replace(
        sight,
        cores_free=sight.fleet.cores[:n],
        memory_free=sight.fleet.memory[:n],
        device_free=np.ones_like(sight.device_free),
    )
    placed = place(emptied, request)
    if placed is not None:
        yield Change(f"wait until claims on {placed.host} end", emptied, request)


def _administration(sight: Sight, request: Request, place: Place) -> Iterator[Change]:
    everyone = np.ones(sight.size, dtype=np.bool_)
    for text, changed in (
        ("an administrator can uncordon {}", replace(sight, schedulable=everyone)),
        ("an administrator can bring {} back", replace(sight, reachable=everyone)),
    ):
        placed = place(changed, request)
        if placed is not None:
            yield Change(text.format(placed.host), changed, request)
