"""The cheapest change that would make a gang fit, tried before it is named.

From what costs its owner least: to lie further apart, in smaller blocks, more to a host; to ask less closeness of each
member, or to bear a taint; another device; fewer members, then smaller ones; to wait; then what only an administrator
can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bessemer.core.asking import Gang
from bessemer.placement.cheapest import asking, last_resorts, memory_step, own_choices, share_step
from bessemer.placement.filters import fitting
from bessemer.placement.gangs.ground import LEVELS, Ground
from bessemer.placement.gangs.rails import most
from bessemer.placement.room import Spare
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import NONE, WHOLE, Bools
from bessemer.placement.words import cores_words, device_words, memory_words, share_words


@dataclass(frozen=True, slots=True)
class Change:
    """What would help, in words, and the gang and the sight after it."""

    text: str
    gang: Gang
    sight: Sight

    def fits(self) -> bool:
        """Whether all of the gang has a place then."""
        return most(self.sight, self.gang, fits=fitting(self.sight)) >= self.gang.count


def cheapest(sight: Sight, gang: Gang) -> Change | None:
    """The first change after which all of the gang fits, or None."""
    for propose in (
        _rails,
        _levels,
        _blocks,
        _company,
        _anyhow,
        _member,
        _other_model,
        _fewer,
        _smaller,
        _time,
        _administration,
        _last_resorts,
    ):
        for change in propose(sight, gang):
            if change.fits():
                return change
    return None


def _rails(sight: Sight, gang: Gang) -> Iterator[Change]:
    if gang.rails == "required":
        yield Change("rails: preferred instead of required", replace(gang, rails="preferred"), sight)


def _levels(sight: Sight, gang: Gang) -> Iterator[Change]:
    if gang.policy == "required":
        for level in LEVELS[LEVELS.index(gang.level) + 1 :]:
            yield Change(f"level: {level} instead of {gang.level}", replace(gang, level=level), sight)
        yield Change("level: preferred instead of required", replace(gang, policy="preferred"), sight)


def _blocks(sight: Sight, gang: Gang) -> Iterator[Change]:
    """Smaller ones, then under wider switches, then none at all."""
    if not gang.segment:
        return
    for size in range(gang.segment // 2, 1, -1):
        if gang.segment % size == 0:
            yield Change(f"blocks of {size} members instead of {gang.segment}", replace(gang, segment=size), sight)
    for level in LEVELS[LEVELS.index(gang.segment_level) + 1 :]:
        text = f"blocks under one {level} instead of one {gang.segment_level}"
        yield Change(text, replace(gang, segment_level=level), sight)
    yield Change("no blocks", replace(gang, segment=0), sight)


def _company(sight: Sight, gang: Gang) -> Iterator[Change]:
    """The fewest more to a host that help."""
    if not gang.per_host:
        return

    def change(per_host: int) -> Change:
        text = f"up to {per_host} members to a host instead of {gang.per_host}"
        return Change(text, replace(gang, per_host=per_host), sight)

    found = _least(gang.per_host + 1, gang.count, made=change)
    if found is not None:
        yield found


def _anyhow(sight: Sight, gang: Gang) -> Iterator[Change]:
    """All at once that says how members lie."""
    loose = replace(gang, policy="preferred", segment=0, per_host=0, rails="")
    if sum((gang.policy == "required", gang.segment > 0, gang.per_host > 0, gang.rails == "required")) > 1:
        yield Change("let the members lie anywhere", loose, sight)


def _member(sight: Sight, gang: Gang) -> Iterator[Change]:
    for change in own_choices(sight):
        yield Change(change.text, replace(gang, member=change.sight.request), change.sight)


def _last_resorts(sight: Sight, gang: Gang) -> Iterator[Change]:
    for change in last_resorts(sight):
        yield Change(change.text, replace(gang, member=change.sight.request), change.sight)


def _asking(sight: Sight, gang: Gang, *, text: str, **wishes: Any) -> Change:
    other = asking(sight, **wishes)
    return Change(text, replace(gang, member=other.request), other)


def _other_model(sight: Sight, gang: Gang) -> Iterator[Change]:
    request = sight.request
    if request.device_count and request.device_models:
        models = sight.fleet.device_model[: sight.size]
        for number in sorted(
            np.unique(models[sight.fleet.device_sound[: sight.size]]), key=sight.fleet.models.all.__getitem__
        ):
            other = frozenset({sight.fleet.models.all[number]})
            if not other <= request.device_models:
                yield _asking(sight, gang, text=f"ask for {next(iter(other))}", device_models=other)


def _fewer(sight: Sight, gang: Gang) -> Iterator[Change]:
    count = most(sight, gang, fits=fitting(sight))
    count -= count % (gang.segment or 1)
    if count:
        yield Change(f"ask for at most {count} member{'s' if count > 1 else ''}", replace(gang, count=count), sight)


def _smaller(sight: Sight, gang: Gang) -> Iterator[Change]:
    """The most of one thing for each member. Never nothing at all."""
    request, step, piece = sight.request, memory_step(sight.request), share_step(sight.request)

    def cores(n: int) -> Change:
        words = cores_words(replace(request, milli_cores=1000 * n))
        return _asking(sight, gang, text=f"ask for at most {words} for each member", milli_cores=1000 * n)

    def memory(n: int) -> Change:
        words = memory_words(replace(request, memory_bytes=n * step))
        return _asking(sight, gang, text=f"ask for at most {words} for each member", memory_bytes=n * step)

    def devices(n: int) -> Change:
        other = asking(sight, device_count=n)
        text = f"ask for at most {n} {device_words(other.request)} for each member"
        return _asking(sight, gang, text=text, device_count=n)

    def share(n: int) -> Change:
        less: dict[str, Any] = {"device_bytes": n * piece} if request.device_bytes else {"device_milli": n}
        text = f"ask for at most {share_words(replace(request, **less))} for each member"
        return _asking(sight, gang, text=text, **less)

    less_milli = request.device_milli - 1 if request.device_milli < WHOLE else 0
    limits = [
        ((request.milli_cores - 1) // 1000, cores),
        ((request.memory_bytes - 1) // step, memory),
        (request.device_count - 1, devices),
        ((request.device_bytes - 1) // piece if request.device_bytes else less_milli, share),
    ]
    for high, made in limits:
        found = _first(sight, made) if made is devices and sight.offering.any() else _largest(high, made)
        if found is not None:
            yield found


def _time(sight: Sight, gang: Gang) -> Iterator[Change]:
    """That what is held ends, under one switch where all must be under one: there where the least is held."""
    empty = _emptied(sight, sight.everyone)
    ground = Ground.of(empty, gang)
    if gang.policy == "preferred":
        yield Change("wait until other claims end", gang, empty)
        return
    enough = np.flatnonzero(ground.at(gang.level) >= gang.count)
    if not len(enough):
        return
    now = Ground.of(sight, gang)
    rooms = np.zeros(sight.size)
    rooms[now.rows] = now.hosts
    above = ground.above(gang.level)
    best = enough[np.argmax(np.bincount(above, weights=rooms[ground.rows])[enough])]
    rows = ground.rows[above == best]
    hosts = np.zeros(sight.size, dtype=np.bool_)
    hosts[rows] = True
    yield Change(f"wait until claims {_where(sight, int(rows[0]), gang=gang)} end", gang, _emptied(sight, hosts))


def _emptied(sight: Sight, hosts: Bools) -> Sight:
    """As it would be with nothing held of some hosts."""
    fleet, n, these = sight.fleet, sight.size, hosts[:, None]
    empty, now = Spare.emptied(fleet, n), sight.spare
    return replace(
        sight,
        cores_free=np.where(these, fleet.cores[:n], sight.cores_free),
        memory_free=np.where(these, fleet.memory[:n], sight.memory_free),
        device_milli=np.where(these, WHOLE, sight.device_milli),
        changed_spare=Spare(
            np.where(these, empty.threads, now.threads),
            np.where(these, empty.wholes, now.wholes),
            np.where(these[:, :, None], empty.pages, now.pages),
            np.where(these, empty.used, now.used),
            np.where(these, empty.whole, now.whole),
        ),
        drained=bool(hosts.all()),
    )


def _where(sight: Sight, row: int, *, gang: Gang) -> str:
    """The switch of the gang's level above a host, or what stands for it where none is told."""
    fleet = sight.fleet
    if gang.level == "site":
        site = fleet.walls.all[fleet.wall[row]].site
        return f"at site {site}" if site else "at its site"
    known = [fleet.spine[row]] if gang.level == "spine" else []
    known += [fleet.leaf[row]] if gang.level != "host" else []
    named = [fleet.switches.all[number] for number in known if number != NONE]
    return f"under {named[0]}" if named else f"on {fleet.names[row]}"


