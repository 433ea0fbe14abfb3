"""``bessemer simulate inference``: reads a trace of requests and replays it over a model of replicas, once for each
policy, each in a process of its own; the product's is the very code that scales endpoints.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from bessemer.cli.verbs import Document, InferenceOptions, Told
from bessemer.core.errors import Invalid
from bessemer.drivers.process.crew import reckon
from bessemer.kinds.inference.replay import (
    PEERS,
    PRESETS,
    Asked,
    Case,
    Replayed,
    Speed,
    figures,
    read,
    replay,
    thickened,
)
from bessemer.kinds.inference.scaling import Means, Policy, Scale, Scaler, ScaleTarget

OWN = "slo"
"""The product's own."""


@dataclass(frozen=True, slots=True)
class Task:
    """One policy over all of a trace."""

    asked: Sequence[Asked]
    case: Case
    policy: str


def scaled(options: InferenceOptions, told: Told) -> Document:
    """What a trace came to under each policy. Raises Invalid for files, policies and figures that make no sense."""
    policies = [_known(name) for name in options.policies] or [OWN, *PEERS]
    if options.least > options.most:
        raise Invalid(f"--min {options.least} is more than --max {options.most}")
    speed, asked = _speed(options), _read(options)
    target = ScaleTarget(ttft_ms=options.ttft_ms, inter_token_ms=options.inter_token_ms)
    case = Case(speed, Scale(min=options.least, max=options.most, target=target), min(options.first, options.most))
    tasks = [Task(asked, case, policy) for policy in dict.fromkeys(policies)]
    found = reckon(replayed, tasks, hands=len(os.sched_getaffinity(0)), told=told)
    return {
        "trace": {"file": str(options.trace), "requests": len(asked), "hours": round(asked[-1].at / 3600, 3)},
        "times": options.times,
        "target": {"ttft_ms": options.ttft_ms, "inter_token_ms": options.inter_token_ms},
        "replica": {field.name: getattr(speed, field.name) for field in fields(Speed)},
        "replays": found,
    }


def replayed(task: Task, told: Told) -> Mapping[str, Any]:
    """Do it, in whichever process."""
    course = replay(task.asked, policy_of(task.policy, task.case), case=task.case)
    told(1.0)
    return figures(Replayed(task.policy, course, task.case))


def policy_of(name: str, case: Case) -> Policy:
    """One that decides, and has seen nothing."""
    if name == OWN:
        return Scaler(case.scale, Means(case.speed.slots, case.speed.start_seconds))
    return PEERS[name](case)


def _known(name: str) -> str:
    found = name.lower()
    if found != OWN and found not in PEERS:
        raise Invalid(f"--policy {name}: there is none of this name; there are {', '.join([OWN, *PEERS])}")
    return found


def _speed(options: InferenceOptions) -> Speed:
    known = PRESETS.get(options.model)
    if known is None:
        raise Invalid(f"--model {options.model}: its speeds are not known; those of {', '.join(PRESETS)} are")
    if not options.speeds:
        return known
    said: dict[str, Any] = dict(options.speeds)
    for name in ("slots", "devices"):
        if name in said:
            said[name] = int(said[name])
    words = ", ".join(f"{name} {value:g}" for name, value in options.speeds.items())
    rest = len(said) < len(fields(Speed)) - 1
    return replace(known, **said, source=f"as said ({words})" + (f"; the rest: {known.source}" if rest else ""))


def _read(options: InferenceOptions) -> Sequence[Asked]:
    path = options.trace
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            asked = read(lines, file=str(path))
    except (FileNotFoundError, IsADirectoryError):
        raise Invalid(f"--trace {path}: there is no such file; name a trace of Azure's or Mooncake's form") from None
    except PermissionError:
        raise Invalid(f"--trace {path}: it may not be read") from None
    except UnicodeDecodeError:
        raise Invalid(f"--trace {path}: this is no text; name a trace of Azure's or Mooncake's form") from None
    return thickened(asked, options.times, seed=options.seed)
