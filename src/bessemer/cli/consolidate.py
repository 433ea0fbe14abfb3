"""consolidate: have few claims moved, so that places of a flavor are open, or hosts are empty; the plan first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli.connection import run
from bessemer.cli.output import DOCUMENTS, OutputOption, shown
from bessemer.core.errors import Invalid

if TYPE_CHECKING:
    from bessemer.client import Client

MOVES_MAX = 64


def add(app: typer.Typer) -> None:
    """Put the command into the tree."""
    app.command("consolidate")(consolidate)


def consolidate(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="One that is there already; or what a new one is called.")
    ] = "",
    *,
    flavor: Annotated[str, typer.Option("--open", metavar="FLAVOR", help="Have places of this flavor open.")] = "",
    count: Annotated[
        int, typer.Option("--count", min=1, help="How many places, or with --cheapest how many hosts.")
    ] = 1,
    empty: Annotated[
        list[str] | None, typer.Option("--empty", metavar="HOST", help="Have this host empty; again for more.")
    ] = None,
    cheapest: Annotated[bool, typer.Option("--cheapest", help="Have those hosts empty that cost least.")] = False,
    moves: Annotated[int, typer.Option("--max-moves", min=0, max=MOVES_MAX, help="Claims that may be moved.")] = 8,
    tolerate: Annotated[
        list[str] | None, typer.Option("--tolerate", metavar="TAINT", help="Open hosts with this taint, too.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Carry the plan out, and follow it.")] = False,
    output: OutputOption = "table",
) -> None:
    """Plan which claims would be moved for open places or empty hosts, with what it costs. --yes carries it out.

    Without --yes nothing is kept, but for NAME, which was there before. Ctrl-C leaves what is under way to itself.

    Examples: `bessemer consolidate --open gpu-8 --max-moves 5` · `bessemer consolidate --empty host-3 --yes` ·
    `bessemer consolidate --cheapest --count 2` · `bessemer consolidate NAME --yes`
    """
    wanted = _spec(flavor, count=count, hosts=empty or [], cheapest=cheapest, tolerate=tolerate or [])
    if wanted is None and not name:
        raise Invalid("say what for: --open FLAVOR, --empty HOST or --cheapest; or the name of one that is there")
    _consolidate(context, name, spec=None if wanted is None else {**wanted, "maxMoves": moves}, yes=yes, output=output)


def drain(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Carry the plan out, and follow it.")] = False,
    output: OutputOption = "table",
) -> None:
    """Have what runs there go to other hosts, and cordon it: the plan first. --yes carries it out.

    It is `bessemer consolidate --empty NAME`. Where something there may not be moved, it says what, why and what to do,
    and moves nothing.

    Examples: `bessemer host drain host-3` · `bessemer host drain host-3 --yes` · `bessemer host uncordon host-3`
    """
    _consolidate(context, "", spec={"empty": {"hosts": [name]}, "maxMoves": MOVES_MAX}, yes=yes, output=output)


def _consolidate(context: typer.Context, name: str, *, spec: dict[str, Any] | None, yes: bool, output: str) -> None:
    async def work(client: Client) -> dict[str, Any]:
        from bessemer.cli.work import consolidating

        if spec is None:
            return await consolidating.planned(client, name)
        return await (consolidating.made if yes else consolidating.foretold)(client, name=name, spec=spec)

    found = run(context, work)

    def text(within: int) -> str:
        from bessemer.cli.work import consolidating

        return consolidating.text(found, within=within, kept=yes or spec is None, yes=yes)

    if not yes or output not in DOCUMENTS:
        typer.echo(shown(found, output, text=text))
    if yes:
        _carry_out(context, found, output=output)


def _spec(flavor: str, *, count: int, hosts: list[str], cheapest: bool, tolerate: list[str]) -> dict[str, Any] | None:
    """What it is for; None where nothing says. Raises Invalid for more than one thing."""
    if bool(flavor) + bool(hosts) + cheapest > 1:
        raise Invalid("one thing at a time: --open, --empty or --cheapest")
    if flavor:
        return {"open": {"flavor": flavor, "count": count, "tolerations": [{"key": key} for key in tolerate]}}
    if hosts or cheapest:
        return {"empty": {"hosts": hosts} if hosts else {"count": count}}
    return None


def _carry_out(context: typer.Context, found: dict[str, Any], *, output: str) -> None:
    """Approve it, and follow it to its end. Leaves with 1 where it failed."""
    from bessemer.cli.work import consolidating

    name = found["metadata"]["name"]
    try:
        ended = run(context, lambda client: consolidating.followed(client, name))
    except KeyboardInterrupt:
        typer.echo(
            f"\nIt goes on without you: `bessemer why consolidation {name}` shows how far it is, "
            f"`bessemer delete consolidation {name}` ends it after the move that is under way.",
            err=True,
        )
        raise
    message = ended.get("status", {}).get("message", "")
    typer.echo(shown(ended, output, text=lambda _: f"consolidation/{name} {ended['status']['phase']}: {message}"))
    if ended["status"]["phase"] != "Succeeded":
        raise typer.Exit(1)
