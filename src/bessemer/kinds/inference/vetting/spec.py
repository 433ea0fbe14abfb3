"""Vetting: a Model that really runs on a flavor, is asked what it should be able to do, and measured under load.

It holds one Claim, as a replica of an Endpoint does, and lets it go when it has measured: what it found stays in its
status. Invariants: what it says was measured on that host by that engine, with what the engine counted; what it is made
of never changes, another is another Vetting; it serves nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from bessemer.core.asking import Toleration
from bessemer.core.errors import Cause
from bessemer.core.inference import Vetted
from bessemer.core.resource import ApiModel, Resource, keyed_by, values_apart
from bessemer.core.values import nothing
from bessemer.drivers.engine.protocol import Task
from bessemer.kinds.fields import Name, Names, duplicates, label_problems, unchangeable
from bessemer.kinds.inference.endpoint.spec import SORTS, EndpointIntent, EngineChoice
from bessemer.kinds.inference.vetting.report import Check, Point, TokenPrices
from bessemer.kinds.turns import Turned, WaitingStatus

QUANTILES_MAX = 101
RATES_MAX = 32

ShapeName = Literal["chat", "code", "long"]
CheckName = Literal[
    "answers",
    "template",
    "deterministic",
    "length",
    "tools",
    "schema",
    "stop",
    "dimension",
    "similarity",
    "batch",
]
Lengths = Annotated[list[Annotated[int, Field(ge=1, le=1 << 22)]], Field(max_length=QUANTILES_MAX)]
Rate = Annotated[float, Field(gt=0, le=10_000)]


class Target(ApiModel):
    """How fast it must be for 95 of 100 requests."""

    ttft_ms: int | None = Field(None, ge=1, le=600_000, description="Milliseconds to the first token, at most.")
    inter_token_ms: int | None = Field(None, ge=1, le=60_000, description="Milliseconds between two tokens, at most.")
    end_ms: int | None = Field(
        None, ge=1, le=3_600_000, exclude_if=nothing, description="Milliseconds to the end of an answer, at most."
    )


class Load(ApiModel):
    """What it is asked under load. Requests come at random times, whether or not others were answered."""

    shape: ShapeName = Field("chat", description="Lengths of prompts and answers: chat, code or long.")
    input_tokens: Lengths = Field(
        default_factory=list,
        exclude_if=nothing,
        description="Lengths of prompts in place of the shape's: quantiles at equal steps, from the least to the most.",
    )
    output_tokens: Lengths = Field(
        default_factory=list,
        exclude_if=nothing,
        description="Lengths of answers in place of the shape's, the same way.",
    )
    shared_percent: int = Field(
        0, ge=0, le=99, description="The part of a prompt that others have begun with before, and may be cached."
    )
    rates: list[Rate] = Field(
        default_factory=list,
        max_length=RATES_MAX,
        exclude_if=nothing,
        description="Requests a second, one after the other; found where not given.",
    )
    seconds: int = Field(30, ge=1, le=600, description="How long each rate lasts.")


class VettingSpec(Turned):
    model: Annotated[Name, Names("Model")] = Field(description="Name of the Model.")
    flavor: Annotated[Name, Names("Flavor")] = Field(description="Name of the Flavor that it is measured on.")
    task: Task = Field(
        "generate",
        exclude_if=lambda said: said == "generate",
        description="What it is measured for: generate, or embed.",
    )
    engine: EngineChoice = Field(
        default_factory=EngineChoice,
        exclude_if=lambda said: said == EngineChoice(),
        description="Which engine, and what it is told; as an Endpoint says it.",
    )
    slots: int = Field(4, ge=1, le=256, description="Requests that it answers at the same time.")
    context_tokens: int = Field(2048, ge=64, le=1 << 22, description="Context of one slot.")
    target: Target = Field(
        default_factory=Target,
        description="How fast it must be; where it does not say, the most throughput counts, whatever the times.",
    )
    load: Load = Field(default_factory=Load, description="What it is asked.")
    target_load_percent: int = Field(
        70, ge=1, le=100, description="Of the load that it bears, the part that prices count on."
    )
    margin_percent: int = Field(20, ge=0, le=10_000, description="What prices earn beyond what the claim costs.")
    may_fail: list[CheckName] = Field(
        default_factory=list,
        max_length=16,
        exclude_if=nothing,
        description="Checks that it need not pass: of tools where its template knows none.",
        json_schema_extra=values_apart(),
    )
    deadline_minutes: int = Field(60, ge=1, le=1440, description="How long its claim may stand.")
    tolerations: list[Toleration] = Field(
        default_factory=list,
        max_length=64,
        description="Taints of hosts that it bears.",
        json_schema_extra=keyed_by("key"),
    )


VettingPhase = Literal["Pending", "Starting", "Measuring", "Releasing", "Succeeded", "Failed", "Unknown", "Terminating"]

ENDED = ("Succeeded", "Failed")


class VettingStatus(WaitingStatus):
    phase: VettingPhase = Field("Pending", description="Where it is in its life, in one word.")
    claim: str = Field("", description="Name of its Claim.")
    host: str = Field("", description="The host that it runs on.")
    fake: bool = Field(False, description="Whether that host is fake: then nothing of it is real.")
    progress_percent: int = Field(0, description="How far it is.")
    estimate_bytes: int = Field(0, description="Memory that it should take, by what the model's files say.")
    memory_bytes: int = Field(0, description="The most that its engine had.")
    checks: list[Check] = Field(
        default_factory=list, description="What it was asked, and what was seen.", json_schema_extra=keyed_by("name")
    )
    points: list[Point] = Field(default_factory=list, description="What was measured at each rate.")
    prices: TokenPrices | None = Field(None, description="What its tokens must cost, by the project's plan.")
    vetted: Vetted | None = Field(None, description="What came of it, in short.")
    trouble: str = Field("", description="Why it failed, in one CamelCase word; empty where it did not.")
    finished_at: str | None = Field(None, description="When it had measured, or was given up.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


class Vetting(Resource[VettingSpec, VettingStatus]):
    KIND = "Vetting"

    status: VettingStatus = Field(default_factory=VettingStatus)


class PlanIntent(ApiModel):
    """What the host side asks an engine: lengths as quantiles, and how it is judged."""

    seed: str
    inputs: list[int]
    outputs: list[int]
    shared_percent: int
    rates: list[float] = Field(default_factory=list, exclude_if=nothing)
    seconds: int
    ttft_ms: int | None = None
    inter_token_ms: int | None = None
    end_ms: int | None = Field(None, exclude_if=nothing)


class VettingIntent(EndpointIntent):
    """A replica's, with what it is asked once it answers; frozen."""

    plan: PlanIntent

    def replica(self) -> EndpointIntent:
        """What its engine is started with."""
        return EndpointIntent.model_validate({name: value for name, value in self.dump().items() if name != "plan"})