def _administration(sight: Sight, gang: Gang) -> Iterator[Change]:
    there = sight.fleet.present[: sight.size]
    cordoned, silent = int((there & ~sight.schedulable).sum()), int((there & ~sight.reachable).sum())
    if cordoned:
        text = f"an administrator can uncordon hosts ({cordoned} are cordoned)"
        yield Change(text, gang, replace(sight, schedulable=sight.everyone))
    if silent:
        text = f"an administrator can bring hosts back ({silent} are not reachable)"
        yield Change(text, gang, replace(sight, reachable=sight.everyone))


def _least(low: int, high: int, *, made: Callable[[int], Change]) -> Change | None:
    """The change of the least count from ``low`` to ``high`` that fits: what fits, fits in any larger count."""
    if low > high or not made(high).fits():
        return None
    while low < high:
        middle = (low + high) // 2
        if made(middle).fits():
            high = middle
        else:
            low = middle + 1
    return made(low)


def _first(sight: Sight, made: Callable[[int], Change]) -> Change | None:
    """Of fewer devices the most with which it fits: NVLink partitions come in sizes, and of three there may be none."""
    most = min(sight.request.device_count - 1, int(sight.usable_count.max(initial=0)))
    return next((change for change in map(made, range(most, 0, -1)) if change.fits()), None)


def _largest(high: int, made: Callable[[int], Change]) -> Change | None:
    """The change of the largest count from 1 to ``high`` that fits: what fits, fits in any smaller count."""
    if high < 1 or not made(1).fits():
        return None
    low = 1
    while low < high:
        middle = (low + high + 1) // 2
        if made(middle).fits():
            low = middle
        else:
            high = middle - 1
    return made(low)
