"""credential: programs that act for a person, within bounds."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli.connection import ProjectOption, find_kind, run, target
from bessemer.cli.output import OutputOption
from bessemer.core.clock import rfc3339
from bessemer.core.errors import Invalid

if TYPE_CHECKING:
    from bessemer.client import Client
    from bessemer.core.resource import Key

DAYS_MAX = 3650
_DAY_SECONDS = 86_400.0
NameArgument = Annotated[str, typer.Argument(show_default=False)]
Texts = list[str] | None
FileOption = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="Write a kubeconfig of it there, in place of printing the token."),
]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    group = typer.Typer(help="Programs that act for you, within bounds.", no_args_is_help=True, rich_markup_mode=None)
    for command in (create, show, rotate, revoke):
        group.command("list" if command is show else command.__name__)(command)
    app.add_typer(group, name="credential")


def _key(name: str, project: str) -> Key:
    from bessemer.core.resource import Key

    if not project:
        raise Invalid("credentials live in a project: -n TENANT--PROJECT")
    return Key("ApplicationCredential", project, name)


def create(
    context: typer.Context,
    name: NameArgument,
    *,
    project: ProjectOption = "",
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float, typer.Option(help="For how long it is good.", min=0.001, max=DAYS_MAX)] = 90,
    reach: Annotated[str, typer.Option(help="Where it acts: project, tenant or owner.")] = "project",
    role: Annotated[Texts, typer.Option(help="At most this role; repeat for more.")] = None,
    verb: Annotated[Texts, typer.Option(help="Only this verb; repeat for more.")] = None,
    kind: Annotated[Texts, typer.Option(help="Only this kind; repeat for more.")] = None,
    only: Annotated[Texts, typer.Option(help="Only objects of this name; repeat for more.")] = None,
    source: Annotated[Texts, typer.Option("--from", help="Only from this network; repeat for more.")] = None,
    unrestricted: Annotated[bool, typer.Option("--unrestricted", help="It may make credentials, keys, users.")] = False,
    kubeconfig: FileOption = None,
) -> None:
    """Create a credential and print its token, once.

    Examples: `bessemer credential create ci -n acme--lab --verb get --verb list --kind instance` ·
    `bessemer credential create gitops -n acme--lab --reach tenant --from 192.0.2.0/24 --kubeconfig gitops.conf`
    """
    key = _key(name, project)
    spec: dict[str, Any] = {
        "description": description,
        "expiresAt": rfc3339(time.time() + days * _DAY_SECONDS),
        "reach": "owner" if unrestricted and reach == "project" else reach,
        "roles": role or [],
        "verbs": verb or [],
        "kinds": [find_kind(word).name for word in kind or ()],
        "names": only or [],
        "networks": source or [],
        "unrestricted": unrestricted,
    }

    async def work(client: Client) -> str:
        from bessemer.client import an_object

        await client.create(an_object(key, spec))
        return await client.account.credential_token(project, name)

    _give(context, run(context, work), key=key, file=kubeconfig)


def show(context: typer.Context, *, project: ProjectOption = "", output: OutputOption = "table") -> None:
    """List credentials, of a project or of all that you may see. Example: `bessemer credential list -n acme--lab`"""
    from bessemer.cli.work import objects as work

    found = find_kind("applicationcredentials")
    scope = work.scope_of(found, project, selector="", names=[])
    bodies = run(context, lambda client: work.list_known(client, scope))
    work.show(found, bodies, output=output, scope=scope, managed=False)


def rotate(
    context: typer.Context,
    name: NameArgument,
    *,
    project: ProjectOption = "",
    overlap: Annotated[
        int | None, typer.Option(help="Seconds for which the token before stays good; 0 after a leak.", min=0)
    ] = None,
    kubeconfig: FileOption = None,
) -> None:
    """Make a new token; the one before is good for a while, as the credential says.

    Examples: `bessemer credential rotate ci -n acme--lab` · `bessemer credential rotate ci -n acme--lab --overlap 0`
    """
    key = _key(name, project)
    token = run(context, lambda client: client.account.credential_token(project, name, overlap=overlap))
    _give(context, token, key=key, file=kubeconfig)


def revoke(context: typer.Context, name: NameArgument, *, project: ProjectOption = "") -> None:
    """Delete a credential: from now on it is worth nothing. Example: `bessemer credential revoke ci -n acme--lab`"""
    run(context, lambda client: client.delete(_key(name, project)))
    typer.echo(f"applicationcredential/{name} revoked")


def _give(context: typer.Context, token: str, *, key: Key, file: Path | None) -> None:
    if file is None:
        typer.echo(token)
        return
    from bessemer.client import read_kubeconfig
    from bessemer.client.kubeconfig import kubeconfig_of

    server = read_kubeconfig(target(context).kubeconfig)
    text = kubeconfig_of(server.url, server.ca, token=token, namespace=key.namespace, user=key.name)
    half = file.with_name(f"{file.name}.new")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    half.replace(file)
    typer.echo(f"{file} holds the token, readable by you alone")
