"""rollout: how far replicas of an endpoint are of its new revision, what there was before, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli.connection import ProjectOption, key_of, run, split

if TYPE_CHECKING:
    from bessemer.core.resource import Key

NameArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="NAME, or endpoint/NAME.", show_default=False)]
WAIT_SECONDS = 3600.0


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    group = typer.Typer(
        help="Rolling updates of endpoints: how far, what was before, and back.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for command in (status, history, undo, restart):
        group.command(command.__name__)(command)
    app.add_typer(group, name="rollout")


def status(
    context: typer.Context,
    name: NameArgument,
    *,
    project: ProjectOption = "",
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Wait until it is over.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = WAIT_SECONDS,
) -> None:
    """Say how far an update is, until it is over; where it does not get on, why.

    Example: `bessemer rollout status chat -n acme--lab`
    """
    from bessemer.cli.work import rollouts as work

    key = _key(name, project)
    run(context, lambda client: work.follow(client, key, timeout=timeout if watch else 0.0, tell=typer.echo))


def history(context: typer.Context, name: NameArgument, *, project: ProjectOption = "") -> None:
    """List the revisions that are remembered. Example: `bessemer rollout history chat -n acme--lab`"""
    from bessemer.cli.work import rollouts as work

    key = _key(name, project)
    typer.echo(work.history(run(context, lambda client: work.read(client, key))))


def undo(
    context: typer.Context,
    name: NameArgument,
    *,
    project: ProjectOption = "",
    to: Annotated[int, typer.Option("--to", min=0, help="Number of a revision; 0 is the one before.")] = 0,
) -> None:
    """Go back to what replicas were made of before.

    Examples: `bessemer rollout undo chat -n acme--lab` · `bessemer rollout undo chat --to 2 -n acme--lab`
    """
    from bessemer.cli.work import rollouts as work

    key = _key(name, project)
    number = run(context, lambda client: work.undo(client, key, to=to))
    typer.echo(f"endpoint/{key.name} goes back to revision {number}: bessemer rollout status {key.name} -n {project}")


def restart(context: typer.Context, name: NameArgument, *, project: ProjectOption = "") -> None:
    """Have replicas made anew, of the model's content of now. Example: `bessemer rollout restart chat -n acme--lab`"""
    from bessemer.cli.work import rollouts as work

    key = _key(name, project)
    run(context, lambda client: work.restart(client, key))
    typer.echo(f"endpoint/{key.name} is made anew: bessemer rollout status {key.name} -n {project}")


def _key(name: str, project: str) -> Key:
    """Raises Invalid for what is no endpoint."""
    from bessemer.core.errors import Invalid

    words = [name if "/" in name else f"endpoint/{name}"]
    kind: Any
    kind, names = split(words)
    if kind.name != "Endpoint":
        raise Invalid("only endpoints have rollouts")
    return key_of(kind, names[0], project=project)
