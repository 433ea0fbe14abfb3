"""``bessemer backup``: the store and what opens it, in one encrypted file; and what is needed to read one.

The file is a parcel (`core.parcel`) in a strongbox (`core.strongbox`): the tables of one commit (`store.backup`), the
authority, the keys, the settings, the public half and the heads of the trail, whose content the folder of images is,
and with ``--content`` that folder. Heads are read before the tables, so that each is of a row that is in them; keys
after, so that what seals a row is among them.

Invariant: a file has its name once all of it is on the disk; until then it is ``FILE.part``.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from bessemer.cli import render
from bessemer.cli.verbs import BackupOptions
from bessemer.core.clock import SystemClock, rfc3339
from bessemer.core.errors import Conflict, Invalid
from bessemer.core.parcel import Packing, Unpacking
from bessemer.core.sealing import key_id
from bessemer.core.strongbox import KEY_FILE_BYTES_MIN, Secret, Writer, read
from bessemer.core.units import show_bytes
from bessemer.drivers.fetch.sweeping import GONE, IDLE
from bessemer.main.settings import PREFIX, Paths, given_keys, heads_of, load, state_directory
from bessemer.main.steps import Steps
from bessemer.main.storage import CONTENT_ID, located
from bessemer.store import backup as tables
from bessemer.store.loading import sync

PASSPHRASE = PREFIX + "BACKUP_PASSPHRASE"
PASSPHRASE_MIN = 12
FILES = "file/"
ASIDE = ".part"
CONTENT = "content"

_NEEDED = ("ca/ca.crt", "ca/ca.key", "keys/audit.key", "keys/gateway.key")
_FOR_GOOD = ("ca/ca.crt", "ca/ca.key", "settings.json", "audit/audit.pub", f"{CONTENT}/{CONTENT_ID}")
_PIECE_BYTES = 1 << 20

Ask = Callable[[bool], Secret]
"""What a backup was written under: a passphrase, or else a key file."""


def backup(options: BackupOptions) -> int:
    """Write a backup, or read one. Raises Invalid, Conflict, Unavailable, OSError."""
    steps = Steps(Console(stderr=True))
    if options.verify:
        with steps.step(f"Read {options.file.name}") as step:
            said = verified(options.file, partial(old_secret, options.key_file), told=step.update)
        print(manifest(said))
        return 0
    paths = Paths(state_directory(options.state))
    secret = new_secret(options.key_file)
    with steps.step(f"Back up to {options.file.name}") as step:
        said = _write(options, paths, secret=secret, told=step.update)
        step.note = f"revision {said['revision']}, {show_bytes(options.file.stat().st_size)}"
    print(manifest(said))
    return 0


def _write(
    options: BackupOptions, paths: Paths, *, secret: Secret, told: Callable[[float, str], None]
) -> dict[str, Any]:
    """Answers what the file says of itself."""
    where = located(paths, load(paths, store=options.store))
    clock = SystemClock()
    facts = {**tables.facts(), "at": rfc3339(clock.now())}
    with whole(options.file) as out:
        packing = Packing(Writer(out, secret), facts)
        _pack_file(packing, paths.state, name=heads_of(paths).relative_to(paths.state).as_posix())

        def of_rows(done: int, of: int) -> None:
            told(95 * min(done / max(of, 1), 1.0), "tables")  # a database says about how many there are

        packed = tables.pack(packing, where, clock=clock, told=of_rows)
        names = [*_FOR_GOOD, *(f"keys/{file.name}" for file in sorted(paths.keys.glob("*.key")))]
        for name in names:
            _pack_file(packing, paths.state, name=name)
        if options.content:
            told(95, "images and models")
            for name in _content(paths):
                _pack_file(packing, paths.state, name=name, packed=False)
        kind = "a file" if isinstance(where, Path) else "PostgreSQL"
        said = {
            **facts,
            "revision": packed.revision,
            "store": kind,
            "omitted": _omitted(options, paths, keks=packed.keks),
        }
        packing.end(said)
    return {**said, "parts": [asdict(one) for one in packing.sums]}


def _omitted(options: BackupOptions, paths: Paths, *, keks: frozenset[str]) -> list[str]:
    """What somebody might look for and not find."""
    here = {key_id(file.read_bytes()) for file in paths.keys.glob("seal*.key")}
    sealing, staged = given_keys()
    given = {key_id(key) for key in (*sealing, staged) if key}
    words = "secrets under it open with it alone"
    found = [f"the key {kek}, which {_where(kek, given)}: {words}" for kek in sorted(keks - here)]
    found += [f"{name}, which is not there" for name in _NEEDED if not (paths.state / name).exists()]
    if not options.content:
        found.append("images and models (--content)")
    return [
        *found,
        "the log of changes, agents' disks, usage that gateways have not told, logs, the database's password",
    ]


def _where(kek: str, given: set[str]) -> str:
    return "comes from the environment" if kek in given else "is not in keys/"


def _content(paths: Paths) -> Iterator[str]:
    for file in sorted(paths.content.rglob("*")):
        if file.is_file() and not file.is_symlink() and file.name != CONTENT_ID and file.suffix not in (IDLE, GONE):
            yield f"{CONTENT}/{file.relative_to(paths.content).as_posix()}"


def _pack_file(packing: Packing, state: Path, *, name: str, packed: bool = True) -> None:
    """A file of the state directory; none where it is not there (any more)."""
    try:
        source = (state / name).open("rb")
    except FileNotFoundError:
        return
    with source:
        packing.part(FILES + name, pieces(source), packed=packed)


def pieces(source: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """A file's bytes, none of which is an entry."""
    while some := source.read(_PIECE_BYTES):
        yield some, 0


