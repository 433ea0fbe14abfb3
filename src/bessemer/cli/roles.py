"""role list, grant, revoke, who-can: what roles there are, who holds them, and what follows from that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bessemer.cli.connection import ProjectOption, run
from bessemer.cli.output import OutputOption, listed, shown
from bessemer.core.errors import Invalid

if TYPE_CHECKING:
    from bessemer.cli.work.roles import Where
    from bessemer.client import Client

RoleArgument = Annotated[str, typer.Argument(help="A built-in role, or the name of a Role.", show_default=False)]
WhoArgument = Annotated[
    str, typer.Argument(help="A user, or Group:NAME, or ApplicationCredential:NAME.", show_default=False)
]
TenantOption = Annotated[str, typer.Option("--tenant", help="In a whole tenant.", show_default=False)]
ObjectOption = Annotated[
    str, typer.Option("--on", help="Upon one object, as KIND/NAME, of the project.", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    roles = typer.Typer(help="Who may what.", no_args_is_help=True, rich_markup_mode=None)
    roles.command("list")(list_roles)
    roles.command("grant")(grant)
    roles.command("revoke")(revoke)
    roles.command("who-can")(who_can)
    app.add_typer(roles, name="role")


def list_roles(context: typer.Context, output: OutputOption = "table") -> None:
    """The built-in roles, and the Roles that you may see. Example: `bessemer role list`"""

    async def work(client: Client) -> str:
        from bessemer.cli.work import roles

        found = await roles.known(client)
        return shown(listed(found.custom), output, text=lambda within: roles.described(found, within=within))

    typer.echo(run(context, work))


def grant(
    context: typer.Context,
    role: RoleArgument,
    *,
    who: WhoArgument,
    project: ProjectOption = "",
    tenant: TenantOption = "",
    on: ObjectOption = "",
) -> None:
    """Let somebody hold a role: everywhere, in a tenant, in a project, or upon one object.

    Example: `bessemer role grant member ada -n acme--lab`, `bessemer role grant reader Group:corp:audit --tenant acme`
    """
    where = _where(project, tenant=tenant, on=on)

    async def work(client: Client) -> str:
        from bessemer.cli.work import roles

        return await roles.grant(client, role, who=who, where=where)

    typer.echo(run(context, work))


def revoke(
    context: typer.Context,
    role: RoleArgument,
    *,
    who: WhoArgument,
    project: ProjectOption = "",
    tenant: TenantOption = "",
    on: ObjectOption = "",
) -> None:
    """Take a role from somebody where it was granted. Example: `bessemer role revoke member ada -n acme--lab`"""
    where = _where(project, tenant=tenant, on=on)

    async def work(client: Client) -> str:
        from bessemer.cli.work import roles

        return await roles.revoke(client, role, who=who, where=where)

    typer.echo(run(context, work))


def who_can(
    context: typer.Context,
    verb: Annotated[str, typer.Argument(help="get, list, watch, create, update, patch or delete.", show_default=False)],
    *,
    what: Annotated[str, typer.Argument(help="KIND, or KIND/PART as instance/log.", show_default=False)],
    name: Annotated[str, typer.Argument(help="One object.", show_default=False)] = "",
    project: ProjectOption = "",
    output: OutputOption = "table",
) -> None:
    """Who may do that, and by what, as far as you may see it.

    Example: `bessemer role who-can delete instances -n acme--lab`, `bessemer role who-can get instance/log vm`
    """

    async def work(client: Client) -> str:
        from bessemer.cli.work import roles

        rows = await roles.who_can(client, verb, what=what, name=name, project=project)
        return shown(rows, output, text=lambda within: roles.table(rows, within=within))

    typer.echo(run(context, work))


def _where(project: str, *, tenant: str, on: str) -> Where:
    from bessemer.cli.work.roles import Where

    if tenant and project:
        raise Invalid("say --tenant for a whole tenant, or -n for one project of it, not both")
    return Where(tenant=tenant, project=project, on=on)
