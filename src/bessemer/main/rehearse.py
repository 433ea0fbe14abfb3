"""``bessemer simulate fleet`` and ``history``: cases beside each other, each a fleet and a policy, over the same stays.

For each seed the load is drawn once and comes to every case; of a history there is one, and seeds are orders of hosts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import yaml

from bessemer.cli.verbs import ChurnOptions, Document, FillOptions, FleetOptions, Told, Waits
from bessemer.core.errors import Invalid
from bessemer.drivers.process.crew import reckon
from bessemer.kinds.fleet.figures import shape_words
from bessemer.placement.replay.beyond import beyond
from bessemer.placement.replay.described import (
    DescribedFleet,
    HistoryLine,
    Load,
    drawn,
    read_fleet,
    read_history,
    stays_of,
)
from bessemer.placement.replay.desk import OWN, known, seat
from bessemer.placement.replay.figures import Count, spread, together
from bessemer.placement.replay.lines import Passing, Queued
from bessemer.placement.replay.moving import Allowance
from bessemer.placement.replay.run import Desk
from bessemer.placement.replay.stays import Line, Lived, Stay, Window, live
from bessemer.placement.shape import Shape

Read = TypeVar("Read")

FILE_BYTES = 1 << 30
WAITS = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("most", 100.0))
LEARNED_MAX = 10_000
"""Stays from which a policy learns what is asked for."""


_LINES: Mapping[str, Callable[[Desk], Line]] = MappingProxyType({"passing": Passing, "queued": Queued})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is told apart."""

    policy: str
    fleet: DescribedFleet
    more: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """One case with one seed."""

    case: Case
    seed: int
    stays: tuple[Stay, ...]
    window: Window
    waits: Waits
    moves: Allowance | None = None


def rehearse(options: FleetOptions, told: Told) -> Document:
    """Every case over every seed. Raises Invalid for files, groups and policies that make no sense."""
    fleet = _read(options.fleet, lambda text: read_fleet(_yaml(text, options.fleet), file=str(options.fleet)))
    history = None
    if options.history is not None:
        path = options.history
        history = _read(path, lambda text: read_history(text.splitlines(), file=str(path)))
    cases = list(_cases(fleet, options))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    loads = {seed: _load(fleet, options, history=history, seed=seed) for seed in seeds}
    moves = allowance(options)
    tasks = [
        Rehearsal(case=case, seed=seed, stays=tuple(stays), window=window, waits=options.waits, moves=moves)
        for case in cases
        for seed, (stays, window) in loads.items()
    ]
    done = reckon(rehearsed, tasks, hands=options.processes or len(os.sched_getaffinity(0)), told=told)
    each = len(seeds)
    about = {"seeds": each, "first_seed": options.first_seed, "currency": fleet.currency}
    source = {"history": str(options.history), "claims": len(history)} if history else {"load": options.churn}
    figures = [_figures(tasks[n : n + each], done[n : n + each]) for n in range(0, len(tasks), each)]
    return {**about, **source, "hours": round(tasks[0].window.end - tasks[0].window.start, 4), "cases": figures}


def rehearsed(task: Rehearsal, told: Told) -> Lived:
    """Do it, in whichever process."""
    hosts = [replace(host, name=f"{host.name}.{task.seed}") for host in task.case.fleet.hosts()]
    learned = [stay.request for stay in task.stays[:LEARNED_MAX]]
    dice = np.random.default_rng((task.seed, 1))
    desk = seat(hosts, policy=task.case.policy, learned=learned, dice=dice, moves=task.moves)
    capacity = 1000 * _devices(task.case.fleet)
    line = _LINES[task.waits](desk) if task.waits != "lost" else None
    return live(desk, task.stays, window=task.window, capacity_milli=capacity, line=line, told=told)


def allowance(options: FillOptions | ChurnOptions | FleetOptions) -> Allowance | None:
    """What may be moved; None: nothing. Raises Invalid for how moves are to be spent where none are."""
    saved = options.moves_saved if isinstance(options, ChurnOptions) else None
    if not options.moves_per_hundred:
        if options.moves_gain or saved is not None:
            raise Invalid("nothing is moved: say --moves-per-hundred too, for --moves-gain and --moves-saved to count")
        return None
    return Allowance(
        per_hundred=options.moves_per_hundred, at_once=options.moves_at_once, gain=options.moves_gain, saved=saved
    )


def _cases(fleet: DescribedFleet, options: FleetOptions) -> list[Case]:
    policies = [known(policy) for policy in options.policies] or [OWN]
    fleets = [(fleet, dict[str, int]())]
    if options.more:
        fleets.append((fleet.with_more(dict(options.more)), dict(options.more)))
    for one, _ in fleets:
        if not _devices(one):
            raise Invalid(f"{options.fleet}: no host has a device; there is nothing to fill")
    return [Case(policy=policy, fleet=one, more=more) for policy in policies for one, more in fleets]


