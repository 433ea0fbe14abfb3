"""``spec.scale`` of an Endpoint, and what its status says of it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.resource import ApiModel
from bessemer.core.values import nothing

BUSY_SHARE = 0.7
"""Of the slots, where no target is said: Knative's target utilisation."""

CACHE_SHARE = 0.8
"""Of the caches of keys and values: above it engines soon put requests off that they had begun."""

IDLE_SECONDS, WAKE_SECONDS = 300, 120


class ScaleTarget(ApiModel):
    """What is to hold for 95 of 100 requests."""

    ttft_ms: int | None = Field(
        None, ge=1, le=600_000, description="Milliseconds to the first token; 95 of 100 are to have it by then."
    )
    inter_token_ms: int | None = Field(
        None, ge=1, le=60_000, description="Milliseconds from token to token, mean of an answer; of 95 of 100 answers."
    )
    busy_share: float | None = Field(
        None, gt=0.0, le=1.0, description="Share of the slots that are to be busy, where no time is said: 0.7."
    )

    cache_share: float | None = Field(
        None,
        ge=0.5,
        le=1.0,
        exclude_if=nothing,
        description="How full the engines' caches of keys and values may be, where they say it, besides: 0.8.",
    )

    @property
    def timed(self) -> bool:
        return self.ttft_ms is not None or self.inter_token_ms is not None


class Scale(ApiModel):
    """How many replicas, by what is asked of them."""

    min: int = Field(1, ge=0, le=10_000, description="Fewest; 0 lets it sleep until somebody asks.")
    max: int = Field(ge=1, le=10_000, description="Most.")
    target: ScaleTarget = Field(
        default_factory=ScaleTarget,
        exclude_if=lambda said: said == ScaleTarget(),
        description="What is to hold: times for the first and the next tokens, or a share of busy slots.",
    )
    idle_seconds: int = Field(
        IDLE_SECONDS,
        ge=10,
        le=86_400,
        exclude_if=lambda said: said == IDLE_SECONDS,
        description="Without a request, until the last replica of one whose min is 0 goes.",
    )
    wake_seconds: int = Field(
        WAKE_SECONDS,
        ge=1,
        le=3600,
        exclude_if=lambda said: said == WAKE_SECONDS,
        description="For which a request is held while a first replica starts.",
    )
    warm: int = Field(
        0,
        ge=0,
        le=1000,
        exclude_if=lambda said: not said,
        description="Replicas more than are wanted by what is asked, so that a rush finds them started; each has a "
        "Claim and is paid for.",
    )


class Scaling(ApiModel):
    """What was decided last."""

    wanted: int = Field(description="Replicas that are wanted by what is asked of them.")
    since: str = Field(description="When that was decided.")
    why: str = Field(description="Why, in words.")
    reported: str = Field("", exclude_if=lambda said: not said, description="What lacks of gateways' reports, if any.")


def scale_problems(scale: Scale | None) -> Iterator[Cause]:
    """What contradicts itself."""
    if scale is None:
        return
    if scale.min > scale.max:
        yield Cause("spec.scale.min", "must not be more than spec.scale.max")
    if scale.warm and not scale.min:
        yield Cause("spec.scale.warm", "says nothing where spec.scale.min is 0: what is warm does not sleep")
    elif scale.min + scale.warm > scale.max and scale.warm:
        yield Cause("spec.scale.warm", "with spec.scale.min it must not be more than spec.scale.max")
    if scale.target.timed and scale.target.busy_share is not None:
        yield Cause("spec.scale.target.busyShare", "must not be said beside times: these decide")
