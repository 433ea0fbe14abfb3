"""How many requests have their tokens in time, and what that costs, by who decides of replicas.

The product's policy, Knative's and one by queue length over the same requests and the same model of replicas
(`bessemer simulate inference`). Traces are of Azure and Mooncake (`--data DIR` with `azure_llm/` and `mooncake/`);
without them requests are drawn. Knative's target and that of the queue are the defaults, and also swept: the best of
Knative is the cheapest by which 95 of 100 requests have their tokens in time, found with the trace known beforehand,
which nobody who runs it has.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from _common import Figure, Options, figure, program
from _requests import chat
from bessemer.drivers.process.crew import reckon
from bessemer.kinds.inference.replay import PRESETS, Asked, Case, Replayed, figures, read, replay, thickened
from bessemer.kinds.inference.replay.peers import Fixed, Knative, Waiting
from bessemer.kinds.inference.scaling import Means, Policy, Scale, Scaler, ScaleTarget

ATTAINED = 95.0
SHARES = (0.05, 0.08, 0.12, 0.2)
"""Of its slots that Knative is to keep busy; 0.7 is its default."""
FIXED = (3, 6, 8, 10, 30)


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


@dataclass(frozen=True, slots=True)
class Task:
    """One policy over one load; ``given`` is its target."""

    asked: Sequence[Asked]
    case: Case
    policy: str
    given: float = 0.0


@dataclass(frozen=True, slots=True)
class Came:
    """What one came to."""

    policy: str
    given: float
    attained: float
    hours: float
    p95_ms: float


async def measure(options: Options) -> list[Figure]:
    """Each load under each policy."""
    rows: list[Figure] = []
    for load in LOADS[:1] if options.quick else LOADS if options.data else LOADS[:2]:
        asked = await asyncio.to_thread(_asked, load, options.data, quick=options.quick)
        rows += _rows(load.title if options.data else "drawn conversations, 70B", await _came(load, asked, options))
    return rows


def _asked(load: Load, data: str, *, quick: bool) -> Sequence[Asked]:
    if not data:
        return chat(seconds=900 if quick else 3000, a_second=10)
    path = Path(data) / load.file
    with path.open(encoding="utf-8", newline="") as lines:
        return thickened(read(lines, file=str(path)), load.times)


async def _came(load: Load, asked: Sequence[Asked], options: Options) -> list[Came]:
    speed = replace(PRESETS[load.preset], start_seconds=load.start_seconds)
    target = ScaleTarget(ttft_ms=load.ttft_ms, inter_token_ms=load.inter_token_ms)
    case = Case(speed, Scale(min=1, max=100, target=target), load.first)
    tasks = [Task(asked, case, "slo"), Task(asked, case, "knative", 0.7), Task(asked, case, "waiting", 5.0)]
    shares = SHARES[::2] if options.quick else SHARES
    tasks += [Task(asked, case, "knative swept", share) for share in shares]
    tasks += [Task(asked, case, "waiting swept", each) for each in ((1.0,) if options.quick else (0.2, 1.0))]
    tasks += [Task(asked, case, "fixed", float(count)) for count in (FIXED[::2] if options.quick else FIXED)]
    return list(await asyncio.to_thread(reckon, run, tasks, hands=len(os.sched_getaffinity(0)), told=lambda _: None))


def run(task: Task, told: Callable[[float], None]) -> Came:
    """Replay it, in whichever process."""
    found = figures(Replayed(task.policy, replay(task.asked, _policy(task), case=task.case), task.case))
    told(1.0)
    p95 = found["ttft_ms"]["p95"]
    return Came(task.policy, task.given, found["attained_percent"], found["device_hours"], p95 or float("inf"))


def _policy(task: Task) -> Policy:
    case, given = task.case, task.given
    name = task.policy.split()[0]
    if name == "slo":
        return Scaler(case.scale, Means(case.speed.slots, case.speed.start_seconds))
    if name == "knative":
        return Knative(case, target=given * case.speed.slots)
    if name == "waiting":
        return Waiting(case, target=given)
    return Fixed(replace(case, scale=Scale(min=1, max=int(given))))


def _rows(title: str, came: Sequence[Came]) -> list[Figure]:
    by_name = {one.policy: one for one in came if one.policy in ("slo", "knative", "waiting")}
    own, rows = by_name["slo"], []
    for name in ("knative", "waiting"):
        peer = by_name[name]
        there = (name, f"{peer.attained:.1f} % for {peer.hours:.1f} h")
        rows.append(figure(f"{title}: within the target", own.attained, "%", peer=there))
    rows.append(figure(f"{title}: GPU-hours", own.hours, "h"))
    rows.append(figure(f"{title}: first token, p95", own.p95_ms, "ms", peer=("knative", by_name["knative"].p95_ms)))
    for name in ("knative swept", "waiting swept", "fixed"):
        some = [one for one in came if one.policy == name]
        enough = [one for one in some if one.attained >= min(ATTAINED, own.attained)]
        best = min(enough, key=lambda one: one.hours) if enough else max(some, key=lambda one: one.attained)
        words = f"{best.attained:.1f} % for {best.hours:.1f} h at {best.given:g}"
        rows.append(figure(f"{title}: within the target", own.attained, "%", peer=(f"{name}, best", words)))
    return rows


if __name__ == "__main__":
    program(measure, about=__doc__.splitlines()[0], data="a folder with azure_llm/ and mooncake/")