def _load(
    fleet: DescribedFleet, options: FleetOptions, *, history: Sequence[HistoryLine] | None, seed: int
) -> tuple[list[Stay], Window]:
    """The load is that of the fleet as it is, in the other cases too: so more hosts are more room."""
    if history is not None:
        stays, hours = stays_of(history)
        return stays, Window(start=0.0, end=max(hours, 1 / 60))
    if not fleet.asks:
        raise Invalid(f"{options.fleet}: asks says nothing: name what is asked for, or give --history")
    load = Load(share=options.churn, hours=options.warm_up + options.hours)
    stays = drawn(fleet.asks, 1000 * _devices(fleet), load=load, dice=np.random.default_rng(seed))
    return stays, Window(start=options.warm_up, end=options.warm_up + options.hours)


def _devices(fleet: DescribedFleet) -> int:
    return sum(group.count * group.devices for group in fleet.groups)


def _yaml(text: str, path: Path) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Invalid(f"{path}: this is no YAML: {' '.join(str(error).split())}") from error


def _read(path: Path, read: Callable[[str], Read]) -> Read:
    try:
        if path.stat().st_size > FILE_BYTES:
            raise Invalid(f"{path} has more than {FILE_BYTES >> 20} MiB")
        return read(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise Invalid(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise Invalid(f"{path}: this is no text") from None


# --- figures ------------------------------------------------------------------------------------------------------


def _figures(tasks: Sequence[Rehearsal], done: Sequence[Lived]) -> dict[str, Any]:
    """The means over seeds of one case."""
    task, case = tasks[0], tasks[0].case
    devices, hours = _devices(case.fleet), task.window.end - task.window.start
    counts = together(one.counts for one in done)
    came = [sum(count.came for count in one.counts.values()) for one in done]
    earned = [
        sum(h * case.fleet.prices.get(model, 0.0) for model, h in one.device_hours.items()) / hours for one in done
    ]
    worth = sum(group.count * group.devices * group.price for group in case.fleet.groups)
    return {
        "policy": case.policy,
        "more": dict(case.more),
        "hosts": sum(group.count for group in case.fleet.groups),
        "devices": devices,
        **_mean("allocation_percent", [100 * one.allocated for one in done]),
        **_mean("useless_percent", [100 * _useless(one) / (1000 * devices) for one in done]),
        **_mean("blocked_percent", [100 * _blocked(one.counts) for one in done]),
        "came": sum(came),
        "began": sum(len(one.waits) for one in done),
        "waited": sum(one.waited for one in done),
        **_mean("waited_percent", [100 * one.waited / max(1, len(one.waits)) for one in done]),
        **_mean("mean_wait_hours", [sum(one.waits) / max(1, one.waited) for one in done]),
        "wait_hours": _waits([hours for one in done for hours in one.waits]),
        **_mean("earned_per_hour", earned),
        "worth_per_hour": round(worth, 4),
        "blocked": [{"devices": size, **_count(count)} for size, count in counts.items()],
        "beyond": _beyond(case.fleet, tasks),
        "moves": sum(one.moves for one in done),
        "moves_per_100_arrivals": round(100 * sum(one.moves for one in done) / max(1, sum(came)), 4),
        "series": _series(done, devices),
    }


def _beyond(fleet: DescribedFleet, tasks: Sequence[Rehearsal]) -> list[dict[str, Any]]:
    """What came that no host could ever hold, the most frequent first."""
    came = Counter(
        Shape.of(stay.request)
        for task in tasks
        for stay in task.stays
        if task.window.start <= stay.comes <= task.window.end
    )
    why = beyond(fleet, (stay.request for task in tasks for stay in task.stays))
    found = [{"wanted": shape_words(shape), "came": came[shape], "why": why[shape]} for shape in why]
    return sorted(found, key=lambda row: (-int(row["came"]), str(row["wanted"])))


def _waits(hours: Sequence[float]) -> dict[str, float]:
    """Of everybody who began: how long the half waited at most, and so on; of all seeds together."""
    found = np.percentile(hours, [p for _, p in WAITS]) if hours else np.zeros(len(WAITS))
    return {name: round(float(value), 4) for (name, _), value in zip(WAITS, found, strict=True)}


def _useless(one: Lived) -> float:
    return float(np.mean([sample.useless_milli for sample in one.samples])) if one.samples else 0.0


def _blocked(counts: Mapping[str, Count]) -> float:
    """The share of devices that were wanted and never given."""
    came = sum(count.came_milli for count in counts.values())
    return sum(count.refused_milli for count in counts.values()) / max(1, came)


def _count(count: Count) -> dict[str, Any]:
    return {"came": count.came, "refused": count.refused}


def _mean(name: str, values: Sequence[float]) -> dict[str, float]:
    found = spread(values)
    return {name: round(found.mean, 4), f"{name}_deviation": round(found.deviation, 4)}


def _series(done: Sequence[Lived], devices: int) -> dict[str, list[float]]:
    """The fleet over time, in the mean over seeds."""
    looks = list(zip(*(one.samples for one in done), strict=True))
    return {
        "hours": [round(look[0].at, 4) for look in looks],
        "allocation_percent": [_over([s.held_milli / 10 / devices for s in look]) for look in looks],
        "useless_percent": [_over([s.useless_milli / 10 / devices for s in look]) for look in looks],
        "waiting": [_over([float(s.waiting) for s in look]) for look in looks],
    }


def _over(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
