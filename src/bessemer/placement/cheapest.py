"""The cheapest change that would make a request fit, tried before it is named.

From what costs its owner least: to ask for less closeness, to bear a taint that the tenant may bear, to ask for another
device or for less, to wait for others to end; then what only an administrator can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bessemer.core.asking import Request
from bessemer.core.beside import Companion
from bessemer.core.units import GIB, MIB
from bessemer.placement.choose import place
from bessemer.placement.filters import fitting, not_borne
from bessemer.placement.room import Spare
from bessemer.placement.sight import Sight
from bessemer.placement.slices.instances import smaller
from bessemer.placement.vectors import WHOLE
from bessemer.placement.words import companion_words, cores_words, device_words, memory_words, share_words

_MEMORY_STEP = 64 * MIB


@dataclass(frozen=True, slots=True)
class Change:
    """What would help, in words, and the sight after it."""

    text: str
    sight: Sight


Propose = Callable[[Sight], Iterator[Change]]


def cheapest(sight: Sight, *, remedies: Sequence[Propose] = ()) -> Change | None:
    """The first change after which something fits, or None. ``remedies`` are what others may do so that the request
    gets all that it asks for (see `moves.remedies`); they come before asking for less."""
    for propose in (
        _nearness,
        _real_taints,
        _sorts,
        _other_model,
        _other_companions,
        *remedies,
        _less,
        _fewer_companions,
        _fake_taints,
        _time,
        _administration,
        _rights,
        _walls,
    ):
        for change in propose(sight):
            if fitting(change.sight).any():
                return change
    return None


def asking(sight: Sight, **wishes: Any) -> Sight:
    """The same fleet for a request with other wishes."""
    return replace(sight, request=replace(sight.request, **wishes))


def _nearness(sight: Sight) -> Iterator[Change]:
    request = sight.request
    if request.numa == "required":
        yield Change("numa: preferred instead of required", asking(sight, numa="preferred"))
    if request.same_switch:
        yield Change("let the devices lie on several PCIe switches", asking(sight, same_switch=False))
    if request.same_nvlink:
        apart = "do without NVLink between the devices"
        several = "let the devices lie in several NVLink domains"
        yield Change(apart if sight.offering.any() else several, asking(sight, same_nvlink=False))
    yield from _companions_apart(sight)
    near = any(one.near or one.rails for one in request.companions)
    if sum((request.numa == "required", request.same_switch, request.same_nvlink, near)) > 1:
        anywhere = tuple(replace(one, near="", rails=False) for one in request.companions)
        loose = asking(sight, numa="preferred", same_switch=False, same_nvlink=False, companions=anywhere)
        yield Change("let cores, memory and devices lie apart", loose)


def _companions_apart(sight: Sight) -> Iterator[Change]:
    """Each companion farther from the devices, or with another on its rail."""
    request = sight.request
    devices = device_words(request)
    for index, one in enumerate(request.companions):
        name = companion_words(one)
        if one.near == "switch":
            text = f"let the {name} lie under another PCIe switch than the {devices}"
            yield Change(text, _with_companion(sight, index, other=replace(one, near="node")))
        if one.near:
            text = f"let the {name} lie away from the {devices}"
            yield Change(text, _with_companion(sight, index, other=replace(one, near="")))
        if one.rails:
            yield Change(f"let the {name} share rails", _with_companion(sight, index, other=replace(one, rails=False)))


def _with_companion(sight: Sight, index: int, *, other: Companion | None) -> Sight:
    """With another in its place, or none."""
    before = sight.request.companions
    return asking(sight, companions=(*before[:index], *(() if other is None else (other,)), *before[index + 1 :]))


def _sorts(sight: Sight) -> Iterator[Change]:
    """Cores and memory of a plainer sort."""
    request = sight.request
    if request.cpu_policy == "cores":
        yield Change("ask for dedicated threads in place of whole cores", asking(sight, cpu_policy="threads"))
    if request.cpu_policy != "shared":
        yield Change("ask for shared cores in place of dedicated ones", asking(sight, cpu_policy="shared"))
    if request.page_bytes:
        yield Change("ask for ordinary memory in place of huge pages", asking(sight, page_bytes=0))
    if request.page_bytes and request.cpu_policy != "shared":
        plain = asking(sight, cpu_policy="shared", page_bytes=0)
        yield Change("ask for shared cores and ordinary memory", plain)


def _other_companions(sight: Sight) -> Iterator[Change]:
    """Companions of any model, where no other asks for such."""
    for index, one in enumerate(sight.request.companions):
        if one.models and sum(other.kind == one.kind for other in sight.request.companions) == 1:
            anyone = replace(one, models=frozenset())
            yield Change(f"ask for any {companion_words(anyone)}", _with_companion(sight, index, other=anyone))


def _fewer_companions(sight: Sight) -> Iterator[Change]:
    """The most that there is of each, then none of it, then none of all."""
    for index, one in enumerate(sight.request.companions):
        for fewer in (
            _largest(one.count - 1, _counted(sight, index)),
            _largest(one.functions - 1, _functioning(sight, index)),
        ):
            if fewer is not None:
                yield Change(f"ask for {companion_words(fewer.request.companions[index])}", fewer)
        yield Change(f"do without the {companion_words(one)}", _with_companion(sight, index, other=None))
    if len(sight.request.companions) > 1:
        names = " and the ".join(companion_words(one) for one in sight.request.companions)
        yield Change(f"do without the {names}", asking(sight, companions=()))


def _counted(sight: Sight, index: int) -> Callable[[int], Sight]:
    one = sight.request.companions[index]
    return lambda n: _with_companion(sight, index, other=replace(one, count=n))


def _functioning(sight: Sight, index: int) -> Callable[[int], Sight]:
    one = sight.request.companions[index]
    return lambda n: _with_companion(sight, index, other=replace(one, functions=n))


def _real_taints(sight: Sight) -> Iterator[Change]:
    yield from _taints(sight, fake=False)


def _fake_taints(sight: Sight) -> Iterator[Change]:
    yield from _taints(sight, fake=True)


def _taints(sight: Sight, *, fake: bool) -> Iterator[Change]:
    """Each set of taints that the tenant may bear; a fake host is proposed after all that is real."""
    request = sight.request
    for keys in _missing(sight, fake=fake):
        if request.bearable is None or keys <= request.bearable:
            text = f"tolerate {_listed(keys, fake=fake)}"
            yield Change(text, asking(sight, tolerations=(*request.tolerations, *sorted(keys))))


def _rights(sight: Sight) -> Iterator[Change]:
    """Each set of taints of which the tenant may not bear some."""
    request = sight.request
    for fake in (False, True):
        for keys in _missing(sight, fake=fake):
            if request.bearable is not None and not keys <= request.bearable:
                text = _let(request, keys, fake=fake)
                more = {"tolerations": (*request.tolerations, *sorted(keys)), "bearable": request.bearable | keys}
                yield Change(text, asking(sight, **more))


def _let(request: Request, keys: frozenset[str], *, fake: bool) -> str:
    """Both that it takes, where the request does not say so itself yet."""
    said = "*" in request.tolerations or keys <= frozenset(request.tolerations)
    if said:
        return f"an administrator can let tenant {request.tenant} tolerate {_listed(keys, fake=fake)}"
    let = f"have an administrator let tenant {request.tenant} do so"
    return f"tolerate {_listed(keys, fake=fake)}, and {let}: by spec.tolerations of the workload and of its Tenant"


def _walls(sight: Sight) -> Iterator[Change]:
    """What an administrator may open to the tenant, and what it may be let out of."""
    request = sight.request
    if request.sites:
        yield Change(
            f"an administrator can open more sites to tenant {request.tenant}", asking(sight, sites=frozenset())
        )
    if request.own_hosts:
        yield Change(
            f"an administrator can dedicate more hosts to tenant {request.tenant}", asking(sight, own_hosts=False)
        )


def _missing(sight: Sight, *, fake: bool) -> Sequence[frozenset[str]]:
    """The sets of taints for which hosts are set aside, the smallest first."""
    fleet, n = sight.fleet, sight.size
    hosts = fleet.present[:n] & (fleet.fake[:n] == fake)
    missing = {not_borne(sight.request, fleet.taint_sets[index]) for index in np.unique(fleet.taints[:n][hosts])}
    return sorted(filter(None, missing), key=lambda keys: (len(keys), sorted(keys)))


def _listed(keys: Iterable[str], *, fake: bool) -> str:
    return ", ".join(sorted(keys)) + (" (fake hosts: nothing real runs there)" if fake else "")


def _other_model(sight: Sight) -> Iterator[Change]:
    request = sight.request
    placed = place(asking(sight, device_models=frozenset())) if request.device_count and request.device_models else None
    row = sight.fleet.row(placed.host) if placed is not None else None
    if placed is not None and row is not None:
        models = frozenset(d.model for d in sight.fleet.devices(row) if d.id in placed.devices)
        other = asking(sight, device_models=models)
        yield Change(f"ask for {device_words(other.request)}", other)


def _less(sight: Sight) -> Iterator[Change]:
    """The most that there is of one thing, then of cores and memory together. Never nothing at all."""
    request = sight.request
    cores = _largest((request.milli_cores - 1) // 1000, lambda n: asking(sight, milli_cores=n * 1000))
    if cores is not None:
        yield Change(f"ask for at most {cores_words(cores.request)}", cores)
    step = memory_step(request)
    memory = _largest((request.memory_bytes - 1) // step, lambda n: asking(sight, memory_bytes=n * step))
    if memory is not None:
        yield Change(f"ask for at most {memory_words(memory.request)}", memory)
    devices = fewer_devices(sight)
    if devices is not None:
        yield Change(f"ask for at most {devices.request.device_count} {device_words(devices.request)}", devices)
    share = _less_of_one(sight)
    if share is not None:
        yield Change(f"ask for at most {share_words(share.request)}", share)
    for name in smaller(sight.fleet.cuts, request.device_profile):
        other = asking(sight, device_profile=name)
        yield Change(f"ask for {device_words(other.request)}", other)
    if request.device_profile or request.device_milli < WHOLE:
        whole = asking(sight, device_profile="", device_milli=WHOLE, device_bytes=0)
        yield Change(f"ask for a whole {device_words(whole.request)}", whole)
    both = _less_of_both(sight)
    if both is not None:
        yield Change(f"ask for at most {cores_words(both.request)} and {memory_words(both.request)}", both)


def fewer_devices(sight: Sight) -> Sight | None:
    """The most devices that there are at once."""
    most = sight.request.device_count - 1
    if not sight.offering.any():
        return _largest(most, lambda n: asking(sight, device_count=n))
    # NVLink partitions come in sizes: where one of four is free none of three may be.
    most = min(most, int(sight.usable_count.max(initial=0)))
    counts = (asking(sight, device_count=n) for n in range(most, 0, -1))
    return next((fewer for fewer in counts if fitting(fewer).any()), None)


def share_step(request: Request) -> int:
    """In which a share in bytes is asked for."""
    return GIB if request.device_bytes > GIB else MIB


def _less_of_one(sight: Sight) -> Sight | None:
    """The largest share that there is."""
    request = sight.request
    if request.device_bytes:
        step = share_step(request)
        return _largest((request.device_bytes - 1) // step, lambda n: asking(sight, device_bytes=n * step))
    most = request.device_milli - 1 if request.device_milli < WHOLE else 0
    return _largest(most, lambda n: asking(sight, device_milli=n))


def memory_step(request: Request) -> int:
    """In which memory is asked for: of huge pages as many as are some."""
    return max(_MEMORY_STEP, request.page_bytes)


def _less_of_both(sight: Sight) -> Sight | None:
    """As many cores as there are beside a little memory, then as much memory as there is beside those."""
    memory, step = sight.request.memory_bytes, memory_step(sight.request)
    small = asking(sight, memory_bytes=min(memory, step))
    fewer = _largest(sight.request.milli_cores // 1000, lambda n: asking(small, milli_cores=n * 1000))
    if fewer is None:
        return None
    return _largest(memory // step, lambda n: asking(fewer, memory_bytes=n * step))


def _largest(high: int, made: Callable[[int], Sight]) -> Sight | None:
    """The sight made of the largest count from 1 to ``high`` that fits: what fits, fits in any smaller count."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if fitting(made(middle)).any():
            low = middle
        else:
            high = middle - 1
    return made(low) if low else None


