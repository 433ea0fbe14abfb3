"""user, key, host, login, whoami: people, keys and machines that may come in."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from bessemer.cli import render
from bessemer.cli.connection import run, target
from bessemer.cli.consolidate import drain
from bessemer.cli.keys import keys
from bessemer.core.cordons import cordoned
from bessemer.core.errors import Invalid
from bessemer.core.tokens import judged_password

if TYPE_CHECKING:
    from bessemer.client import Client
    from bessemer.core.resource import Key

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
NameArgument = Annotated[str, typer.Argument(show_default=False)]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    app.add_typer(_users(), name="user")
    app.add_typer(keys(), name="key")
    app.add_typer(_hosts(), name="host")
    app.command("whoami")(whoami)


def _key(kind: str, name: str, *, project: str = "") -> Key:
    from bessemer.core.resource import Key

    return Key(kind, project, name)


def _users() -> typer.Typer:
    app = typer.Typer(help="People who sign in.", no_args_is_help=True, rich_markup_mode=None)

    @app.command("add")
    def add_user(
        context: typer.Context,
        name: NameArgument,
        *,
        admin: Annotated[bool, typer.Option("--admin", help="Of the whole platform.")] = False,
        display: Annotated[str, typer.Option("--display-name")] = "",
    ) -> None:
        """Create a user and ask for a password. Example: `bessemer user add ada`"""
        password = _new_password()

        async def work(client: Client) -> None:
            from bessemer.client import an_object

            await client.create(an_object(_key("User", name), {"admin": admin, "displayName": display}))
            await client.account.set_password(name, password)

        run(context, work)
        typer.echo(f"user/{name} created")

    @app.command("password")
    def password(context: typer.Context, name: NameArgument) -> None:
        """Set a password. Example: `bessemer user password ada`"""
        secret = _new_password()
        run(context, lambda client: client.account.set_password(name, secret))
        typer.echo(f"user/{name} has a new password")

    @app.command("link")
    def link(context: typer.Context, name: NameArgument) -> None:
        """A link that signs in once. Example: `bessemer user link ada`"""
        url, _ = run(context, lambda client: client.account.sign_in_link(name))
        typer.echo(url)

    @app.command("disable")
    def disable(context: typer.Context, name: NameArgument) -> None:
        """Shut a user out at once. Example: `bessemer user disable ada`"""
        run(context, lambda client: client.patch(_key("User", name), {"spec": {"disabled": True}}))
        typer.echo(f"user/{name} disabled")

    return app


def _new_password() -> str:
    """Raises Invalid for one that no server would take, before anything is made for it."""
    if not sys.stdin.isatty():
        return judged_password(sys.stdin.readline().rstrip("\n"))
    first = judged_password(getpass.getpass("Password: "))
    if first != getpass.getpass("Again: "):
        raise Invalid("the two are not the same")
    return first


def _hosts() -> typer.Typer:
    app = typer.Typer(help="Machines of the fleet.", no_args_is_help=True, rich_markup_mode=None)

    @app.command("enrol")
    def enrol(
        context: typer.Context,
        name: NameArgument,
        *,
        ca: Annotated[
            Path | None, typer.Option("--ca", help="Write the server's authority there, to be taken along.")
        ] = None,
    ) -> None:
        """Create a host and print the command that joins it. Example: `bessemer host enrol gpu-07 --ca ca.crt`"""
        from bessemer.client import an_object, read_kubeconfig

        server = read_kubeconfig(target(context).kubeconfig)

        async def work(client: Client) -> str:
            await client.create(an_object(_key("Host", name), {}))
            return await client.account.host_token(name)

        token = run(context, work)
        if ca is not None:
            ca.write_bytes(server.ca or b"")
        file = ca.name if ca else "ca.crt"
        typer.echo(f"bessemer agent --name {name} --server {server.url} --ca {file} --token {token}")
        taken = "" if ca else " (--ca writes it)"
        typer.echo(f"Run this on {name}, once; {file} there is the server's authority{taken}.", err=True)
        if urlsplit(server.url).hostname in _LOOPBACK:
            typer.echo("The server listens on its own machine alone: only a host on it can join.", err=True)

    def patcher(word: str, body: dict[str, Any], *, said: str, text: str) -> None:
        @app.command(word, help=text)
        def patch(context: typer.Context, name: NameArgument) -> None:
            run(context, lambda client: client.patch(_key("Host", name), body))
            typer.echo(f"host/{name} {said}")

    patcher("cordon", cordoned(shut=True), said="cordoned", text="Nothing new lands here; what runs goes on.")
    patcher("uncordon", cordoned(shut=False), said="open", text="Let things land here again.")
    app.command("drain")(drain)
    patcher(
        "fence",
        {"spec": {"fenced": True}},
        said="fenced",
        text="Your word that nothing runs there any more: its claims are released.",
    )
    patcher(
        "revoke", {"spec": {"revoked": True}}, said="revoked", text="The agent's certificate is worth nothing from now."
    )
    return app


def whoami(context: typer.Context) -> None:
    """Who the server takes you for, and your roles. Example: `bessemer whoami`"""
    me = run(context, lambda client: client.account.whoami())
    typer.echo(f"{me.name}{' (administrator of the platform)' if me.admin else ''}")
    rows = [[tenant, role] for tenant, role in me.tenants.items()]
    if rows:
        typer.echo(render.columns(["TENANT", "ROLE"], rows))
    if me.projects:
        typer.echo("Projects: " + ", ".join(me.projects))
