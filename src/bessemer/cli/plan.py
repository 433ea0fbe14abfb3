"""plan: where what files declare would go, why there, what it costs and what is in the way. Nothing is created."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli.connection import ProjectOption, require_within, run
from bessemer.cli.manifests import read_all
from bessemer.cli.output import OutputOption, listed, shown
from bessemer.core.errors import Invalid

if TYPE_CHECKING:
    from bessemer.client import Client

NO_ROOM = 3
"""How it ends where something does not fit."""

FilesOption = Annotated[
    list[Path], typer.Option("--file", "-f", help="YAML or JSON file, folder of them, or - for standard input.")
]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.command("plan")(plan)


def plan(
    context: typer.Context, file: FilesOption, *, project: ProjectOption = "", output: OutputOption = "table"
) -> None:
    """Say where instances, endpoints and jobs would go, and why; at which price, and from when. Nothing is created or
    held.

    Of several each is planned as if those before it stood; of one that exists, as if it were made anew. Ends with 3
    where something does not fit.

    Examples: `bessemer plan -f vm.yaml -n acme--lab` · `bessemer plan -f lab/ -n acme--lab -o json`
    """
    found = read_all(file)
    require_within(context, found, project=project)

    async def work(client: Client) -> list[dict[str, Any]]:
        from bessemer.cli.work import plans

        items, passed = plans.items_of(found, project=project)
        if not items:
            raise Invalid(f"nothing of this is placed on hosts: plan is of {', '.join(sorted(plans.PLANNED))}")
        if passed:
            typer.echo(f"Not placed on hosts, and passed over: {', '.join(passed)}.", err=True)
        return await plans.planned(client, items)

    told = run(context, work)

    def text(within: int) -> str:
        from bessemer.cli.work import plans

        return "\n\n".join(plans.text(one, within=within) for one in told)

    typer.echo(shown(told[0] if len(told) == 1 else listed(told), output, text=text))
    if not all(one["status"]["fits"] for one in told):
        raise typer.Exit(NO_ROOM)
