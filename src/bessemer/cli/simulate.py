"""simulate openb, churn and what `rehearse` adds: what a fleet makes of requests that came elsewhere. ``main`` replays,
this shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bessemer.cli import rehearse, scaled
from bessemer.cli.output import OutputOption
from bessemer.cli.render import columns
from bessemer.cli.verbs import ChurnOptions, Document, FillOptions, Verbs
from bessemer.core.errors import Invalid

NodesOption = Annotated[Path, typer.Option(help="Node list: sn,cpu_milli,memory_mib,gpu,model.", show_default=False)]
PodsOption = Annotated[
    Path,
    typer.Option(help="Pod list: name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec.", show_default=False),
]
PolicyOption = Annotated[
    str, typer.Option(help="Who decides: LPG (the product's own), FGD, BestFit …", show_default=False)
]
SeedsOption = Annotated[int, typer.Option(min=1, max=1000, help="How often, each time with other arrivals.")]
FirstSeedOption = Annotated[int, typer.Option(min=0, max=1 << 32, help="The first; the others follow it.")]
ProcessesOption = Annotated[
    int, typer.Option(min=0, max=1024, help="Seeds at a time; 0: one on each core.", show_default=False)
]
MovesOption = Annotated[
    float, typer.Option(min=0.0, max=100.0, help="Moves for a hundred requests that came, to make room for others.")
]
AtOnceOption = Annotated[int, typer.Option(min=1, max=62, help="Moves for one request at most.")]
GainOption = Annotated[float, typer.Option(min=0.0, max=256.0, help="Devices that each move lets in at least.")]
SavedOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=1_000_000,
        help="Keep so many for a rush, of the warm-up too; --moves-gain is halved while many are left.",
        show_default=False,
    ),
]
AnyAtOnceOption = Annotated[
    int | None,
    typer.Option(min=1, max=62, help="Moves for one request at most: 1; with --churn 8.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One object, as -o json.")]


def add(app: typer.Typer, verbs: Verbs) -> None:
    """Put the commands into the tree."""
    group = typer.Typer(help="Replay requests over a fleet.", no_args_is_help=True, rich_markup_mode=None)
    _fill(group, verbs)
    _churn(group, verbs)
    rehearse.add(group, verbs)
    scaled.add(group, verbs)
    app.add_typer(group, name="simulate")


def _fill(group: typer.Typer, verbs: Verbs) -> None:
    @group.command("openb")
    def openb(
        nodes: NodesOption,
        pods: PodsOption,
        *,
        inflate: Annotated[
            float, typer.Option(min=0.01, max=10.0, help="Until requests want so many times what there is.")
        ] = 1.3,
        churn: Annotated[
            float | None,
            typer.Option(min=0.01, max=10.0, help="Let them come and leave at this load.", show_default=False),
        ] = None,
        seeds: SeedsOption = 10,
        first_seed: FirstSeedOption = 42,
        policy: PolicyOption = "",
        processes: ProcessesOption = 0,
        moves_per_hundred: MovesOption = 0.0,
        moves_at_once: AnyAtOnceOption = None,
        moves_gain: GainOption = 0.0,
        moves_saved: SavedOption = None,
        plot: rehearse.PlotOption = None,
        output: OutputOption = "table",
        as_json: JsonOption = False,
    ) -> None:
        """Fill a fleet with the requests of a trace, in the order of each seed: all of them, then any of them again.
        With --churn they come and leave in place of that, as with `simulate churn`.

        Examples: `bessemer simulate openb --nodes nodes.csv --pods pods.csv` ·
        `bessemer simulate openb --nodes nodes.csv --pods pods.csv --inflate 1.3 --seeds 10 --policy fgd --json` ·
        `bessemer simulate openb --nodes nodes.csv --pods pods.csv --churn 0.95 --json`
        """
        said: dict[str, Any] = {
            "nodes": nodes,
            "pods": pods,
            "policy": policy,
            "seeds": seeds,
            "first_seed": first_seed,
            "processes": processes,
            "moves_per_hundred": moves_per_hundred,
            "moves_gain": moves_gain,
        } | ({} if moves_at_once is None else {"moves_at_once": moves_at_once})
        if churn is None and moves_saved is not None:
            raise Invalid("--moves-saved: moves are saved for a rush where requests come and leave: say --churn too")
        options = (
            FillOptions(**said, inflate=inflate)
            if churn is None
            else ChurnOptions(**said, load=churn, moves_saved=moves_saved)
        )
        rehearse.replayed(verbs, options, output="json" if as_json else output, show=shown, plot=plot)


def _churn(group: typer.Typer, verbs: Verbs) -> None:
    @group.command("churn")
    def churn(
        nodes: NodesOption,
        pods: PodsOption,
        *,
        load: Annotated[
            float, typer.Option(min=0.01, max=10.0, help="What requests want at a time, of all that there is.")
        ] = 0.95,
        warm_up: Annotated[float, typer.Option(min=0.0, max=100.0, help="Mean stays before anything counts.")] = 3.0,
        stays: Annotated[float, typer.Option(min=0.1, max=1000.0, help="Mean stays that count.")] = 5.0,
        seeds: SeedsOption = 10,
        first_seed: FirstSeedOption = 42,
        policy: PolicyOption = "",
        processes: ProcessesOption = 0,
        moves_per_hundred: MovesOption = 0.0,
        moves_at_once: AtOnceOption = 8,
        moves_gain: GainOption = 0.0,
        moves_saved: SavedOption = None,
        plot: rehearse.PlotOption = None,
        output: OutputOption = "table",
        as_json: JsonOption = False,
    ) -> None:
        """Let the requests of a trace come and leave at random; one that is refused does not come back.

        Examples: `bessemer simulate churn --nodes nodes.csv --pods pods.csv --load 0.95 --seeds 4` ·
        `bessemer simulate churn --nodes nodes.csv --pods pods.csv --moves-per-hundred 0.5`
        """
        options = ChurnOptions(
            nodes=nodes,
            pods=pods,
            policy=policy,
            seeds=seeds,
            first_seed=first_seed,
            processes=processes,
            load=load,
            warm_up=warm_up,
            stays=stays,
            moves_per_hundred=moves_per_hundred,
            moves_at_once=moves_at_once,
            moves_gain=moves_gain,
            moves_saved=moves_saved,
        )
        rehearse.replayed(verbs, options, output="json" if as_json else output, show=shown, plot=plot)


# --- tables -------------------------------------------------------------------------------------------------------


def shown(found: Document, *, within: int = 0) -> str:
    """What was replayed, what became of it, and who was refused: for a person."""
    parts = [_about(found)]
    if "levels" in found:
        rows = [[_percent(row["arrived_percent"], 0), *_spread(row, "allocation_percent")] for row in found["levels"]]
        wide = 3 if found["seeds"] > 1 else 2  # one seed has no deviation
        parts.append(columns(["ARRIVED", "ALLOCATED", "±"][:wide], [row[:wide] for row in rows], within=within))
    rows = [
        [_size(row["devices"]), f"{row['came']:,}", f"{row['refused']:,}", _percent(row["refused_percent"], 2)]
        for row in found["blocked"]
    ]
    parts.append(columns(["REQUESTS FOR", "CAME", "REFUSED", "OF THEM"], rows, within=within))
    parts.append(_end(found))
    return "\n\n".join(parts)


def _about(found: Document) -> str:
    trace = found["trace"]
    seeds = f"{found['seeds']} seed{'s' if found['seeds'] != 1 else ''} from {found['first_seed']}"
    sizes = f"{trace['hosts']:,} hosts, {trace['devices']:,} devices, {trace['requests']:,} requests"
    return f"{sizes}; policy {found['policy']}, {seeds}"


def _end(found: Document) -> str:
    def mean(name: str, unit: str = " %") -> str:
        return " ± ".join(_spread(found, name, unit=unit)[: 2 if found["seeds"] > 1 else 1])

    lines = [("allocated", mean("allocation_percent"))]
    if "unallocated_gpus" in found:
        lines.append(("unallocated", f"{mean('unallocated_gpus', '')} devices"))
        first = found["first_refusal_percent"]
        lines.append(("first refused", "none" if first is None else f"when {first:.2f} % had arrived"))
    lines.append(("of no use", f"{mean('useless_gpus', '')} devices, free at the end"))
    if "blocked_percent" in found:
        lines.append(("blocked", f"{mean('blocked_percent')} of the devices wanted"))
    rate = found["moves_per_100_arrivals"]
    lines.append(("moves", f"{found['moves']:,}" + (f", {rate:.2f} for a hundred requests" if rate else "")))
    return "\n".join(f"{name:<15}{text}" for name, text in lines)


def _spread(row: Mapping[str, Any], name: str, *, unit: str = " %") -> list[str]:
    return [f"{row[name]:.2f}{unit}", f"{row[f'{name}_deviation']:.2f}"]


def _percent(value: float, digits: int) -> str:
    return f"{value:.{digits}f} %"


def _size(size: str) -> str:
    words = {"cores": "cores alone", "share": "a share of a device", "1": "1 device"}
    return words.get(size, f"{size} devices")
