"""store keys, rotate-key, check, copy; backup and restore: what is kept. ``main`` builds what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bessemer.cli.output import OutputOption
from bessemer.cli.system import StateOption, StoreOption
from bessemer.cli.verbs import (
    BackupOptions,
    CheckOptions,
    CopyOptions,
    KeyAct,
    KeyOptions,
    RestoreOptions,
    Verbs,
)

GROUP, COMMANDS = "store", ("keys", "rotate-key", "check", "copy")
ALONE = ("backup", "restore")

KeyFileOption = Annotated[
    Path | None,
    typer.Option("--key-file", help="32 random bytes or more, in place of a passphrase.", show_default=False),
]


def defaults(state: Path) -> dict[str, Any]:
    """A state directory that stands before the commands (`bessemer --state DIR store keys`) holds for them."""
    said = {"state": str(state)}
    return {GROUP: dict.fromkeys(COMMANDS, said), **dict.fromkeys(ALONE, said)}


def add(app: typer.Typer, verbs: Verbs) -> None:
    """Put the commands into the tree."""
    group = typer.Typer(help="Where everything is kept.", no_args_is_help=True, rich_markup_mode=None)
    _keys(group, verbs)
    _looks(group, verbs)
    app.add_typer(group, name=GROUP)
    _backups(app, verbs)


def _keys(group: typer.Typer, verbs: Verbs) -> None:
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


def _looks(group: typer.Typer, verbs: Verbs) -> None:
    @group.command("check")
    def check(state: StateOption = None, store: StoreOption = None, *, output: OutputOption = "table") -> None:
        """Whether everything that is kept holds together; also while it is up. Status 1 where it does not.

        Example: `bessemer store check -o json`
        """
        raise typer.Exit(verbs.check(CheckOptions(state=state, store=store, output=output)))

    @group.command("copy")
    def copy(
        source: Annotated[
            str, typer.Argument(metavar="FROM", help="A store.db, or postgresql://…", show_default=False)
        ],
        target: Annotated[str, typer.Argument(metavar="TO", help="An empty place of either kind.", show_default=False)],
        *,
        state: StateOption = None,
    ) -> None:
        """All that is kept to another place, while nothing serves it, and compared.

        Example: `bessemer store copy ~/.bessemer/store.db postgresql://bessemer@db.example/bessemer`
        """
        raise typer.Exit(verbs.copy(CopyOptions(source=source, target=target, state=state)))


def _backups(app: typer.Typer, verbs: Verbs) -> None:
    @app.command("backup")
    def backup(
        file: Annotated[Path, typer.Argument(help="Where to write it; must not exist.", show_default=False)],
        state: StateOption = None,
        *,
        store: StoreOption = None,
        key_file: KeyFileOption = None,
        content: Annotated[bool, typer.Option("--content", help="Images and models, too.")] = False,
        verify: Annotated[
            bool, typer.Option("--verify", help="Write nothing: read a backup that is there, and say what it holds.")
        ] = False,
    ) -> None:
        """Everything that an installation cannot live without in one encrypted file, also while it is up.

        Examples: `bessemer backup monday.backup` · `bessemer backup monday.backup --verify`
        """
        options = BackupOptions(file=file, state=state, store=store, key_file=key_file, content=content, verify=verify)
        raise typer.Exit(verbs.backup(options))

    @app.command("restore")
    def restore(
        file: Annotated[Path, typer.Argument(help="A backup.", show_default=False)],
        state: StateOption = None,
        *,
        store: StoreOption = None,
        key_file: KeyFileOption = None,
        force: Annotated[bool, typer.Option("--force", help="Move a state directory that is there aside.")] = False,
    ) -> None:
        """An installation as it was, in an empty place. Example: `bessemer restore monday.backup --state DIR`"""
        options = RestoreOptions(file=file, state=state, store=store, key_file=key_file, force=force)
        raise typer.Exit(verbs.restore(options))