_WHY = "what was measured is of what it was; make another vetting"


def validate(new: Vetting, old: Vetting | None) -> Sequence[Cause]:
    """It is made once, of what an Endpoint could be made of."""
    spec = new.spec
    causes = [*duplicates("spec.tolerations", [t.key for t in spec.tolerations], field="key")]
    causes += [*engine_problems(spec.engine), *duplicates("spec.mayFail", spec.may_fail)]
    for name, lengths in (("inputTokens", spec.load.input_tokens), ("outputTokens", spec.load.output_tokens)):
        if len(lengths) == 1 or lengths != sorted(lengths):
            causes.append(Cause(f"spec.load.{name}", "are quantiles: two or more, none less than the one before"))
    causes += _of_embedding(spec) if spec.task == "embed" else ()
    if sorted(set(spec.load.rates)) != spec.load.rates:
        causes.append(Cause("spec.load.rates", "must rise"))
    if old is None:
        return [*label_problems(new.metadata.name), *causes]
    was, wanted = old.spec.dump(), spec.dump()
    for field in sorted(was.keys() | wanted.keys()):
        causes += unchangeable(f"spec.{field}", new=wanted.get(field), old=was.get(field), why=_WHY)
    return causes


def _of_embedding(spec: VettingSpec) -> Iterator[Cause]:
    """A vector comes whole, of a text of its own."""
    whole = "a vector comes whole, and no tokens after it: say spec.target.endMs"
    for name, said in (("ttftMs", spec.target.ttft_ms), ("interTokenMs", spec.target.inter_token_ms)):
        if said is not None:
            yield Cause(f"spec.target.{name}", whole)
    if spec.load.output_tokens:
        yield Cause("spec.load.outputTokens", "what embeds writes nothing")
    if spec.load.shared_percent:
        yield Cause("spec.load.sharedPercent", "what embeds reads every text anew")


def engine_problems(choice: EngineChoice) -> Sequence[Cause]:
    """What the engine would not take, by the argument."""
    sort = next((sort for sort in SORTS if sort.name == choice.name), None)
    if sort is None:
        words = "an engine must be named, for arguments are of one alone"
        return [Cause("spec.engine.name", words)] if choice.arguments else []
    return [Cause(f"spec.engine.arguments.{name}", words) for name, words in sort.wrong(choice.arguments)]
