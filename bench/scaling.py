"""How many requests have their tokens in time, and what that costs, by who decides of replicas.

The product's policy as it is, and beside it over the same requests and the same model of replicas (`bessemer simulate
inference`): Knative's, over shares of slots and windows; one by queue length as Kubernetes' HPA reckons, over
thresholds; a fixed number, over numbers. Of these each has the best of its settings, found with the trace known
beforehand, which nobody who runs it has; *default* is without. *Foreseen* knows what will come, and is no policy but
about how much could be had. Traces are of Azure and Mooncake, an hour each (`--data DIR` with `azure_llm/` and
`mooncake/`); without them requests are drawn.

GPU-hours are of all replicas while they start, too. The product's constants were chosen on these traces: there are
few, and each serves all of them.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from _common import Figure, Options, figure, program
from _foreseen import Foreseen, needs
from _requests import chat
from bessemer.drivers.process.crew import reckon
from bessemer.kinds.inference.replay import PRESETS, Asked, Case, Replayed, figures, read, replay, thickened
from bessemer.kinds.inference.replay.peers import UTILISATION, WAITING_TARGET, Fixed, Knative, Waiting
from bessemer.kinds.inference.scaling import Means, Policy, Scale, Scaler, ScaleTarget

SHARES, WINDOWS = (0.03, 0.05, 0.08, 0.12, 0.2, 0.35), (30.0, 60.0, 300.0)
"""Of its slots that Knative is to keep busy, and seconds of its stable window; 0.7 and 60 are its defaults."""
THRESHOLDS = (0.05, 0.2, 1.0, 20.0)
"""Requests that wait, for each replica; 5 is the default."""
FIXED = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 20, 24, 30)
USED, CAPS = (0.4, 0.55, 0.7, 0.85), (0.8, 0.95, 1.0)
"""Of what a replica can do, and of the work of all spans, for which there are enough: of what is foreseen."""
OWN, PEERS = "slo", ("knative", "queue length", "fixed", "foreseen")


@dataclass(frozen=True, slots=True)
class Load:
    """A trace, as many times as it came, and what is to hold."""

    title: str
    file: str
    times: int
    ttft_ms: int
    inter_token_ms: int
    first: int
    preset: str = "70b"
    start_seconds: float = 90.0


LOADS = (
    Load("Azure conversations × 4, 70B", "azure_llm/AzureLLMInferenceTrace_conv.csv", 4, 1000, 40, 8),
    Load("the same, starts of 30 s", "azure_llm/AzureLLMInferenceTrace_conv.csv", 4, 1000, 40, 8, "70b", 30.0),
    Load("Azure conversations, 70B", "azure_llm/AzureLLMInferenceTrace_conv.csv", 1, 1000, 40, 2),
    Load("Azure conversations × 4, 8B", "azure_llm/AzureLLMInferenceTrace_conv.csv", 4, 500, 20, 2, "8b", 45.0),
    Load("Azure code × 4, 70B", "azure_llm/AzureLLMInferenceTrace_code.csv", 4, 2000, 40, 8),
    Load("Mooncake conversations × 2, 70B", "mooncake/conversation_trace.jsonl", 2, 5000, 60, 8),
)
DRAWN = Load("drawn conversations, 70B", "", 1, 1000, 40, 2)


@dataclass(frozen=True, slots=True)
class Task:
    """One policy over one load, with one setting after the other; an empty one is its default."""

    load: Load
    data: str
    seconds: float
    policy: str
    settings: Sequence[tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Came:
    """What one came to."""

    policy: str
    given: tuple[float, ...]
    attained: float
    hours: float

    @property
    def setting(self) -> str:
        """In words; "" of a default."""
        if not self.given:
            return ""
        form = {"knative": "{:g} of slots, {:g} s", "queue length": "{:g} wait", "fixed": "{:g}"}
        return form.get(self.policy, "{:g} used, {:g} of work").format(*self.given)


async def measure(options: Options) -> list[Figure]:
    """Each load under each policy, in as many processes as there are cores."""
    loads = LOADS[: 1 if options.quick else None] if options.data else (DRAWN,)
    tasks = [task for load in loads for task in _tasks(load, options)]
    hands = len(os.sched_getaffinity(0))
    came = await asyncio.to_thread(reckon, run, tasks, hands=hands, told=lambda _: None)
    rows: list[Figure] = []
    for load in loads:
        some = [one for task, ones in zip(tasks, came, strict=True) if task.load == load for one in ones]
        rows += _rows(load.title, some)
    return rows


def _tasks(load: Load, options: Options) -> Iterator[Task]:
    step = 2 if options.quick else 1
    seconds = 900.0 if options.quick else 3000.0
    settings: dict[str, list[tuple[float, ...]]] = {
        OWN: [()],
        "knative": [(), *((share, window) for share in SHARES[::step] for window in WINDOWS[::step])],
        "queue length": [(), *((each,) for each in THRESHOLDS[::step])],
        "fixed": [(float(count),) for count in FIXED[::step]],
        "foreseen": [(used, cap) for used in USED[::step] for cap in CAPS],
    }
    for policy, given in settings.items():
        yield Task(load, options.data, seconds, policy, given)


def run(task: Task, told: Callable[[float], None]) -> list[Came]:
    """Replay them, in whichever process."""
    asked, came = _asked(task), []
    for given in task.settings:
        case = case_of(task.load)
        policy = _policy(task.policy, given, asked=asked, case=case)
        if task.policy == "fixed":
            case = replace(case, first=int(given[0]))
        found = figures(Replayed(task.policy, replay(asked, policy, case=case), case))
        came.append(Came(task.policy, given, found["attained_percent"], found["device_hours"]))
    told(1.0)
    return came


def case_of(load: Load) -> Case:
    speed = replace(PRESETS[load.preset], start_seconds=load.start_seconds)
    target = ScaleTarget(ttft_ms=load.ttft_ms, inter_token_ms=load.inter_token_ms)
    return Case(speed, Scale(min=1, max=100, target=target), load.first)


def _asked(task: Task) -> Sequence[Asked]:
    if not task.data:
        return chat(seconds=task.seconds, a_second=10)
    path = Path(task.data) / task.load.file
    with path.open(encoding="utf-8", newline="") as lines:
        return thickened(read(lines, file=str(path)), task.load.times)


def _policy(name: str, given: tuple[float, ...], *, asked: Sequence[Asked], case: Case) -> Policy:
    if name == OWN:
        return Scaler(case.scale, Means(case.speed.slots, case.speed.start_seconds))
    if name == "knative":
        share, window = given or (UTILISATION, 60.0)
        return Knative(case, target=share * case.speed.slots, stable=window)
    if name == "queue length":
        return Waiting(case, target=given[0] if given else WAITING_TARGET)
    if name == "fixed":
        return Fixed(replace(case, scale=Scale(min=1, max=int(given[0]))))
    used, cap = given
    needed = needs(asked, case)
    return Foreseen(needed, case, used=used, most=_enough(needed, share=cap, used=used))


def _enough(needed: Sequence[float], *, share: float, used: float) -> int:
    """Replicas that are enough for that share of the work."""
    below = share * sum(needed) - 1e-9
    for need in sorted(needed):
        below -= need
        if below <= 0:
            return max(1, math.ceil(need / used))
    return max(1, math.ceil(max(needed) / used))


def _rows(title: str, came: Sequence[Came]) -> Iterator[Figure]:
    own = next(one for one in came if one.policy == OWN)
    yield figure(f"{title}: within the target", own.attained, "%")
    yield figure(f"{title}: GPU-hours", own.hours, "h")
    for policy in ("knative", "queue length"):
        one = next(one for one in came if one.policy == policy and not one.given)
        words = f"{one.attained:.1f} % for {one.hours:.1f} h"
        yield figure(f"{title}: within the target", own.attained, "%", peer=(f"{policy}, default", words))
    for policy in PEERS:
        some = [one for one in came if one.policy == policy]
        enough = [one for one in some if one.attained >= own.attained]
        if enough:
            best = min(enough, key=lambda one: one.hours)
            words = f"{best.hours:.1f} h: {best.setting}"
        else:
            best = max(some, key=lambda one: one.attained)
            words = f"none: {best.attained:.1f} % for {best.hours:.1f} h at most"
        yield figure(f"{title}: GPU-hours for as much", own.hours, "h", peer=(f"{policy}, best of {len(some)}", words))
    for policy in (OWN, *PEERS):
        for one in frontier([one for one in came if one.policy == policy]):
            setting = f", {one.setting}" if one.setting else ""
            there = ("GPU-hours", round(one.hours, 2))
            yield figure(f"{title}; {policy}{setting}", one.attained, "%", peer=there)


def frontier(came: Sequence[Came]) -> list[Came]:
    """Those than which none attains as much for less, by what they cost."""
    found: list[Came] = []
    for one in sorted(came, key=lambda one: (one.hours, -one.attained)):
        if not found or one.attained > found[-1].attained:
            found.append(one)
    return found


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0], data="a folder with azure_llm/ and mooncake/")