def drained(sight: Sight) -> Sight:
    """The same fleet, were all that it holds gone."""
    fleet, n = sight.fleet, sight.size
    return replace(
        sight,
        cores_free=fleet.cores[:n],
        memory_free=fleet.memory[:n],
        device_milli=np.full_like(sight.device_milli, WHOLE),
        changed_spare=Spare.emptied(fleet, n),
        drained=True,
    )


def _time(sight: Sight) -> Iterator[Change]:
    emptied = drained(sight)
    placed = place(emptied)
    if placed is not None:
        yield Change(f"wait until claims on {placed.host} end", emptied)


def _administration(sight: Sight) -> Iterator[Change]:
    for text, changed in (
        ("an administrator can uncordon {}", replace(sight, schedulable=sight.everyone)),
        ("an administrator can bring {} back", replace(sight, reachable=sight.everyone)),
    ):
        placed = place(changed)
        if placed is not None:
            yield Change(text.format(placed.host), changed)


def own_choices(sight: Sight) -> Iterator[Change]:
    """What a request may let go of by itself and still have all that it asked for; whether it helps is not tried."""
    yield from _nearness(sight)
    yield from _real_taints(sight)


def last_resorts(sight: Sight) -> Iterator[Change]:
    """Fake hosts, and what an administrator may open to its tenant; whether it helps is not tried."""
    yield from _fake_taints(sight)
    yield from _rights(sight)
    yield from _walls(sight)
