"""store keys, store rotate-key: the keys under which secrets are sealed. ``main`` builds what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bessemer.cli.system import StateOption
from bessemer.cli.verbs import KeyAct, KeyOptions, Verbs

GROUP, COMMANDS = "store", ("keys", "rotate-key")


def defaults(state: Path) -> dict[str, Any]:
    """A state directory that stands before the commands (`bessemer --state DIR store keys`) holds for them."""
    return {GROUP: {name: {"state": str(state)} for name in COMMANDS}}


def add(app: typer.Typer, verbs: Verbs) -> None:
    """Put the commands into the tree."""
    group = typer.Typer(help="Where everything is kept.", no_args_is_help=True, rich_markup_mode=None)

    @group.command("keys")
    def keys(state: StateOption = None) -> None:
        """How much is sealed under which key. Example: `bessemer store keys`"""
        raise typer.Exit(verbs.keys(KeyOptions(state=state)))

    @group.command("rotate-key")
    def rotate_key(
        state: StateOption = None,
        *,
        stage: Annotated[bool, typer.Option("--stage", help="Only make the new key, to be copied first.")] = False,
        follow: Annotated[
            bool, typer.Option("--follow", help="Make no new key; go on with the last rotation.")
        ] = False,
        values: Annotated[bool, typer.Option("--values", help="Seal every value anew, not data keys alone.")] = False,
        remove: Annotated[
            bool, typer.Option("--remove-old", help="Make no new key; remove those that nothing is under.")
        ] = False,
    ) -> None:
        """A new key seals from now on, and what the old one sealed follows. Example: `bessemer store rotate-key`"""
        act: KeyAct = "stage" if stage else "follow" if follow or remove else "rotate"
        raise typer.Exit(verbs.keys(KeyOptions(state=state, act=act, values=values, remove=remove)))

    app.add_typer(group, name=GROUP)