@contextmanager
def whole(file: Path) -> Iterator[IO[bytes]]:
    """A file of mode 0600 that has its name when the block has ended well. Raises Conflict where there is one."""
    if file.exists():
        raise Conflict(f"{file} is there already")
    aside = file.with_name(file.name + ASIDE)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Conflict(f"another writes {aside}") from error
    try:
        with os.fdopen(descriptor, "wb") as out:
            os.fchmod(descriptor, 0o600)  # of one that was killed, too
            out.truncate()
            yield out
            out.flush()
            os.fsync(descriptor)
        aside.rename(file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(file.parent)


# --- reading one ----------------------------------------------------------------------------------------------------


def verified(file: Path, ask: Ask, *, told: Callable[[float, str], None]) -> dict[str, Any]:
    """Read a backup to its end and answer what it says of itself. Raises Invalid where it is not whole, or not under
    this secret; OSError."""
    with file.open("rb") as source:
        unpacking, size = opened(file, source, ask=ask), file.stat().st_size
        for name, content in unpacking.parts():
            for _ in content:
                told(100 * source.tell() / size, name)
    return unpacking.summary


def opened(file: Path, source: IO[bytes], *, ask: Ask) -> Unpacking:
    """The parts of a backup. Raises Invalid."""
    return Unpacking(read(source, ask, name=str(file)), name=str(file))


def new_secret(key_file: Path | None) -> Secret:
    """What a backup is to be written under. Raises Invalid for what is easily guessed, OSError."""
    if key_file is not None:
        return _key(key_file)
    text = os.environ.get(PASSPHRASE) or _asked("Passphrase: ", again=True)
    if len(text) < PASSPHRASE_MIN:
        raise Invalid(f"a passphrase has {PASSPHRASE_MIN} characters or more; or give --key-file")
    return Secret(text.encode(), passphrase=True)


def old_secret(key_file: Path | None, passphrase: bool) -> Secret:
    """What a backup was written under. Raises Invalid where it was the other of the two."""
    if key_file is not None and passphrase:
        raise Invalid("the backup was written under a passphrase: leave --key-file out")
    if key_file is None and not passphrase:
        raise Invalid("the backup was written under a key file: give --key-file")
    if key_file is not None:
        return _key(key_file)
    return Secret((os.environ.get(PASSPHRASE) or _asked("Passphrase: ")).encode(), passphrase=True)


def _key(file: Path) -> Secret:
    value = file.read_bytes()
    if len(value) < KEY_FILE_BYTES_MIN:
        raise Invalid(f"{file} has less than {KEY_FILE_BYTES_MIN} bytes: head -c 32 /dev/urandom makes a key")
    return Secret(value, passphrase=False)


def _asked(words: str, *, again: bool = False) -> str:
    """Of the terminal. Raises Invalid where there is none."""
    if not sys.stdin.isatty():
        raise Invalid(f"give --key-file, or a passphrase in {PASSPHRASE}: there is no terminal to ask at")
    text = getpass.getpass(words)
    if again and getpass.getpass("Again: ") != text:
        raise Invalid("the two are not the same")
    return text


def manifest(said: dict[str, Any]) -> str:
    """What a backup holds, for a person."""
    lines = [f"{name}: {said[name]}" for name in ("at", "release", "schema", "store", "revision")]
    rows = [[one["name"], _entries(one), str(one["bytes"]), one["sha256"][:16]] for one in said["parts"]]
    lines.append(render.columns(["PART", "ROWS", "BYTES", "SHA-256"], rows))
    return "\n".join([*lines, *(f"Not in it: {words}" for words in said["omitted"])])


def _entries(one: dict[str, Any]) -> str:
    return str(one["entries"]) if one["name"].startswith(tables.TABLE) else "-"
