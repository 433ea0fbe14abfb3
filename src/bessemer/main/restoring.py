"""``bessemer restore``: an installation out of a backup, in an empty place.

The backup is read to its end before anything is written. Then a folder beside the state directory is filled, and with
it the store; a database in one transaction. The folder has the directory's name at the end. What was killed leaves the
folder, under a name at which nothing looks, and of a database nothing; between its commit and the name, both are whole.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path, PurePosixPath

from pydantic import ValidationError
from rich.console import Console

from bessemer.api.hosts import TOKEN
from bessemer.cli.verbs import RestoreOptions
from bessemer.core.clock import SystemClock
from bessemer.core.errors import BessemerError, Conflict, Invalid
from bessemer.kinds import KINDS
from bessemer.main.backups import CONTENT, FILES, Ask, old_secret, opened, verified
from bessemer.main.keeping import as_table, checked
from bessemer.main.settings import Paths, Settings, load, save, state_directory
from bessemer.main.steps import Steps
from bessemer.main.storage import INSTALLATION
from bessemer.main.up import held
from bessemer.store import backup as tables
from bessemer.store import copy, store_kinds
from bessemer.store.loading import loading, require_empty, sync

ASIDE = ".restoring"
_PLACES = ("ca", "keys", "audit", CONTENT)
_SETTINGS = "settings.json"
_REVOCABLE = "users, rolebindings, applicationcredentials, apikeys, hosts and passwords"
Told = Callable[[float, str], None]


def restore(options: RestoreOptions) -> int:
    """Restore, and check what is there then: 1 where something is wrong with it, or the check cannot run. Raises
    Invalid, Conflict, Unavailable, OSError; then nothing is there that was not."""
    paths, steps = Paths(state_directory(options.state)), Steps(Console(stderr=True))
    ask: Ask = cache(partial(old_secret, options.key_file))
    address = load(Paths(paths.state / "none"), store=options.store).store
    with steps.step(f"Read {options.file.name}") as step:
        said = verified(options.file, ask, told=step.update)
        tables.require_known(said)
    with steps.step(f"Restore revision {said['revision']}") as step:
        _require_empty(paths, address, force=options.force)
        with _staged(paths) as stage:
            _fill(options.file, ask, stage=stage, address=address, told=step.update)
    for words in said["omitted"]:
        print(f"Not restored: {words}")
    print("Not restored: sessions, join tokens: everybody signs in again")
    print(f"Valid again: what was revoked after {said['at']}: go through {_REVOCABLE}")
    print(f"Start it with: bessemer up --state {shlex.quote(str(paths.state))}")
    try:
        found = asyncio.run(checked(paths))
    except (BessemerError, OSError) as error:
        print(f"Restored; the check could not run: {error}")
        return 1
    print(as_table(found))
    return int(not all(tally.ok for tally in found))


def _require_empty(paths: Paths, address: str, *, force: bool) -> None:
    """Raises Conflict where something is in the way that ``force`` does not move."""
    if address:
        require_empty(address)
    if not force and _filled(paths.state):
        raise Conflict(f"{paths.state} is not empty: choose another --state, or --force, which moves it aside")
    if os.path.ismount(paths.state):
        inside = shlex.quote(str(paths.state / "state"))
        raise Conflict(
            f"{paths.state} is a mount point, whose name nothing can take: restore into it, --state {inside}"
        )
    if paths.state.exists() and not paths.state.is_dir():
        raise Conflict(f"{paths.state} is a file")


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


@contextmanager
def _staged(paths: Paths) -> Iterator[Path]:
    """A folder that is the state directory when the block has ended well; what was there is aside then. Raises Conflict
    while that is in use, or another restores to the same place."""
    state = paths.state
    state.parent.mkdir(parents=True, exist_ok=True)
    stage = state.with_name(state.name + ASIDE)
    with ExitStack() as undo:
        if _filled(state):
            undo.enter_context(held(paths))
            undo.enter_context(copy.held(paths.store))
        _alone(stage, undo)
        for left in stage.iterdir():  # of one that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield stage
        except BaseException:
            shutil.rmtree(stage)
            raise
        _replace(state, stage)
        sync(state.parent)


def _replace(state: Path, stage: Path) -> None:
    """Give the folder its name, and what had it another. Raises OSError; then what was there is there."""
    if not _filled(state):
        stage.rename(state)
        return
    aside = state.with_name(f"{state.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    state.rename(aside)
    try:
        stage.rename(state)
    except OSError:
        aside.rename(state)
        raise
    print(f"What was there is {aside} now")


def _alone(folder: Path, undo: ExitStack) -> None:
    """Hold the folder, which is made. Raises Conflict."""
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    undo.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Conflict(f"another restores to {folder.with_suffix('')}") from error


def _fill(file: Path, ask: Ask, *, stage: Path, address: str, told: Told) -> None:
    """Everything, into the folder and the store."""
    with file.open("rb") as source, loading(address or Paths(stage).store) as loader:
        unpacking, size = opened(file, source, ask=ask), file.stat().st_size
        into = tables.Unpacking(loader)
        for name, content in unpacking.parts():
            told(100 * source.tell() / size, name)
            if name.startswith(tables.TABLE):
                into.table(name.removeprefix(tables.TABLE), content)
            else:
                _write(_place(stage, name), content)
        _settle(Paths(stage), address)
        into.end(clock=SystemClock(), keep=(INSTALLATION,), kinds=store_kinds(KINDS), once=(TOKEN,))


def _place(stage: Path, name: str) -> Path:
    """Where a file goes. Raises Invalid for a place that is none of ours."""
    path = PurePosixPath(name.removeprefix(FILES))
    ours = name == FILES + _SETTINGS or (len(path.parts) > 1 and path.parts[0] in _PLACES)
    if not name.startswith(FILES) or not ours or ".." in path.parts:
        raise Invalid(f"the backup holds {name[:80]!r}, which is no part of an installation")
    return stage / path


def _write(file: Path, content: Iterable[bytes]) -> None:
    """A file of mode 0600, on the disk when this returns."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        for some in content:
            out.write(some)
        out.flush()
        os.fsync(descriptor)


def _settle(paths: Paths, address: str) -> None:
    """The settings as they were, but for where the store is."""
    try:
        said = json.loads(paths.settings.read_bytes()) if paths.settings.exists() else {}
        settings = Settings.model_validate({**said, "store": address})
    except (ValueError, ValidationError) as error:
        raise Invalid("the settings in the backup cannot be read") from error
    save(paths, settings)
