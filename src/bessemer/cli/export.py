"""tenant export: a whole tenant as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bessemer.cli.connection import run
from bessemer.core.errors import Invalid

if TYPE_CHECKING:
    from bessemer.cli.work.export import Export
    from bessemer.client import Client


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    tenants = typer.Typer(help="Whole tenants.", no_args_is_help=True, rich_markup_mode=None)
    tenants.callback()(_tenants)
    tenants.command("export")(export)
    app.add_typer(tenants, name="tenant")


def _tenants() -> None:
    """Whole tenants."""


def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(show_default=False)],
    *,
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)],
    renamed: Annotated[str, typer.Option("--as", help="Under another name.", show_default=False)] = "",
) -> None:
    """Write a tenant, its projects and all in them to a folder, to be applied elsewhere. No secret is in it.

    Example: `bessemer tenant export acme acme/` · `bessemer tenant export acme copy/ --as acme-two`
    """
    if "--" in renamed:
        raise Invalid("a tenant's name has no -- in it: that parts tenant and project")

    async def work(client: Client) -> Export:
        from bessemer.cli.work.export import collected

        return await collected(client, name, name=renamed or name)

    from bessemer.cli.work.export import write

    found = run(context, work)
    write(found, folder)
    typer.echo(f"{len(found.files)} objects of tenant {name} written to {folder}")
    for what in found.anew:
        typer.echo(f"To be set anew: {what}", err=True)
