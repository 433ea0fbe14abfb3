"""``bessemer simulate``: reads a trace, replays it once for each seed with the code that places in earnest, and says
what became of it. Seeds are replayed in processes of their own beside each other; Ctrl-C ends them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bessemer.cli.verbs import (
    ChurnOptions,
    Document,
    FillOptions,
    FleetOptions,
    InferenceOptions,
    SimulateOptions,
    Told,
)
from bessemer.core.errors import Invalid
from bessemer.drivers.process.crew import reckon
from bessemer.main.rehearse import allowance, rehearse
from bessemer.main.scaled import scaled
from bessemer.placement.replay import Churned, Count, Filled, Trace, openb, spread
from bessemer.placement.replay.desk import OWN, known
from bessemer.placement.replay.figures import together
from bessemer.placement.replay.jobs import ChurnJob, FillJob, replay_churn, replay_fill

Read = TypeVar("Read")


def simulate(options: SimulateOptions, told: Told) -> Document:
    """What a trace came to, over all seeds. Raises Invalid for files, policies and figures that make no sense."""
    if isinstance(options, FleetOptions):
        return rehearse(options, told)
    if isinstance(options, InferenceOptions):
        return scaled(options, told)
    policy = known(options.policy or OWN)
    trace = Trace(
        hosts=tuple(_read(options.nodes, "--nodes", read=openb.read_hosts)),
        requests=tuple(_read(options.pods, "--pods", read=openb.read_requests)),
    )
    if not trace.devices:
        raise Invalid(f"{options.nodes}: no host has a device; there is nothing to fill")
    about = {
        "policy": policy,
        "seeds": options.seeds,
        "first_seed": options.first_seed,
        "trace": {"hosts": len(trace.hosts), "devices": trace.devices, "requests": len(trace.requests)},
    }
    if isinstance(options, FillOptions):
        return about | filled_figures(_filled(trace, options, told=told), inflate=options.inflate)
    return about | churned_figures(_churned(trace, options, told=told), load=options.load)


def _filled(trace: Trace, options: FillOptions, *, told: Told) -> Sequence[Filled]:
    policy, ratio, moves = known(options.policy or OWN), options.inflate, allowance(options)
    jobs = [FillJob(trace=trace, seed=seed, policy=policy, ratio=ratio, moves=moves) for seed in _seeds(options)]
    return reckon(replay_fill, jobs, hands=_hands(options), told=told)


def _churned(trace: Trace, options: ChurnOptions, *, told: Told) -> Sequence[Churned]:
    first = ChurnJob(
        trace=trace,
        seed=options.first_seed,
        policy=known(options.policy or OWN),
        load=options.load,
        stays=(options.warm_up, options.stays),
        moves=allowance(options),
    )
    jobs = [replace(first, seed=seed) for seed in _seeds(options)]
    return reckon(replay_churn, jobs, hands=_hands(options), told=told)


def _seeds(options: FillOptions | ChurnOptions) -> Sequence[int]:
    return range(options.first_seed, options.first_seed + options.seeds)


def _hands(options: FillOptions | ChurnOptions) -> int:
    return options.processes or len(os.sched_getaffinity(0))


def _read(path: Path, option: str, *, read: Callable[..., list[Read]]) -> list[Read]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return read(lines, file=str(path))
    except (FileNotFoundError, IsADirectoryError):
        raise Invalid(f"{option} {path}: there is no such file; name a CSV file of the openb form") from None
    except UnicodeDecodeError:
        raise Invalid(f"{option} {path}: this is no text; name a CSV file of the openb form") from None


# --- figures ------------------------------------------------------------------------------------------------------


def filled_figures(replays: Sequence[Filled], *, inflate: float) -> dict[str, Any]:
    """The means over replays of one trace."""
    firsts = [replay.first_refusal for replay in replays if replay.first_refusal is not None]
    levels = [
        {"arrived_percent": _rounded(100 * level)} | _percent("allocation_percent", (r.levels[level] for r in replays))
        for level in replays[0].levels
    ]
    full = next((row for row in levels if row["arrived_percent"] == 100), {})
    return {
        "inflate": inflate,
        **_percent("allocation_percent", (replay.allocated for replay in replays)),
        "allocation_percent_at_100": full.get("allocation_percent"),
        "allocation_percent_at_100_deviation": full.get("allocation_percent_deviation"),
        **_figure("unallocated_gpus", (replay.unallocated_milli / 1000 for replay in replays)),
        **_figure("useless_gpus", (replay.useless_milli / 1000 for replay in replays)),
        "first_refusal_percent": _rounded(100 * spread(firsts).mean) if firsts else None,
        "levels": levels,
        **_counted(replays),
    }


def churned_figures(replays: Sequence[Churned], *, load: float) -> dict[str, Any]:
    """The means over replays of one trace."""
    return {
        "load": load,
        **_percent("allocation_percent", (replay.allocated for replay in replays)),
        **_percent("blocked_percent", (replay.blocked for replay in replays)),
        **_figure("useless_gpus", (replay.useless_milli / 1000 for replay in replays)),
        **_counted(replays),
    }


def _counted(replays: Sequence[Filled] | Sequence[Churned]) -> dict[str, Any]:
    """Who came, who was refused, and what was moved, of all replays together."""
    counts = together(replay.counts for replay in replays)
    moves, came = sum(replay.moves for replay in replays), sum(count.came for count in counts.values())
    return {
        "blocked": [{"devices": size, **_count(count)} for size, count in counts.items()],
        "moves": moves,
        "moves_per_100_arrivals": _rounded(100 * moves / max(1, came)),
    }


def _count(count: Count) -> dict[str, Any]:
    return {
        "came": count.came,
        "refused": count.refused,
        "refused_percent": _rounded(100 * count.refused / max(1, count.came)),
        "came_gpus": _rounded(count.came_milli / 1000),
        "refused_gpus": _rounded(count.refused_milli / 1000),
    }


def _percent(name: str, shares: Iterable[float]) -> dict[str, float]:
    return _figure(name, (100 * share for share in shares))


def _figure(name: str, values: Iterable[float]) -> dict[str, float]:
    found = spread(values)
    return {name: _rounded(found.mean), f"{name}_deviation": _rounded(found.deviation)}


def _rounded(value: float) -> float:
    return round(value, 4)
