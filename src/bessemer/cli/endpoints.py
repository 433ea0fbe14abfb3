"""endpoint: what its gateways show to others: a service elsewhere that answers it, the bucket of its prompts."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from bessemer.cli.connection import ProjectOption, find_kind, key_of, run
from bessemer.core.errors import Invalid


def add(app: typer.Typer) -> None:
    """Put the command into the tree."""
    group = typer.Typer(
        help="What endpoints show to services elsewhere, and to buckets.", no_args_is_help=True, rich_markup_mode=None
    )
    group.callback()(lambda: None)  # of one command alone a group would be none
    group.command("secret")(secret)
    app.add_typer(group, name="endpoint")


def secret(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The endpoint's name.", show_default=False)],
    *,
    project: ProjectOption = "",
    logging: Annotated[
        bool, typer.Option("--logging", help="Keys of the bucket where its prompts are logged: access and secret key.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take away what was set.")] = False,
) -> None:
    """Set the key that an endpoint's external service wants to be shown; typed, or on standard input.

    Example: `bessemer endpoint secret gpt -n acme--lab < key.txt`
    """
    key = key_of(find_kind("endpoint"), name, project=project)
    if logging:
        keys = {} if remove else {word: _asked(word) for word in ("accessKey", "secretKey")}
        run(context, lambda client: client.workloads.logging_keys(key, keys))
    else:
        said = "" if remove else _asked()
        run(context, lambda client: client.workloads.endpoint_secret(key, said))
    typer.echo(f"endpoint/{name} {'shows nothing any more' if remove else 'keeps it sealed'}")


def _asked(word: str = "secret") -> str:
    text = getpass.getpass(f"{word}: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not text:
        raise Invalid(f"no {word} was given; type it, or pass it on standard input")
    return text
