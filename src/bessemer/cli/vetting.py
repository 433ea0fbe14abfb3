"""model fit, model vet, model price: what a model takes, what it can do, and what its tokens must cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli.connection import ProjectOption, run
from bessemer.cli.output import DOCUMENTS, OutputOption, shown
from bessemer.core.errors import Invalid
from bessemer.drivers.engine.protocol import Task

if TYPE_CHECKING:
    from bessemer.client import Client

ModelArgument = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.", show_default=False)]
OfOption = Annotated[
    str, typer.Option("--project", "-n", help="Of this project; the platform's where not given.", show_default=False)
]
EngineOption = Annotated[str, typer.Option(help="auto, llamacpp or vllm.")]
TaskOption = Annotated[Task, typer.Option(help="What it is for: generate or embed.")]
ArgumentOption = Annotated[
    list[str] | None, typer.Option("--argument", metavar="NAME=VALUE", help="Of the engine; repeat for more.")
]
WAIT_SECONDS = 7200.0


def add(group: typer.Typer) -> None:
    """Put the commands into the group of models."""
    group.command("fit")(fit)
    group.command("vet")(vet)
    group.command("price")(price)


def fit(
    context: typer.Context,
    name: ModelArgument,
    *,
    project: OfOption = "",
    task: TaskOption = "generate",
    engine: EngineOption = "auto",
    argument: ArgumentOption = None,
    output: OutputOption = "table",
) -> None:
    """Estimate on which flavors a model fits, at which context, and how many requests at the same time.

    Examples: `bessemer model fit smollm2-135m` · `bessemer model fit tuned -n acme--lab`
    """
    from bessemer.cli.work import vetting as work

    asked: dict[str, Any] = {"project": project, "engine": engine, "arguments": argument or [], "task": task}
    found = run(context, lambda client: work.fitting(client, name, **asked))
    typer.echo(shown(found, output, text=lambda within: work.fit_text(found, within=within)))


FlavorOption = Annotated[str, typer.Option(help="The flavor that it is measured on.", show_default=False)]
ContextOption = Annotated[int, typer.Option("--context", min=64, help="Context of a slot, in tokens.")]
SlotsOption = Annotated[int, typer.Option(min=1, max=256, help="Requests that it answers at the same time.")]
FirstOption = Annotated[int, typer.Option(min=0, help="Milliseconds to the first token, of 95 % at most.")]
EndOption = Annotated[int, typer.Option(min=0, help="Milliseconds to the end of an answer, of 95 % at most.")]
BetweenOption = Annotated[int, typer.Option(min=0, help="Milliseconds between tokens, of 95 % at most.")]
ShapeOption = Annotated[str, typer.Option(help="What is asked: chat, code or long.")]
TraceOption = Annotated[
    Path | None, typer.Option(help="A trace of Azure's (CSV) or Mooncake's (JSON lines): its lengths are asked.")
]
SharedOption = Annotated[int, typer.Option(min=0, max=99, help="Percent of a prompt that others began with.")]
RateOption = Annotated[list[float] | None, typer.Option(help="Requests a second, rising; again for more.")]
SecondsOption = Annotated[int, typer.Option(min=1, max=600, help="How long each rate lasts.")]
MarginOption = Annotated[int, typer.Option(min=0, help="Percent that prices earn beyond what the claim costs.")]
LoadOption = Annotated[int, typer.Option(min=1, max=100, help="Percent of its load that prices count on.")]
MayFailOption = Annotated[list[str] | None, typer.Option(metavar="CHECK", help="A check that it need not pass.")]
TolerateOption = Annotated[list[str] | None, typer.Option(metavar="TAINT", help="Hosts with this taint, too.")]
PublishOption = Annotated[bool, typer.Option("--publish", help="Have the Model show what is found in this project.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only estimate, as `model fit` does.")]
PlotOption = Annotated[Path | None, typer.Option(help="Write plots to this page (.html).")]


def vet(
    context: typer.Context,
    name: ModelArgument,
    *,
    flavor: FlavorOption = "",
    project: ProjectOption = "",
    called: Annotated[str, typer.Option("--name", help="What to call it; made of both where not given.")] = "",
    task: TaskOption = "generate",
    engine: EngineOption = "auto",
    argument: ArgumentOption = None,
    context_tokens: ContextOption = 2048,
    slots: SlotsOption = 4,
    ttft: FirstOption = 0,
    inter_token: BetweenOption = 0,
    end: EndOption = 0,
    shape: ShapeOption = "chat",
    trace: TraceOption = None,
    shared: SharedOption = 0,
    rate: RateOption = None,
    seconds: SecondsOption = 30,
    margin: MarginOption = 20,
    target_load: LoadOption = 70,
    may_fail: MayFailOption = None,
    tolerate: TolerateOption = None,
    publish: PublishOption = False,
    dry_run: DryRunOption = False,
    plot: PlotOption = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="See it through.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = WAIT_SECONDS,
    output: OutputOption = "table",
) -> None:
    """Run a model on a flavor: see what it can do and how fast, and what its tokens must cost.

    It takes a place in the project while it lasts, which is billed there. Where a check failed it ends with 1.

    Examples: `bessemer model vet smollm2-135m --flavor serve-small -n acme--research` ·
    `bessemer model vet llama --flavor h100.1 -n acme--research --ttft 500 --inter-token 50 --plot llama.html`
    """
    if dry_run:
        fit(context, name, project=project, task=task, engine=engine, argument=argument, output=output)
        return
    if not flavor or not project:
        raise Invalid("say where: --flavor FLAVOR and -n TENANT--PROJECT")
    _vet(context, name, output=output)


def _vet(context: typer.Context, name: str, *, output: str) -> None:
    """Begin it, follow it, show it. Leaves with 1 where it failed."""
    from bessemer.cli import plot as plots
    from bessemer.cli.work import vetting as work

    said: dict[str, Any] = context.params
    flavor, project, place = said["flavor"], said["project"], said["plot"]
    if place is not None:
        plots.require_place(place)
    spec = work.spec_of(said)

    async def go(client: Client) -> dict[str, Any]:
        key = await work.begun(client, said["called"] or work.name_of(name, flavor), project=project, spec=spec)
        if said["publish"]:
            await work.publish(client, name, project=project)
        return await (work.followed(client, key, timeout=said["timeout"]) if said["wait"] else work.read(client, key))

    body = run(context, go)
    if not said["wait"] and output not in DOCUMENTS:
        typer.echo(f"vetting/{body['metadata']['name']} created")
        return
    typer.echo(shown(body, output, text=lambda within: work.text(body, within=within)))
    if place is not None and body.get("status", {}).get("points"):
        title = f"Vetting of {name} on {flavor}"
        plots.write_page(place, title, charts=[*work.charts_of(body)], text=work.text(body))
    if said["wait"] and body.get("status", {}).get("phase") != "Succeeded":
        raise typer.Exit(1)


def price(
    context: typer.Context,
    name: ModelArgument,
    *,
    vetting: Annotated[
        list[str] | None,
        typer.Option(
            "--from-vetting", help="The Vetting; repeat for more: the dearest counts. All, where none is said."
        ),
    ] = None,
    project: ProjectOption = "",
    plan: Annotated[str, typer.Option(help="The PricePlan; that of the project's tenant, where none is said.")] = "",
    called: Annotated[str, typer.Option("--name", help="What the new plan is called.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Make the new plan.")] = False,
    output: OutputOption = "table",
) -> None:
    """Show what a model's tokens must cost, as vettings found it, beside what a plan asks now. With --yes these prices
    are taken: what a plan costs never changes, so into a new one, which is as that plan but for this model. As yaml or
    json the new plan is printed, to be applied.

    Examples: `bessemer model price smollm2-135m -n acme--research` ·
    `bessemer model price smollm2-135m --from-vetting smollm2-small -n acme--research --name list-2026 --yes`
    """
    from bessemer.cli.work import prices as work

    if not project:
        raise Invalid("say whose: -n TENANT--PROJECT")

    async def go(client: Client) -> tuple[work.Priced, str]:
        found = await work.priced(client, name, vettings=vetting or [], project=project, plan=plan)
        return found, await work.take(client, found, called=called) if yes else ""

    found, done = run(context, go)
    typer.echo(shown(found.body(called), output, text=lambda _: found.text()))
    if output not in DOCUMENTS:
        made = found.body(called)["metadata"]["name"]
        typer.echo(f"\n{done or f'Nothing is changed: --yes makes PricePlan {made} of it.'}")
