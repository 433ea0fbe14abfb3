"""simulate inference: what becomes of the requests of a trace where an endpoint scales by a policy. ``main`` replays,
this shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bessemer.cli import rehearse
from bessemer.cli.output import OutputOption
from bessemer.cli.render import columns
from bessemer.cli.verbs import Document, InferenceOptions, Verbs

_SPEED = {"min": 1e-9, "max": 1e9, "show_default": False}
TraceOption = Annotated[
    Path,
    typer.Option(
        "--trace", help="Requests: CSV of TIMESTAMP,ContextTokens,GeneratedTokens (Azure), or Mooncake's JSON lines."
    ),
]
PoliciesOption = Annotated[
    list[str] | None,
    typer.Option("--policy", help="Who decides: slo (the product's own), knative, waiting, fixed.", show_default=False),
]
TimesOption = Annotated[int, typer.Option(min=1, max=1000, help="So many times as many requests as came.")]
FirstOption = Annotated[int, typer.Option(min=0, max=10_000, help="Replicas that are there when it begins.")]
LeastOption = Annotated[int, typer.Option("--min", min=1, max=10_000, help="Fewest replicas.")]
MostOption = Annotated[int, typer.Option("--max", min=1, max=10_000, help="Most replicas.")]
TtftOption = Annotated[int, typer.Option(min=1, max=600_000, help="Target: milliseconds to the first token.")]
PaceOption = Annotated[
    int, typer.Option(min=1, max=60_000, help="Target: milliseconds from token to token, mean of an answer.")
]
ModelOption = Annotated[str, typer.Option(help="A replica whose speeds are known: 8b (one H100) or 70b (four).")]
ReadingOption = Annotated[
    float | None, typer.Option("--prefill-tokens-per-second", help="Of a replica, from a vetting.", **_SPEED)
]
AloneOption = Annotated[
    float | None, typer.Option("--step-ms", help="Milliseconds from token to token of one that is alone.", **_SPEED)
]
BatchOption = Annotated[
    float | None, typer.Option("--step-ms-per-request", help="Milliseconds more for each that runs.", **_SPEED)
]
SlotsOption = Annotated[int | None, typer.Option(min=1, max=100_000, help="Requests at a time.", show_default=False)]
StartOption = Annotated[
    float | None, typer.Option("--start-seconds", min=0.0, max=1e6, help="Until it answers.", show_default=False)
]
DevicesOption = Annotated[int | None, typer.Option(min=1, max=4096, help="Devices of it.", show_default=False)]
SeedOption = Annotated[int, typer.Option(min=0, max=1 << 32, help="Of --times: when those beside the first come.")]


def add(group: typer.Typer, verbs: Verbs) -> None:
    """Put the command into ``simulate``."""

    @group.command("inference")
    def inference(
        trace: TraceOption,
        *,
        policy: PoliciesOption = None,
        times: TimesOption = 1,
        first: FirstOption = 1,
        least: LeastOption = 1,
        most: MostOption = 100,
        ttft_ms: TtftOption = 1000,
        inter_token_ms: PaceOption = 40,
        model: ModelOption = "70b",
        reading: ReadingOption = None,
        alone: AloneOption = None,
        batch: BatchOption = None,
        slots: SlotsOption = None,
        start_seconds: StartOption = None,
        devices: DevicesOption = None,
        seed: SeedOption = 42,
        plot: rehearse.PlotOption = None,
        output: OutputOption = "table",
        as_json: rehearse.JsonOption = False,
    ) -> None:
        """Replay the requests of a trace over an endpoint that scales, by the product's policy and by others.

        Examples: `bessemer simulate inference --trace AzureLLMInferenceTrace_conv.csv --times 4 --first 8` ·
        `bessemer simulate inference --trace trace.jsonl --policy slo --start-seconds 30 --plot scaled.html`
        """
        said = {
            "reading": reading,
            "alone": alone and alone / 1000,
            "batch": batch and batch / 1000,
            "slots": slots,
            "start_seconds": start_seconds,
            "devices": devices,
        }
        options = InferenceOptions(
            trace=trace,
            policies=tuple(policy or ()),
            times=times,
            first=first,
            least=least,
            most=most,
            ttft_ms=ttft_ms,
            inter_token_ms=inter_token_ms,
            model=model,
            speeds={name: float(value) for name, value in said.items() if value is not None},
            seed=seed,
        )
        rehearse.replayed(verbs, options, output="json" if as_json else output, show=shown, plot=plot)


def shown(found: Document, *, within: int = 0) -> str:
    """What was replayed over what, and what became of it by each policy: for a person."""
    trace, target, replica = found["trace"], found["target"], found["replica"]
    first = f"first token in {target['ttft_ms']} ms"
    head = [
        f"{trace['requests']:,} requests in {trace['hours']:g} hours; target: {first}, "
        f"next ones every {target['inter_token_ms']} ms",
        f"A replica reads {replica['reading']:,.0f} tokens a second, writes one in {1000 * replica['alone']:.1f} ms, "
        f"and {1000 * replica['batch']:.3f} more for each of {replica['slots']} requests, starts in "
        f"{replica['start_seconds']:g} s, has {replica['devices']} devices: {replica['source']}",
    ]
    names = ["POLICY", "WITHIN TARGET", "FIRST", "NEXT", "DEVICE-HOURS", "TTFT P50", "P95", "P99", "SCALED", "MOST"]
    table = columns(names, [_row(one) for one in found["replays"]], within=within)
    return "\n\n".join(["\n".join(head), table])


def _row(one: Mapping[str, Any]) -> list[str]:
    shares = [f"{one[name]:.2f} %" for name in _SHARES]
    ttft = [_time(one["ttft_ms"][name]) for name in ("p50", "p95", "p99")]
    hours = f"{one['device_hours']:.2f}"
    return [one["policy"], *shares, hours, *ttft, str(one["scaled"]), str(one["replicas_most"])]


_SHARES = ("attained_percent", "attained_ttft_percent", "attained_inter_token_percent")


def _time(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "never"
    return f"{milliseconds:.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.1f} s"
